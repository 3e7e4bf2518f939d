"""The notebooks run from top to bottom, twice and in any order; their exercises can be solved; what
they say of themselves is so; and their stored outputs are of their own code.
"""
import ast
import hashlib
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import symtable
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import ROOT, load_script

FOLDER = ROOT / "tutorials"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
DEPTH = [name for name in NOTEBOOKS if name != "00_start"]  # with exercises
COLLAPSED = load_script("tutorials/minutes.py").COLLAPSED  # cells that a student need not read


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def cells(notebook):
    """-> [(tags, source, outputs)] of the code cells"""
    return [(set(cell["metadata"].get("tags", [])), "".join(cell["source"]), cell["outputs"])
            for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"]
            if cell["cell_type"] == "markdown"]


def solutions(name):
    """The solved exercises of a notebook, in order."""
    path = FOLDER / "solutions" / f"{name}.ipynb"
    return [source for _, source, _ in cells(read(path))] if path.exists() else []


@pytest.fixture()
def execute(monkeypatch, tmp_path_factory):
    """A function that runs code cells in one namespace. A wrong claim is an AssertionError.

    In a folder of its own, because copies lie elsewhere than the notebooks.
    """
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the first cell adds to it
    import matplotlib.pyplot as plt
    import tutorial

    def run(sources, namespace):
        monkeypatch.setattr(tutorial, "SHORT", bool(os.environ.get("TUTORIALS_SHORT")))
        for where, source in sources:
            exec(compile(source, where, "exec"), namespace)
            plt.close("all")

    return run


def solved(name):
    """-> [(where, source)] of a notebook's code cells, with the exercises solved"""
    left = solutions(name)
    sources = []
    for i, (tags, source, _) in enumerate(cells(read(FOLDER / f"{name}.ipynb"))):
        sources.append((f"{name}, code cell {i}", left.pop(0) if "exercise" in tags else source))
    assert not left
    return sources


def checkers(name):
    return sum("checker" in tags for tags, _, _ in cells(read(FOLDER / f"{name}.ipynb")))


# ---- they run ------------------------------------------------------------------------------------

def test_all_are_there():
    assert [name[:2] for name in NOTEBOOKS] == [f"{n:02}" for n in range(len(NOTEBOOKS))]
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"{name}.ipynb" in text for name in NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_full(name, execute, monkeypatch, capsys):
    """With the claims that need all steps."""
    monkeypatch.delenv("TUTORIALS_SHORT", raising=False)
    execute(solved(name), {"__name__": "__main__"})
    assert capsys.readouterr().out.split("\n").count("solved") == checkers(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_cell_again_in_any_order(name, execute, monkeypatch, capsys):
    """A student goes back and runs a cell again: nothing may depend on the order. (Short mode.)"""
    monkeypatch.setenv("TUTORIALS_SHORT", "1")
    namespace = {"__name__": "__main__"}
    sources = solved(name)
    execute(sources, namespace)
    assert capsys.readouterr().out.split("\n").count("solved") == checkers(name)
    random.Random(name).shuffle(sources)
    execute(sources, namespace)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_cell_takes_from_others_comes_from_one(name):
    """A name that two cells assign has the value of whichever ran last."""
    made, taken = {}, {}  # {name: numbers of cells}
    for i, (_, source) in enumerate(solved(name)):
        own, used = names_of(source)
        for found in own:
            made.setdefault(found, set()).add(i)
        for found in used - own:
            taken.setdefault(found, set()).add(i)
    several = {found: made[found] for found in taken if len(made.get(found, ())) > 1}
    assert not several


def names_of(source):
    """A cell -> the global names that it makes, and those that it reads"""
    table = symtable.symtable(source, "cell", "exec")
    made = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    return made, used_in(table)


def used_in(table):
    """Global names that a piece of code, or a function in it, reads."""
    found = set()
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
            found.add(symbol.get_name())
    for child in table.get_children():
        found |= used_in(child)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_without_the_real_encoder(name, execute, monkeypatch, tmp_path, capsys):
    """What needs it is left out, with one line that says how to get it."""
    for cache in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(cache, str(tmp_path))
    monkeypatch.setenv("TUTORIALS_SHORT", "1")
    execute(solved(name), {"__name__": "__main__"})
    uses_it = any("at_hand()" in source for _, source in solved(name))
    assert capsys.readouterr().out.count("download_encoder.py multilingual-e5-small") == uses_it
    assert not list(tmp_path.glob("minirosprompt/*"))  # and nothing was downloaded


# ---- they can be read ----------------------------------------------------------------------------

@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_of_this_code_and_fit_to_be_read_on_the_web(name):
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    notebook = read(path)
    found = cells(notebook)
    code = "\n\n".join(source for _, source, _ in found)
    stored = notebook["metadata"].get("code_sha256")
    stale = "stale: python tutorials/refresh.py"
    assert stored == hashlib.sha256(code.encode()).hexdigest(), stale
    assert path.stat().st_size <= 250_000
    assert not re.search(r"/(home|root|tmp|Users)/", text)
    pictures = [out for _, _, outputs in found for out in outputs
                if "image/png" in out.get("data", {})]
    assert pictures  # one at least

    # Stored where the real encoder is at hand, whoever reads them has it or not.
    outputs = json.dumps([outputs for _, _, outputs in found])
    assert "left out, because" not in outputs and "pocket instead" not in outputs
    assert not any(out["output_type"] == "error" for _, _, outputs in found for out in outputs)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name):
    """What a student sees has at most ten lines, imports and all."""
    seen = []
    for tags, source, _ in cells(read(FOLDER / f"{name}.ipynb")):
        lines = [line for line in source.split("\n") if line.strip()]
        assert all(len(line) <= 100 for line in lines), source
        if tags & {"check", "plot"}:
            continue
        assert not re.search(r"^\s*assert\b", source, re.M), source  # in a cell of checks
        if tags & {"setup", *COLLAPSED}:
            continue
        assert len(lines) <= 10, source
        if "exercise" not in tags:  # theirs are to be written
            seen.append(len(lines))
    assert statistics.median(seen) <= 7


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_students_copy_imports_what_it_uses(name):
    """What only the checks use is imported there: a student's copy has none of them."""
    copy = load_script("tutorials/copies.py").student(read(FOLDER / f"{name}.ipynb"))
    sources = ["".join(c["source"]) for c in copy["cells"] if c["cell_type"] == "code"]
    imports = {(of.asname or of.name).split(".")[0]
               for node in ast.walk(ast.parse("\n".join(sources)))
               if isinstance(node, (ast.Import, ast.ImportFrom)) for of in node.names}
    sources += solutions(name)
    used = {node.id for node in ast.walk(ast.parse("\n".join(sources)))
            if isinstance(node, ast.Name)}
    assert imports <= used


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_it_says_of_itself(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    text = "\n".join(prose(notebook))
    for word in ("**Goal.**", "**Prerequisites.**", "**Predict.**"):
        assert word in text, word
    said = int(re.search(r"\*\*Time\.\*\* (\d+) minutes", text)[1])
    needed = load_script("tutorials/minutes.py").reading_minutes(notebook)
    assert abs(said - needed) <= 0.1 * needed + 1
    assert said <= (30 if name == "00_start" else 60)
    assert f"| [`{name}.ipynb`]({name}.ipynb) |" in (FOLDER / "README.md").read_text("utf-8")
    assert re.search(rf"{name}.*\| {said} \|", (FOLDER / "README.md").read_text("utf-8"))


@pytest.mark.parametrize("name", DEPTH)
def test_exercises_pictures_and_links(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    found = cells(notebook)
    exercises = [source for tags, source, _ in found if "exercise" in tags]
    assert 2 <= len(exercises) == checkers(name) == len(solutions(name)) <= 4
    assert all("unsolved()" in source for source in exercises)  # a task, not its solution
    text = "\n".join(prose(notebook))
    assert text.count("<details>") >= len(exercises)  # hints
    assert f"](solutions/{name}.ipynb)" in text
    assert text.count("](pictures/") >= 2


def links(text):
    """Those to files."""
    return [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_somewhere(name):
    for path in (FOLDER / f"{name}.ipynb", FOLDER / "solutions" / f"{name}.ipynb"):
        if not path.exists():
            continue
        for link in links("\n".join(prose(read(path)))):
            assert (path.parent / link).exists(), link


def test_every_first_cell_is_the_same():
    first = {cells(read(FOLDER / f"{name}.ipynb"))[0][1] for name in NOTEBOOKS}
    assert len(first) == 1


# ---- what comes with them ------------------------------------------------------------------------

@pytest.fixture()
def copies(tmp_path):
    """copies.py, in a folder of its own with the notebooks."""
    module = load_script("tutorials/copies.py")
    module.FOLDER = tmp_path
    (tmp_path / "solutions").mkdir()
    for name in NOTEBOOKS:
        for path in (f"{name}.ipynb", f"solutions/{name}.ipynb"):
            if (FOLDER / path).exists():
                (tmp_path / path).write_bytes((FOLDER / path).read_bytes())
    return module


def test_a_students_copy(copies, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["copies.py", "student"])
    copies.main()
    for name in NOTEBOOKS:
        notebook = read(tmp_path / "student" / f"{name}.ipynb")
        found = cells(notebook)
        assert not any(outputs for _, _, outputs in found)
        assert not any("check" in tags for tags, _, _ in found)
        guesses = prose(notebook).count(copies.GUESS)
        assert guesses == sum("**Predict" in text for text in prose(notebook)) > 0
        for link in links("\n".join(prose(notebook))):  # they lead to where they did
            here = FOLDER / "student" / link
            assert (tmp_path / "student" / link).exists() or os.path.exists(os.path.normpath(here))
    # What a student has written is not overwritten.
    worked_in = tmp_path / "student" / "00_start.ipynb"
    worked_in.write_text("mine")
    copies.main()
    assert worked_in.read_text() == "mine"
    assert "stay as they are" in capsys.readouterr().out


def test_a_copy_for_colab(copies, tmp_path, monkeypatch):
    """The first cell fetches from the address; pictures and solutions are there, too."""
    def address(name):
        return re.search('REPOSITORY = "(.*)"', cells(read(copy / name))[0][1])[1]

    copy = tmp_path / "student"
    mine = "https://example.org/mine"
    monkeypatch.setattr(sys, "argv", ["copies.py", "student", "--repository", mine])
    copies.main()
    text = "\n".join(prose(read(copy / "04_soft_prompts.ipynb")))
    assert f"]({mine}/raw/HEAD/tutorials/pictures/04_slots.svg)" in text
    assert f"]({mine}/blob/HEAD/tutorials/solutions/04_soft_prompts.ipynb)" in text
    assert not [link for link in links(text) if "/" in link]
    assert address("04_soft_prompts.ipynb") == mine
    monkeypatch.setattr(sys, "argv", ["copies.py", "student", "--repository", mine + "-2"])
    copies.main()  # those that are there get the new address
    assert {address(f"{name}.ipynb") for name in NOTEBOOKS} == {mine + "-2"}
    text = "\n".join(prose(read(copy / "04_soft_prompts.ipynb")))
    assert f"]({mine}-2/raw/HEAD/tutorials/pictures/04_slots.svg)" in text
    assert f"{mine}/" not in text


def test_an_address_for_copies_that_are_there(copies, tmp_path, monkeypatch):
    """Made without one first, as the README has it: pictures and links then lead there as well."""
    monkeypatch.setattr(sys, "argv", ["copies.py", "student"])
    copies.main()
    monkeypatch.setattr(sys, "argv", ["copies.py", "student", "--repository", "https://e.org/a"])
    copies.main()
    for name in NOTEBOOKS:
        text = "\n".join(prose(read(tmp_path / "student" / f"{name}.ipynb")))
        assert not re.findall(r"\]\((?!https?://|#)[^)]*\)", text), name
        assert "](https://e.org/a/raw/HEAD/tutorials/pictures/" in text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_students_copy_does_without_the_checks(copies, name):
    """Nothing that is made in a cell that is left out is read in one that is left."""
    notebook = read(FOLDER / f"{name}.ipynb")
    left = [names_of(source) for _, source, _ in cells(copies.student(notebook))]
    made = set().union(*(own for own, _ in left))
    used = set().union(*(read for _, read in left))
    everything = set().union(*(names_of(source)[0] for _, source, _ in cells(notebook)))
    assert not used & (everything - made)


def test_a_teachers_copy(copies, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["copies.py", "teacher"])
    copies.main()
    for name in NOTEBOOKS:
        found = cells(read(tmp_path / "teacher" / f"{name}.ipynb"))
        assert [source for tags, source, _ in found if "exercise" in tags] == solutions(name)
        assert any(outputs for _, _, outputs in found)
    notes = "\n".join(prose(read(tmp_path / "teacher" / "04_soft_prompts.ipynb")))
    assert "Frequent mistakes" in notes


def test_the_checker_shows_yours_and_expected(execute, capsys):
    from tutorial import check, unsolved

    def half(x):
        return x / 2

    def todo(x):
        unsolved()

    cases = {"a number": ((3.0,), 1.5), "a tensor": ((torch.ones(2),), torch.full((2,), 0.5))}
    check(half, cases)
    assert capsys.readouterr().out.endswith("solved\n")
    wrong = {"odd": ((3,), 1), "shape": ((torch.ones(2, 1),), torch.full((2,), 0.5)),
             "pair": ((1.0,), (0.5, 0.5))}
    check(half, cases | wrong)
    said = capsys.readouterr().out
    assert "WRONG  odd\n       yours     1.5\n       expected  1\n       called with 3\n" in said
    assert "a tensor of another shape" in said
    assert said.endswith("2 of 5 cases are right\n")
    check(half, {"late": ((torch.ones(9),), torch.tensor([0.5] * 7 + [2.0, 3.0]))})
    said = capsys.readouterr().out
    assert "2 of 9 numbers differ; the first is at [7]: yours 0.5, expected 2\n" in said
    check(lambda x: x.tolist(), {"a list": ((torch.ones(2),), torch.ones(2))})
    assert "yours is a list, not a tensor: torch.tensor or torch.stack" in capsys.readouterr().out
    check(lambda x: np.asarray(x) / 2, {"an array": (([1, 3],), [0.5, 1.5])})
    check(lambda x: Fraction(x, 2), {"a fraction": ((3,), 1.5)})
    check(np.float32, {"a number of NumPy's": ((0.5,), 0.5)})
    assert capsys.readouterr().out.count("solved") == 3
    check(todo, cases)
    assert capsys.readouterr().out == "todo: yours to write, in the cell above\n"


def test_the_checker_names_frequent_slips(execute, capsys):
    from tutorial import check

    q = torch.tensor([0.5, 0.5])

    def in_place(q):
        q *= 2
        return q

    def forgotten(q):
        q.sum()

    check(in_place, {"first": ((q,), torch.ones(2)), "second": ((q,), torch.ones(2))})
    said = capsys.readouterr().out
    assert said.endswith("but not solved before it leaves its arguments as they are\n")
    assert q.tolist() == [0.5, 0.5]
    assert said.count("it changes its argument 1 in place") == 2
    check(forgotten, {"first": ((q,), torch.ones(2))})
    assert "None is what a function gives that ends without a return" in capsys.readouterr().out
    with pytest.raises(RuntimeError):
        check(lambda q: q @ torch.ones(3), {"first": ((q,), 1.0)})
    assert capsys.readouterr().out == "ERROR  first\n       called with (2,): 0.5, 0.5\n"


# ---- day one -------------------------------------------------------------------------------------

def test_day_one():
    done = subprocess.run([sys.executable, FOLDER / "day_one.py"], capture_output=True, text=True)
    day_one = load_script("tutorials/day_one.py")
    lacking = [name for name in day_one.PACKAGES + day_one.JUPYTER
               if importlib.util.find_spec(name) is None]
    if lacking:
        assert done.returncode == 1 and f"has no {', '.join(lacking)}" in done.stderr
    else:
        assert done.returncode == 0 and done.stdout.startswith("ready: Python "), done.stderr


def test_day_one_says_what_is_wrong(tmp_path, monkeypatch):
    day_one = load_script("tutorials/day_one.py")
    assert day_one.NotReady("a line")._render_traceback_() == ["a line"]
    monkeypatch.setattr(day_one, "PACKAGES", ["torch", "no_such_package"])
    assert [line for line in day_one.problems() if "has no no_such_package" in line]
    monkeypatch.setattr(day_one, "PACKAGES", ["torch"])
    monkeypatch.setattr(day_one, "OLDEST_TORCH", (99, 0))
    assert [line for line in day_one.problems() if "is older than 99.0" in line]
    monkeypatch.setattr(day_one, "FOLDER", tmp_path / "tutorials")
    monkeypatch.setattr(day_one, "ROOT", tmp_path)
    assert "outside of the repository" in day_one.problems()[0]
    # The wrong kernel, beside an environment that has all.
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    monkeypatch.setattr(day_one, "PACKAGES", ["no_such_package"])
    assert "Change Kernel" in day_one.problems()[-1]
    with pytest.raises(day_one.NotReady, match="Not ready yet"):
        day_one.ready()
