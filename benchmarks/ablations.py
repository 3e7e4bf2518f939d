"""Train and test with one thing changed at a time, and print a table of each.

    python benchmarks/ablations.py                          # MiniTopics with pocket: 45 minutes
    python benchmarks/ablations.py --out results/ablations.md
    python benchmarks/ablations.py --only shots eta         # some of the tables
    python benchmarks/ablations.py --only shots --dry-run   # the commands
    python benchmarks/ablations.py --on sib200 --encoder runs/mini  # needs data/sib200

Each row is one run of train.py (all objectives, three seeds) on the test split. What is done is
not done again: a row whose results.json is there is read, one that was interrupted is resumed.
Nothing is chosen by these tables: the defaults were chosen on dev (results/log.md).
"""
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from minirosprompt import UserError
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser
from minirosprompt.io.files import read_json, writing
from minirosprompt.metrics import bootstrap

ROOT = Path(__file__).resolve().parent.parent

# ---- the tables ----------------------------------------------------------------------------------

FOUR = "eng_Latn,spa_Latn,rus_Cyrl,zho_Hans"  # MiniTopics' source languages
TWELVE = f"{FOUR},deu_Latn,fra_Latn,arb_Arab,tur_Latn,ind_Latn,hin_Deva,swh_Latn,yor_Latn"
UNEQUAL = "eng_Latn,zho_Hans,swh_Latn,yor_Latn"
SIX = "eng_Latn,deu_Latn,spa_Latn,rus_Cyrl,arb_Arab,zho_Hans"  # source languages on SIB-200
SIB200 = ["--data", "data/sib200", "--shots", "16",
          "--seen", "science/technology,politics,sports,health", "--source", SIX]


def each(flag, *values):
    """("--k", 3, 12) -> ["--k 3", "--k 12"]"""
    return [f"{flag} {value}" for value in values]


# {table: (what is changed, what the default is called or None, flags of the other rows)}
BOTH = {
    "length": ("prompt length P", "--prompt-length 8", each("--prompt-length", 1, 2, 4, 16, 32)),
    "init": ("initialisation", "--init words", each("--init", "vocab", "normal")),
    "placement": (
        "template", "--template '{prompt} {mask} {text}'",
        each("--template", "'{text} {prompt} {mask}'", "'{text} {mask} {prompt}'",
             "'{prompt} {text} {mask}'")),
    "eta": ("step size of q", "--eta 0.3", each("--eta", 0.01, 0.1, 1, 3)),
    "calibration": (
        "calibration", "none",
        ["--calibration contextual", "--stacking 0.5", "--stacking 1", "--stacking 2"]),
}
MINITOPICS_ONLY = {
    "shots": ("shots a class and language", "--shots 8", each("--shots", 1, 2, 4)),
    "labels": (
        "languages of the label words", "all twelve", each("--label-languages", FOUR, "eng_Latn")),
    "k": ("neighbours K", "--k 1", each("--k", 3, 12, 30)),
    "groups": (
        "groups", "--group-by lang", each("--group-by", "label", "lang,label", "domain")),
    "source": (
        "source languages", f"--source {FOUR}",
        each("--source", "eng_Latn", "eng_Latn,spa_Latn", f"{FOUR},deu_Latn,arb_Arab", TWELVE)),
    "unequal": (
        "two well- and two low-resource source languages", None,
        each("--source", UNEQUAL, f"{UNEQUAL} --eta 3", f"{UNEQUAL} --eta 3 --steps 30",
             f"{UNEQUAL} --eta 3 --steps 300")),
    "steps": ("steps", "--steps 100", each("--steps", 20, 50, 200, 400)),
    "lr": ("learning rate", "--lr 0.01", each("--lr", 0.003, 0.03, 0.1)),
}
SIB200_ONLY = {
    "groups": ("groups", "--group-by lang", each("--group-by", "label", "lang,label")),
    "cross": (
        "trained on MiniTopics, tested on SIB-200's seven classes", None,
        ["--data minitopics --shots 8"]),
    "shots": ("shots a class and language", "--shots 16", each("--shots", 1, 2, 4, 8, 32, 64)),
    "labels": ("languages of the label words", "all", each("--label-languages", SIX, "eng_Latn")),
    "k": ("neighbours K", "--k 1", each("--k", 3, 12, 30)),
    "source": (
        "source languages", f"--source {SIX}",
        each("--source", "eng_Latn", "eng_Latn,deu_Latn,spa_Latn")),
}
TABLES = {"minitopics": BOTH | MINITOPICS_ONLY, "sib200": BOTH | SIB200_ONLY}

# Columns of every method: a cell of results.json's summary, and what it is called here.
CELLS = {
    "minitopics": {"target unseen": "unseen", "target harmonic": "harmonic",
                   "worst unseen": "worst"},
    "sib200": {"target unseen": "unseen", "target harmonic": "harmonic", "worst unseen": "worst",
               "high all": "high", "low all": "low"},
}
EXPLAINED = """\
With `--dry-run` it prints the command of each row, train.py with the row's flags. What the tables
say is in [`RESULTS.md`](../RESULTS.md).

Three seeds, mean ± sd; accuracy in %, all classes compete. *unseen*: unseen classes, target
languages; *harmonic*: of seen and unseen classes, target languages; *worst*: unseen classes, the
worst language. The first row of a table is the default, where a table has one. **Nothing has been
chosen by these tables**: the defaults were chosen on dev ([`log.md`](log.md)).
"""
EXPLAINED_OF = {
    "minitopics": """
A language has 40 texts of unseen classes, so 2.5 points of *worst* are one text; the eight target
languages have 320: differences of five points and less are noise.
""",
    "sib200": """
*high*, *low*: all classes, languages with much and with little pretraining text. In brackets: 95 %
interval over target languages, drawn with replacement.
""",
}


# ---- a row ---------------------------------------------------------------------------------------

def rows_of(name, default, changed):
    """A table's rows -> [(folder's name, what the row is called, its flags)]"""
    rows = []
    if default:
        rows.append(("default", default, ""))
    for i, flags in enumerate(changed):
        rows.append((f"{name}-{i}", flags, flags))
    return rows


def commands_of(args, home, name, flags, is_cross):
    """-> (commands that are still to be run for a row, its results.json)"""
    folder = Path("runs") / home / name
    languages = ["--languages", args.languages] if args.languages else []
    commands = []
    if args.dry_run or not (folder / "results.json").exists():
        if (folder / "config.json").exists():  # begun, and interrupted
            commands.append(["train.py", "--resume", str(folder)])
        else:
            command = ["train.py", "--name", f"{home}/{name}", "--encoder", args.encoder]
            if args.on == "sib200" and not is_cross:
                command += SIB200
            if not is_cross:
                command += languages
            commands.append(command + shlex.split(flags))
    if not is_cross:
        return commands, folder / "results.json"
    results = folder / "eval-test" / "results.json"
    if args.dry_run or not results.exists():
        commands.append(["eval.py", "--run", str(folder), "--data", "data/sib200", *languages])
    return commands, results


def run(command):
    script, *flags = command
    status = subprocess.call([sys.executable, ROOT / script, *flags], stdout=subprocess.DEVNULL)
    if status != 0:
        raise UserError(f"python {shlex.join(command)} has failed")


def cells_of(results, names, with_interval):
    """results.json -> {(method, name of a cell): text}, for every method that was run."""
    cells = {}
    for method, of in results["summary"].items():
        for cell, name in names.items():
            text = "–"
            if cell in of:
                text = f"{100 * of[cell]['mean']:.1f}"
                if of[cell]["sd"] is not None:
                    text += f" ±{100 * of[cell]['sd']:.1f}"
                if with_interval and cell == "target unseen":
                    text += interval(results["rows"], method)
            cells[method, name] = text
    return cells


def interval(rows, method):
    """95 % interval of a method's accuracy on unseen classes, over target languages."""
    rows = [row for row in rows if row["method"] == method and row["role"] == "target"]
    rows = [row for row in rows if row["unseen"] is not None]
    unseen = np.array([row["unseen"] for row in rows])
    langs = np.array([row["lang"] for row in rows])
    low, high = bootstrap(unseen, langs)
    return f" ({100 * low:.1f} to {100 * high:.1f})"


# ---- Markdown ------------------------------------------------------------------------------------

def heading(title, columns):
    """Two lines. columns: [(method, name)]; a method stands above the first of its columns."""
    heads = [title]
    last = None
    for method, name in columns:
        heads.append(name if method == last else f"{method}: {name}")
        last = method
    return line(heads) + "\n" + "|---" * len(heads) + "|"


def line(cells):
    return "| " + " | ".join(cells) + " |"


def section(name, title, rows):
    """A table of the file. rows: [(what it is called, cells)].

    Columns with one and the same text in every row, such as the hard prompt's where only training
    is changed, stand in a sentence above the table.
    """
    columns = []
    for _, cells in rows:
        columns += [column for column in cells if column not in columns]
    varying, constant = [], {}
    for column in columns:
        texts = [cells.get(column, "–") for _, cells in rows]
        if len(rows) > 1 and len(set(texts)) == 1:
            method, of = column
            constant.setdefault(method, []).append(f"{of} {texts[0]}")
        else:
            varying.append(column)
    lines = [f"## {name}", ""]
    if constant:
        lines.append("The same in every row:")
        lines += [f"- {method}: {', '.join(of)}" for method, of in constant.items()]
        lines.append("")
    lines.append(heading(title, varying))
    for called, cells in rows:
        texts = [cells.get(column, "–") for column in varying]
        lines.append(line([f"`{called}`", *texts]))
    return "\n".join(lines) + "\n"


def main():
    p = Parser(description=__doc__)
    p.add_argument("--on", choices=list(TABLES), default="minitopics",
                   help="the data set (default: minitopics)")
    p.add_argument("--encoder", default="pocket", help="as in train.py (default: pocket)")
    p.add_argument("--only", nargs="+", help="names of tables (default: all)")
    p.add_argument("--languages",
                   help="languages that are tested, with commas (default: all in the data)")
    p.add_argument("--out", type=Path, help="Markdown file to write the tables to as well")
    p.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = p.parse_args()
    tables = TABLES[args.on]
    for name in args.only or ():
        if name not in tables:
            raise UserError(f"--only: {name} not among {', '.join(tables)}")
    home = f"{args.on}-{Path(args.encoder).name}"
    if home == "minitopics-pocket":
        home = "ablations"

    sections = []
    for name in args.only or tables:
        title, default, changed = tables[name]
        done = []  # (what a row is called, its cells)
        for folder, called, flags in rows_of(name, default, changed):
            commands, path = commands_of(args, home, folder, flags, name == "cross")
            for command in commands:
                if args.dry_run:
                    print("python " + shlex.join(command))
                else:
                    run(command)
            if args.dry_run:
                continue
            cells = cells_of(read_json(path), CELLS[args.on], args.on == "sib200")
            if not done:  # the methods are known now
                columns = list(cells)
                print("\n" + heading(title, columns))
            texts = [cells.get(column, "–") for column in columns]
            print(line([f"`{called}`", *texts]), flush=True)
            done.append((called, cells))
        if done:
            sections.append(section(name, title, done))

    if args.out and sections:
        title = f"One thing changed at a time: {args.on} with {args.encoder}, test split"
        command = shlex.join(["python", "benchmarks/ablations.py", *sys.argv[1:]])
        with writing(args.out) as file:
            file.write(f"# {title}\n\nWritten by `{command}`.\n")
            file.write(EXPLAINED + EXPLAINED_OF[args.on] + "\n" + "\n".join(sections))


if __name__ == "__main__":
    cli.run(main)
