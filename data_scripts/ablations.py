"""Train and test pocket on MiniTopics with one thing changed at a time, and print RESULTS.md's tables; resumes.

    python data_scripts/ablations.py                                  # about 45 minutes on 2 cores
    python data_scripts/ablations.py --only shots eta                 # some of the tables
    python data_scripts/ablations.py --only shots --dry-run           # the commands

Each row is one run of train.py (ERM and group DRO, three seeds) on the test split. Nothing is chosen by these tables: the
defaults were chosen on dev (RESULTS.md).
"""
import argparse
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from minirosprompt import UserError
from minirosprompt.checkpoint import read_json
from minirosprompt.cli import Parser, run as run_script

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
SOURCE = "eng_Latn,spa_Latn,rus_Cyrl,zho_Hans"
TWELVE = SOURCE + ",deu_Latn,fra_Latn,arb_Arab,tur_Latn,ind_Latn,hin_Deva,swh_Latn,yor_Latn"
TABLES = {  # name: (what is changed, what the default is, the other rows' flags)
    "length": ("prompt length P", "--prompt-length 8", [f"--prompt-length {P}" for P in (1, 2, 4, 16, 32)]),
    "init": ("initialisation", "--init words", ["--init vocab", "--init normal"]),
    "placement": ("template", "--template '{prompt} {text} {mask}'", [f"--template '{t}'" for t in (
        "{text} {prompt} {mask}", "{text} {mask} {prompt}", "{prompt} {mask} {text}")]),
    "shots": ("shots a class and language", "--shots 8", [f"--shots {n}" for n in (1, 2, 4)]),
    "labels": ("languages of the label words", "all twelve", [f"--label-languages {langs}" for langs in (SOURCE, "eng_Latn")]),
    "k": ("neighbours K", "--k 1", [f"--k {K}" for K in (3, 12, 30)]),
    "calibration": ("calibration", "none", ["--calibration contextual", "--stacking 0.5", "--stacking 1", "--stacking 2"]),
    "eta": ("step size of q", "--eta 0.3", [f"--eta {eta}" for eta in (0.01, 0.1, 1, 3)]),
    "groups": ("groups", "--group-by lang", [f"--group-by {columns}" for columns in ("label", "lang,label", "domain")]),
    "source": ("source languages", f"--source {SOURCE}", [f"--source {langs}" for langs in (
        "eng_Latn", "eng_Latn,spa_Latn", SOURCE + ",deu_Latn,arb_Arab", TWELVE)]),
    "unequal": ("two well- and two low-resource source languages", None, [
        f"--source eng_Latn,zho_Hans,swh_Latn,yor_Latn {more}".strip()
        for more in ("", "--eta 3", "--eta 3 --steps 30", "--eta 3 --steps 300")]),
    "steps": ("steps", "--steps 100", [f"--steps {n}" for n in (20, 50, 200, 400)])}
SOFT = [("target unseen", "unseen, target"), ("target harmonic", "harmonic, target"), ("worst unseen", "worst language")]
COLUMNS = [("hard", "target unseen", "hard: unseen, target"), ("hard", "worst unseen", "hard: worst language")] + [
    (method, cell, f"{name}: {title}") for method, name in (("soft-erm", "ERM"), ("soft-group-dro", "DRO")) for cell, title in SOFT]


def number(summary, cell):
    if cell not in summary:
        return "–"
    sd = summary[cell]["sd"]
    return f"{100 * summary[cell]['mean']:.1f}" + ("" if sd is None else f" ±{100 * sd:.1f}")


def main():
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="(default: all)")
    p.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = p.parse_args()
    for table in args.only:
        title, default, rows = TABLES[table]
        print(f"\n| {title} | {' | '.join(name for *_, name in COLUMNS)} |\n" + "|---" * (1 + len(COLUMNS)) + "|", flush=True)
        first = [("default", "")] if default else []
        for name, flags in first + [(f"{table}-{i}", flags) for i, flags in enumerate(rows)]:
            run = Path("runs") / "ablations" / name
            command = ["train.py", "--name", f"ablations/{name}", *shlex.split(flags)]
            if (run / "config.json").exists():
                command = ["train.py", "--resume", str(run)]
            if args.dry_run:
                print("python " + shlex.join(command))
                continue
            done = (run / "results.json").exists()
            if not done and subprocess.call([sys.executable, TRAIN, *command[1:]], stdout=subprocess.DEVNULL):
                raise UserError(f"python {shlex.join(command)} has failed")
            summary = read_json(run / "results.json")["summary"]
            numbers = [number(summary[method], cell) for method, cell, _ in COLUMNS]
            print(f"| `{flags or default}` | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    run_script(main)
