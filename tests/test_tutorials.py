"""The notebooks run from top to bottom, their exercises can be solved, and their stored outputs are
of their own code.
"""
import hashlib
import json
import os
import re

import pytest
from conftest import ROOT

FOLDER = ROOT / "tutorials"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def solutions(name):
    """The solved exercises of a notebook, in order."""
    path = ROOT / "tests/tutorial_solutions" / f"{name}.py"
    return path.read_text(encoding="utf-8").split("# ---\n")


def cells(name):
    """-> [(tags, source, outputs)] of the code cells"""
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            tags = cell["metadata"].get("tags", [])
            found.append((tags, "".join(cell["source"]), cell["outputs"]))
    return found


def execute(name, monkeypatch, solutions):
    """Runs the code cells in one namespace, with every exercise replaced by its solution.

    A wrong claim is an AssertionError.
    """
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(FOLDER)
    import matplotlib.pyplot as plt
    import tutorial
    monkeypatch.setattr(tutorial, "SHORT", bool(os.environ.get("TUTORIALS_SHORT")))
    namespace = {"__name__": "__main__"}
    left = list(solutions)
    for i, (tags, source, _) in enumerate(cells(name)):
        if "exercise" in tags:
            source = left.pop(0)
        exec(compile(source, f"{name}, code cell {i}", "exec"), namespace)
        plt.close("all")
    assert not left


def test_all_seven_are_there():
    assert [name[:2] for name in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_short(name, monkeypatch):
    monkeypatch.setenv("TUTORIALS_SHORT", "1")
    execute(name, monkeypatch, solutions(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_full(name, monkeypatch):
    """With the claims that need all steps."""
    monkeypatch.delenv("TUTORIALS_SHORT", raising=False)
    execute(name, monkeypatch, solutions(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_without_the_real_encoder(name, monkeypatch, tmp_path, capsys):
    """What needs it is left out, with one line that says how to get it."""
    for cache in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(cache, str(tmp_path))
    monkeypatch.setenv("TUTORIALS_SHORT", "1")
    execute(name, monkeypatch, solutions(name))
    uses_it = any("at_hand()" in source for _, source, _ in cells(name))
    assert capsys.readouterr().out.count("download_encoder.py multilingual-e5-small") == uses_it
    assert not list(tmp_path.glob("minirosprompt/*"))  # and nothing was downloaded


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_of_this_code_and_fit_to_be_read_on_the_web(name):
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    found = cells(name)
    code = "\n\n".join(source for _, source, _ in found)
    stored = notebook["metadata"]["code_sha256"]
    stale = "stale: python tutorials/refresh.py"
    assert stored == hashlib.sha256(code.encode()).hexdigest(), stale
    assert path.stat().st_size <= 180_000
    assert not re.search(r"/(home|root|tmp|Users)/", text)
    pictures = [out for _, _, outputs in found for out in outputs
                if "image/png" in out.get("data", {})]
    assert pictures  # one at least

    # Stored where the real encoder is at hand, whoever reads them has it or not.
    assert "left out, because" not in json.dumps([outputs for _, _, outputs in found])

    exercises = [source for tags, source, _ in found if "exercise" in tags]
    checkers = [source for tags, source, _ in found if "checker" in tags]
    assert 2 <= len(exercises) == len(checkers) <= 3
    assert all("unsolved(" in source for source in exercises)  # a task, not its solution
    for tags, source, outputs in found:
        # A checker fails until its exercise is solved, and nothing else does.
        errors = [out for out in outputs if out["output_type"] == "error"]
        assert bool(errors) == ("checker" in tags), source

    prose = ["".join(cell["source"]) for cell in notebook["cells"]
             if cell["cell_type"] == "markdown"]
    for word in ("Goal", "Prerequisites", "Time", "Predict"):
        assert word in "".join(prose), word
    assert sum("assert" in source for _, source, _ in found) >= 4


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_code_fits_a_hundred_columns(name):
    for _, source, _ in cells(name):
        for line in source.split("\n"):
            assert len(line) <= 100, line
