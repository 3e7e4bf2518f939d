"""Run the notebooks and store their outputs, without anything that differs from run to run.

    pip install -r tutorials/requirements.txt
    python tutorials/refresh.py                       # all: two to ten minutes on 2 cores
    python tutorials/refresh.py tutorials/05_*.ipynb  # some

A second run leaves no diff. The hash of the code cells is stored with the outputs;
tests/test_tutorials.py compares it, so code that was changed after its outputs were made is found
out. Prints how long each has run, and how many minutes it should say that it takes to read.
"""
import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from minutes import COLLAPSED, reading_minutes
from nbclient import NotebookClient
from PIL import Image  # matplotlib brings it
from tqdm import tqdm

FOLDER = Path(__file__).resolve().parent


def code_hash(notebook):
    """sha256 of the code cells, which is what outputs depend on."""
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\n\n".join(code).encode()).hexdigest()


def smaller(png):
    """The same picture with 64 colours, a quarter of the bytes. base64 -> base64"""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    picture.quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def clean(cell):
    """Takes out of a cell's outputs what differs from run to run, and what is for a terminal."""
    cell.execution_count = None
    tags = cell.metadata.get("tags", [])
    cell.metadata = {"tags": tags} if tags else {}
    if COLLAPSED.keys() & set(tags):
        cell.metadata["jupyter"] = {"source_hidden": True}
    kept = []
    for out in cell.outputs:
        if out.output_type == "execute_result":
            out.execution_count = None
        if out.output_type == "stream":
            if out.name == "stderr":
                continue  # progress bars
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += out.text  # in how many pieces it arrives is chance
                continue
        if out.output_type == "error":
            out.traceback = [f"{out.ename}: {out.evalue}"]
        if "data" in out:
            if "image/png" in out.data:
                out.data = {"image/png": smaller(out.data["image/png"])}
            out.metadata = {}
        kept.append(out)
    cell.outputs = kept


def refresh(path):
    """Runs one notebook and writes it anew, with its outputs. -> what is to be said of it"""
    start = time.monotonic()
    notebook = nbformat.read(path, 4)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    seconds = time.monotonic() - start
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        if cell.cell_type == "code":
            clean(cell)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "code_sha256": code_hash(notebook),
    }
    text = nbformat.writes(notebook)
    if str(FOLDER.parent) in text or re.search(r"/(home|root|tmp|Users)/", text):
        sys.exit(f"{path}: a path of this machine is in it")
    path.write_text(text + "\n", encoding="utf-8")
    return (f"{path.name}: {path.stat().st_size / 1000:.0f} KB, {seconds:.0f} s, "
            f"{reading_minutes(notebook):.0f} minutes to read")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("notebooks", nargs="*", type=Path, default=sorted(FOLDER.glob("*.ipynb")),
                   help="(default: all)")
    args = p.parse_args()
    # With another number of threads the last digits are others.
    os.environ["OMP_NUM_THREADS"] = "2"
    for path in tqdm(args.notebooks, unit="notebook"):
        tqdm.write(refresh(path))


if __name__ == "__main__":
    main()
