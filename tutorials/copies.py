"""Copies of the notebooks to work in: a student's, without answers, or a teacher's, with all.

    python tutorials/copies.py student   # tutorials/student/: no outputs, a cell for each guess
    python tutorials/copies.py teacher   # tutorials/teacher/: outputs, checks and solutions

On Colab the first cell fetches the repository: --repository says from where. What is there
already, with your work in it, is left alone.
"""
import argparse
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GUESS = "**Your guess** (double-click to edit):"
PLACEHOLDER = "https://github.com/YOU/minirosprompt"


def student(notebook):
    """A notebook as a dict -> the same without outputs and checks, with cells for guesses"""
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            if "check" in cell["metadata"].get("tags", []):
                continue
            cell = cell | {"outputs": [], "execution_count": None}
        cells.append(cell)
        if cell["cell_type"] == "markdown" and "**Predict" in "".join(cell["source"]):
            cells.append({"cell_type": "markdown", "id": f"guess-{len(cells)}",
                          "metadata": {"tags": ["guess"]}, "source": GUESS})
    return notebook | {"cells": cells}


def teacher(notebook, solutions):
    """A notebook and that of its solutions -> the same with the solutions in it"""
    solved = [cell for cell in solutions["cells"] if cell["cell_type"] == "code"]
    cells = []
    for cell in notebook["cells"]:
        if "exercise" in cell["metadata"].get("tags", []):
            cell = cell | {"source": solved.pop(0)["source"]}
        if "checker" in cell["metadata"].get("tags", []):
            cell = cell | {"outputs": []}  # what is stored says that it is not solved
        cells.append(cell)
    return notebook | {"cells": cells}


def moved(notebook, repository):
    """For a folder within this one: links go up, and Colab fetches from your repository."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1)
    text = re.sub(r"\]\((pictures|solutions|\.\.)/", r"](../\1/", text)
    return text.replace(PLACEHOLDER, repository)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("whose", choices=["student", "teacher"])
    p.add_argument("--repository", default=PLACEHOLDER, help="that the first cell fetches on Colab")
    args = p.parse_args()
    out = FOLDER / args.whose
    out.mkdir(exist_ok=True)
    left = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        if (out / path.name).exists():
            left += 1
            continue
        notebook = read(path)
        if args.whose == "student":
            notebook = student(notebook)
        else:
            solutions = FOLDER / "solutions" / path.name
            notebook = teacher(notebook, read(solutions) if solutions.exists() else {"cells": []})
        text = moved(notebook, args.repository)
        (out / path.name).write_text(text + "\n", encoding="utf-8")
    print(f"{out}: " + (f"{left} notebooks were there and stay as they are" if left else "written"))


if __name__ == "__main__":
    sys.exit(main())
