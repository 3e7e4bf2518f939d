"""Draw a run's results: accuracy language by language and method by method, with the seeds' spread.

    python benchmarks/figure.py runs/NAME/results.json results/minitopics.svg

It is the picture that every run leaves as figure.svg, for any results.json and under any name.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from pathlib import Path

from minirosprompt import UserError
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser
from minirosprompt.io.files import read_json, writing
from minirosprompt.io.languages import load_languages
from minirosprompt.io.picture import draw


def main():
    p = Parser(description=__doc__)
    p.add_argument("results", type=Path, help="results.json of a run or an evaluation")
    p.add_argument("figure", type=Path, help="file to write, .svg")
    args = p.parse_args()
    if args.figure.suffix != ".svg":
        raise UserError(f"{args.figure}: the figure's name must end in .svg")
    results = read_json(args.results)
    names = {lang: of["name"] for lang, of in load_languages().items()}
    try:
        chance = 1 / len(results["settings"]["classes"])
        picture = draw(results["rows"], names, chance)
    except (KeyError, TypeError, IndexError, ValueError, ZeroDivisionError):
        raise UserError(f"{args.results}: not the results.json of a run") from None
    with writing(args.figure) as file:
        file.write(picture)


if __name__ == "__main__":
    cli.run(main)
