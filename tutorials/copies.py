"""Copies of the notebooks to work in: a student's, without answers, or a teacher's, with all.

    python tutorials/copies.py student   # tutorials/student/: no outputs, a cell for each guess
    python tutorials/copies.py teacher   # tutorials/teacher/: outputs, checks and solutions
    python tutorials/copies.py student --repository https://github.com/ME/MINE   # for Colab

On Colab the first cell fetches the repository: --repository says from where. Pictures and links
then lead there, too, so that one notebook alone can be handed out. What is there already, with your
work in it, is left alone but for that address.
"""
import argparse
import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GUESS = "**Your guess** (double-click to edit):"


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
    """A notebook and that of its solutions -> the same with the solutions, and what they say"""
    solved = list(solutions["cells"])[1:]  # but for its title: a text and a function, in turn
    cells = []
    for cell in notebook["cells"]:
        if "exercise" in cell["metadata"].get("tags", []):
            note, function = solved.pop(0), solved.pop(0)
            cells.append(note | {"id": f"note-{len(cells)}"})
            cell = cell | {"source": function["source"]}
        if "checker" in cell["metadata"].get("tags", []):
            cell = cell | {"outputs": []}  # what is stored says that it is not solved
        cells.append(cell)
    return notebook | {"cells": cells}


def moved(notebook, repository):
    """For a folder within this one: links go up, or, if that is known, to the repository."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
    text = re.sub(r"\]\((pictures|solutions|\.\.)/", r"](../\1/", text)
    return with_address(text, repository) if repository else text


ADDRESS = r'REPOSITORY = \\"([^"\\]*)\\"'  # in the first cell, as JSON writes it


def with_address(text, repository):
    """The text of a copy -> the same with all its links, and its first cell, to the repository"""
    before = re.search(ADDRESS, text)
    if before and before[1].startswith("https://"):  # links that went there already
        text = text.replace(f"]({before[1]}/", f"]({repository}/")
    text = re.sub(r"\]\(\.\./(pictures/[^)]*)\)", rf"]({repository}/raw/HEAD/tutorials/\1)", text)
    text = re.sub(r"\]\(\.\./\.\./([^)]*)\)", rf"]({repository}/blob/HEAD/\1)", text)
    text = re.sub(r"\]\(\.\./([^)]*)\)", rf"]({repository}/blob/HEAD/tutorials/\1)", text)
    text = re.sub(r"\]\((\w+\.ipynb[^)]*)\)", rf"]({repository}/blob/HEAD/tutorials/\1)", text)
    return re.sub(ADDRESS, f'REPOSITORY = \\\\"{repository}\\\\"', text)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("whose", choices=["student", "teacher"])
    p.add_argument("--repository", help="its address: what the first cell fetches on Colab")
    args = p.parse_args()
    out = FOLDER / args.whose
    out.mkdir(exist_ok=True)
    left = 0
    for path in sorted(FOLDER.glob("*.ipynb")):
        copy = out / path.name
        if copy.exists():
            left += 1
            if args.repository:
                text = copy.read_text(encoding="utf-8")
                copy.write_text(with_address(text, args.repository), encoding="utf-8")
            continue
        notebook = read(path)
        if args.whose == "student":
            notebook = student(notebook)
        else:
            solutions = FOLDER / "solutions" / path.name
            notebook = teacher(notebook, read(solutions) if solutions.exists() else {"cells": []})
        copy.write_text(moved(notebook, args.repository), encoding="utf-8")
    but = ", but for that address" if args.repository else ""
    print(f"{out}: " + (f"{left} notebooks were there and stay as they are{but}" if left
                        else "written"))


if __name__ == "__main__":
    main()
