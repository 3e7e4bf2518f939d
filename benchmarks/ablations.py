"""Train and test with one thing changed at a time, and print a table of each.

    python benchmarks/ablations.py                          # MiniTopics with pocket: 45 minutes
    python benchmarks/ablations.py --out results/ablations.md
    python benchmarks/ablations.py --only shots eta         # some of the tables
    python benchmarks/ablations.py --only shots --dry-run   # the commands
    python benchmarks/ablations.py --on sib200              # real text: needs data/sib200
    python benchmarks/ablations.py --on unbalanced          # sources of unequal size
    python benchmarks/ablations.py --on cross --only sib200 # trained on MiniTopics
    python benchmarks/ablations.py --on words               # needs runs/me5-mlm, of add_head.py

Each row is one run of train.py. What is done is not done again: a row whose results.json is there
is read, one that was interrupted is resumed. The tables are in suites.py.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import shlex
import subprocess
import sys
from pathlib import Path

from by_language import percent, span
from suites import SUITES

from minirosprompt import UserError, metrics
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser
from minirosprompt.io.files import read_json, writing

ROOT = Path(__file__).resolve().parent.parent

# ---- a row ---------------------------------------------------------------------------------------

def rows_of(table, name):
    """A table's rows -> [(folder's name, what the row is called, its flags)]"""
    _, default, changed = table
    rows = []
    if default:
        rows.append(("default", default, ""))
    for i, flags in enumerate(changed):
        rows.append((f"{name}-{i}", flags, flags))
    return rows


def commands_of(args, suite, home, table, name, flags):
    """-> (commands that are still to be run for a row, its results.json)"""
    languages = args.languages or suite.languages
    languages = ["--languages", languages] if languages else []
    elsewhere = suite.tested_on.get(table)
    if elsewhere:  # trained once, tested on each of the data sets
        name = name.replace(table, "trained")
    folder = Path("runs") / home / name
    commands = []
    if args.dry_run or not (folder / "results.json").exists():
        if (folder / "config.json").exists():  # begun, and interrupted
            commands.append(["train.py", "--resume", str(folder)])
        else:
            command = ["train.py", "--name", f"{home}/{name}", "--encoder", args.encoder]
            command += suite.flags + ([] if elsewhere else languages)
            commands.append(command + shlex.split(flags))
    if not elsewhere:
        return commands, folder / "results.json"
    tested = folder / Path(elsewhere).name
    if args.dry_run or not (tested / "results.json").exists():
        commands.append(["eval.py", "--run", str(folder), "--data", elsewhere, "--out",
                         str(tested), "--dtype", "bfloat16", *languages])
    return commands, tested / "results.json"


def check_flags(path, results, args):
    """Raises UserError if the row was run with another --encoder or other --languages."""
    of_row = results["settings"]["encoder"]
    if of_row != cli.whole_path(args.encoder):
        raise UserError(f"{path}: run with --encoder {of_row}; move it away to run the row again")
    langs = {row["lang"] for row in results["rows"]}
    if args.languages and langs != set(cli.names(args.languages)):
        raise UserError(f"{path}: run with other --languages; move it away to run the row again")


def run(command):
    script, *flags = command
    status = subprocess.call([sys.executable, ROOT / script, *flags], stdout=subprocess.DEVNULL)
    if status != 0:
        raise UserError(f"python {shlex.join(command)} has failed")


def value(rows, cell):
    """One number of one prompt's rows, one row a language; None where there is no such text.

    cell: "target unseen", the mean over target languages on unseen classes; "worst unseen", the
    worst of all languages; "worst source all", the worst source language on all classes.
    """
    *which, metric = cell.split()
    roles = [role for role in which if role in ("source", "target")] or ["source", "target"]
    rows = [row for row in rows if row["role"] in roles]
    if "worst" in which:
        return metrics.mean_or_worst(rows, "worst", metric, {})
    return metrics.mean_of(rows, metric)


def cells_of(results, names):
    """results.json -> {(method, name of a cell): "12.3 ±1.0"}, over the seeds of every method."""
    prompts = {}
    for row in results["rows"]:
        prompts.setdefault(row["method"], {}).setdefault(row["seed"], []).append(row)
    cells = {}
    for method, of_seed in prompts.items():
        for cell, name in names.items():
            if cell == "gain":
                cells[method, name] = gain_of(results["summary"][method])
                continue
            values = [value(rows, cell) for rows in of_seed.values()]
            cells[method, name] = "–" if None in values else percent(values)
    return cells


def gain_of(summary):
    """One method's summary -> "+1.2 (-0.3 to +2.7)": over the hard prompt, on all texts."""
    if "all gain" not in summary:
        return "–"
    gain = summary["all gain"]
    return f"{100 * gain['mean']:+.1f} ({span((gain['low'], gain['high']))})"


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
    p.add_argument("--on", choices=list(SUITES), default="minitopics",
                   help="which tables (default: minitopics)")
    p.add_argument("--encoder", help="as in train.py (default: pocket on minitopics, else "
                   "multilingual-e5-small)")
    p.add_argument("--only", nargs="+", help="names of tables (default: all)")
    p.add_argument("--languages", help="languages that are tested, with commas (default: the "
                   "tables' own)")
    p.add_argument("--out", type=Path, help="Markdown file to write the tables to as well")
    p.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    args = p.parse_args()
    suite = SUITES[args.on]
    for name in args.only or ():
        if name not in suite.tables:
            raise UserError(f"--only: {name} not among {', '.join(suite.tables)}")
    args.encoder = args.encoder or suite.encoder
    home = f"ablations/{args.on}"  # runs/sib200 may be a run of the reader's
    if args.encoder != suite.encoder:  # another encoder's runs have a folder of their own
        home += f"-{Path(args.encoder).name}"

    sections = []
    for name in args.only or suite.tables:
        table = suite.tables[name]
        done = []  # (what a row is called, its cells)
        for folder, called, flags in rows_of(table, name):
            commands, path = commands_of(args, suite, home, name, folder, flags)
            for command in commands:
                if args.dry_run:
                    print("python " + shlex.join(command))
                else:
                    run(command)
            if args.dry_run:
                continue
            results = read_json(path)
            check_flags(path, results, args)
            cells = cells_of(results, suite.cells)
            if not done:  # the methods are known now
                columns = list(cells)
                print("\n" + heading(table[0], columns))
            texts = [cells.get(column, "–") for column in columns]
            print(line([f"`{called}`", *texts]), flush=True)
            done.append((called, cells))
        if done:
            sections.append(section(name, table[0], done))

    if args.out and sections:
        command = shlex.join(["python", "benchmarks/ablations.py", *sys.argv[1:]])
        with writing(args.out) as file:
            file.write(f"# Tables: {args.on} with {args.encoder}\n\nWritten by `{command}`. With "
                       "`--dry-run` it prints the command of each row, train.py with the row's\n"
                       "flags. What the tables say is in [`RESULTS.md`](../RESULTS.md).\n"
                       f"{suite.about}\n" + "\n".join(sections))


if __name__ == "__main__":
    cli.run(main)
