"""Draw a run's results: accuracy on unseen classes, language by language and method by method, with the seeds' spread.

    python data_scripts/figure.py runs/NAME/results.json figures/minitopics.svg      # needs matplotlib (requirements-dev.txt)
"""
import argparse
import sys
from pathlib import Path

import numpy as np

from minirosprompt import UserError
from minirosprompt.io.files import read_json, writing
from minirosprompt.io.cli import Parser, run as run_script
from minirosprompt.languages import load_languages

STYLES = {"hard": ("hard prompt", "x", "0.5"), "soft-erm": ("soft prompt, ERM", "o", "0.0"),
          "soft-group-dro": ("soft prompt, group DRO", "D", "#c06000")}  # told apart by shape too, for grey paper


def draw(rows, column, chance, path):
    """rows: of results.json; column: what is drawn; chance: what guessing gives."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise UserError("matplotlib is missing: pip install matplotlib") from None
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "minirosprompt", "font.size": 9}  # the same file every time
    methods = [m for m in STYLES if any(r["method"] == m for r in rows)]
    values = {(m, lang): [100 * r[column] for r in rows if r["method"] == m and r["lang"] == lang and r[column] is not None]
              for m in methods for lang in {r["lang"] for r in rows}}
    role, name = {r["lang"]: r["role"] for r in rows}, {lang: row["name"] for lang, row in load_languages().items()}
    langs = sorted(role, key=lambda lang: (role[lang] == "source", np.mean(values[methods[-1], lang])))
    figure, axes = plt.subplots(figsize=(6.4, 1 + 0.26 * len(langs)))
    for i, method in enumerate(methods):
        label, marker, colour = STYLES[method]
        mean = [np.mean(values[method, lang]) for lang in langs]
        sd = [np.std(values[method, lang], ddof=1) if len(values[method, lang]) > 1 else 0 for lang in langs]
        y = np.arange(len(langs)) + 0.22 * (i - (len(methods) - 1) / 2)
        axes.errorbar(mean, y, xerr=sd, fmt=marker, color=colour, markersize=4, linewidth=0.8, label=label)
    axes.axvline(100 * chance, color="0.7", linewidth=0.8, linestyle=":", label="chance")
    axes.set_yticks(range(len(langs)), [f"{name.get(lang, lang)} ({role[lang]})" for lang in langs])
    axes.set_xlabel(f"accuracy on {column} classes, %")
    axes.set_xlim(0, 100)
    axes.grid(axis="y", linewidth=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="upper center", ncols=len(methods) + 1, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    with writing(path, "wb") as file:
        figure.savefig(file, format=path.suffix[1:], metadata={"Date": None})
    plt.close(figure)


def main():
    p = Parser(description=__doc__)
    p.add_argument("results", type=Path, help="results.json of a run or an evaluation")
    p.add_argument("figure", type=Path, help="file to write, .svg")
    args = p.parse_args()
    if args.figure.suffix != ".svg":
        raise UserError(f"{args.figure}: the figure's name must end in .svg")
    try:
        results = read_json(args.results)
        draw(results["rows"], "unseen", 1 / len(results["settings"]["classes"]), args.figure)
    except (KeyError, TypeError, IndexError):
        raise UserError(f"{args.results}: not the results.json of a run with unseen classes") from None


if __name__ == "__main__":
    run_script(main)
