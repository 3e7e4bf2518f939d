"""Train and test with one thing changed at a time, and print RESULTS.md's tables; what is done is not done again.

    python data_scripts/ablations.py                                  # MiniTopics with pocket: about 45 minutes on 2 cores
    python data_scripts/ablations.py --only shots eta                 # some of the tables
    python data_scripts/ablations.py --only shots --dry-run           # the commands
    python data_scripts/ablations.py --on sib200 --encoder runs/mini  # SIB-200 with your encoder (needs data/sib200)

Each row is one run of train.py (ERM and group DRO, three seeds) on the test split. Nothing is chosen by these tables: the
defaults were chosen on dev (RESULTS.md).
"""
import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from minirosprompt import UserError
from minirosprompt.io.files import read_json
from minirosprompt.io.cli import Parser, run as run_script
from minirosprompt.metrics import bootstrap

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "eng_Latn,spa_Latn,rus_Cyrl,zho_Hans"
TWELVE = SOURCE + ",deu_Latn,fra_Latn,arb_Arab,tur_Latn,ind_Latn,hin_Deva,swh_Latn,yor_Latn"
SIX = "eng_Latn,deu_Latn,spa_Latn,rus_Cyrl,arb_Arab,zho_Hans"
BOTH = {  # on either data set: {name: (what is changed, what the default is, the other rows' flags)}
    "length": ("prompt length P", "--prompt-length 8", [f"--prompt-length {P}" for P in (1, 2, 4, 16, 32)]),
    "init": ("initialisation", "--init words", ["--init vocab", "--init normal"]),
    "placement": ("template", "--template '{prompt} {mask} {text}'", [f"--template '{t}'" for t in (
        "{text} {prompt} {mask}", "{text} {mask} {prompt}", "{prompt} {text} {mask}")]),
    "eta": ("step size of q", "--eta 0.3", [f"--eta {eta}" for eta in (0.01, 0.1, 1, 3)]),
    "calibration": ("calibration", "none", ["--calibration contextual", "--stacking 0.5", "--stacking 1", "--stacking 2"])}
TABLES = {
    "minitopics": BOTH | {
        "shots": ("shots a class and language", "--shots 8", [f"--shots {n}" for n in (1, 2, 4)]),
        "labels": ("languages of the label words", "all twelve", [f"--label-languages {langs}" for langs in (SOURCE, "eng_Latn")]),
        "k": ("neighbours K", "--k 1", [f"--k {K}" for K in (3, 12, 30)]),
        "groups": ("groups", "--group-by lang", [f"--group-by {columns}" for columns in ("label", "lang,label", "domain")]),
        "source": ("source languages", f"--source {SOURCE}", [f"--source {langs}" for langs in (
            "eng_Latn", "eng_Latn,spa_Latn", SOURCE + ",deu_Latn,arb_Arab", TWELVE)]),
        "unequal": ("two well- and two low-resource source languages", None, [
            f"--source eng_Latn,zho_Hans,swh_Latn,yor_Latn {more}".strip()
            for more in ("", "--eta 3", "--eta 3 --steps 30", "--eta 3 --steps 300")]),
        "steps": ("steps", "--steps 100", [f"--steps {n}" for n in (20, 50, 200, 400)]),
        "lr": ("learning rate", "--lr 0.01", [f"--lr {lr}" for lr in (0.003, 0.03, 0.1)])},
    "sib200": BOTH | {
        "groups": ("groups", "--group-by lang", [f"--group-by {columns}" for columns in ("label", "lang,label")]),
        "cross": ("trained on MiniTopics, tested on SIB-200's seven classes", None, ["--data minitopics --shots 8"]),
        "shots": ("shots a class and language", "--shots 16", [f"--shots {n}" for n in (1, 2, 4, 8, 32, 64)]),
        "labels": ("languages of the label words", "all", [f"--label-languages {langs}" for langs in (SIX, "eng_Latn")]),
        "k": ("neighbours K", "--k 1", [f"--k {K}" for K in (3, 12, 30)]),
        "source": ("source languages", f"--source {SIX}", ["--source eng_Latn", "--source eng_Latn,deu_Latn,spa_Latn"])}}
SIB200 = f"--data data/sib200 --shots 16 --seen science/technology,politics,sports,health --source {SIX}"
SOFT = [("target unseen", "unseen, target"), ("target harmonic", "harmonic, target"), ("worst unseen", "worst language")]
MORE = [("high all", "high-resource, all"), ("low all", "low-resource, all")]
METHODS = [("soft-erm", "ERM"), ("soft-group-dro", "DRO")]


def number(results, method, cell, interval):
    """A cell of the table: mean ± sd over seeds, and perhaps a 95 % interval over target languages, drawn with replacement."""
    of = results["summary"][method].get(cell)
    if of is None:
        return "–"
    text = f"{100 * of['mean']:.1f}" + ("" if of["sd"] is None else f" ±{100 * of['sd']:.1f}")
    if interval and cell == "target unseen":
        rows = [row for row in results["rows"] if row["method"] == method and row["role"] == "target" and row["unseen"] is not None]
        low, high = bootstrap(np.array([row["unseen"] for row in rows]), np.array([row["lang"] for row in rows]))
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return text


def main():
    p = Parser(description=__doc__)
    p.add_argument("--on", choices=list(TABLES), default="minitopics", help="the data set (default: minitopics)")
    p.add_argument("--encoder", default="pocket", help="as in train.py (default: pocket)")
    p.add_argument("--only", nargs="+", help="names of tables (default: all)")
    p.add_argument("--languages", help="languages that are tested, with commas (default: all in the data)")
    p.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = p.parse_args()
    tables, sib = TABLES[args.on], args.on == "sib200"
    for name in args.only or ():
        if name not in tables:
            raise UserError(f"--only: {name} not among {', '.join(tables)}")
    home = "ablations" if (args.on, args.encoder) == ("minitopics", "pocket") else f"{args.on}-{Path(args.encoder).name}"
    hard = [("hard", cell, f"hard: {title}") for cell, title in (SOFT[0], SOFT[2], *MORE * sib)]
    columns = hard + [(method, cell, f"{name}: {title}") for method, name in METHODS for cell, title in SOFT + MORE * sib]
    common = [] if args.encoder == "pocket" else ["--encoder", args.encoder]
    common += (SIB200.split() if sib else []) + (["--languages", args.languages] if args.languages else [])

    def run(*command):
        if args.dry_run:
            print("python " + shlex.join(command))
        elif subprocess.call([sys.executable, ROOT / command[0], *command[1:]], stdout=subprocess.DEVNULL):
            raise UserError(f"python {shlex.join(command)} has failed")

    for table in args.only or tables:
        title, default, rows = tables[table]
        print(f"\n| {title} | {' | '.join(name for *_, name in columns)} |\n" + "|---" * (1 + len(columns)) + "|", flush=True)
        for name, flags in ([("default", "")] if default else []) + [(f"{table}-{i}", flags) for i, flags in enumerate(rows)]:
            folder = Path("runs") / home / name
            results = folder / ("eval-test" if table == "cross" else "") / "results.json"
            if not (folder / "results.json").exists() or args.dry_run:
                begun = (folder / "config.json").exists()
                of_row = ["--encoder", args.encoder, *shlex.split(flags)] if table == "cross" else [*common, *shlex.split(flags)]
                run("train.py", *(["--resume", str(folder)] if begun else ["--name", f"{home}/{name}", *of_row]))
            if table == "cross" and (args.dry_run or not results.exists()):
                run("eval.py", "--run", str(folder), "--data", "data/sib200", *(["--languages", args.languages] if args.languages else []))
            if not args.dry_run:
                found = read_json(results)
                numbers = [number(found, method, cell, sib) for method, cell, _ in columns]
                print(f"| `{flags or default}` | {' | '.join(numbers)} |", flush=True)


if __name__ == "__main__":
    run_script(main)
