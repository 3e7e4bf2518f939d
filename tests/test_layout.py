"""The shape of the code: which way its arrows point, how long its files and lines are."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "minirosprompt"
FRONT_ROOM = sorted(PACKAGE.glob("*.py"))
BACK_ROOM = sorted((PACKAGE / "io").glob("*.py"))
SCRIPTS = [ROOT / "train.py", ROOT / "eval.py"]
NOT_THE_PRODUCT = ("tests", "build", ".venv")


def module_name(path):
    """minirosprompt/io/cli.py -> minirosprompt.io.cli"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in [*FRONT_ROOM, *BACK_ROOM]}


def imports(path):
    """-> {(absolute name of a module, name taken out of it or None)}, inside functions too."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join(above + ([node.module] if node.module else []))
            found |= {(module, alias.name) for alias in node.names}
    return found


def modules_used(path):
    """-> names of our own modules that a file imports."""
    used = set()
    for module, name in imports(path):
        if f"{module}.{name}" in MODULES:  # from . import metrics
            used.add(f"{module}.{name}")
        elif module in MODULES:
            used.add(module)
    return used


def test_the_parser_of_imports_sees_them():
    assert ("minirosprompt", "UserError") in imports(PACKAGE / "prompt.py")
    assert ("minirosprompt.io.files", "writing") in imports(PACKAGE / "io/safetensors.py")
    assert "minirosprompt.metrics" in modules_used(PACKAGE / "report.py")
    assert "minirosprompt.io.weights" in modules_used(PACKAGE / "xlmr.py")


@pytest.mark.parametrize("path", BACK_ROOM, ids=lambda path: path.name)
def test_io_needs_nothing_of_the_method(path):
    """Of the front room it imports UserError alone."""
    for module, name in imports(path):
        if module.split(".")[0] == "minirosprompt" and not module.startswith("minirosprompt.io"):
            assert (module, name) in {("minirosprompt", "UserError"), ("minirosprompt", "io")}


@pytest.mark.parametrize("path", [*FRONT_ROOM, *BACK_ROOM, *SCRIPTS], ids=lambda path: path.name)
def test_nothing_imports_a_script(path):
    """Neither the package, nor train.py and eval.py each other."""
    scripts = {"train", "eval", "data_scripts", "benchmarks", "tutorials", "tests"}
    used = {module.split(".")[0] for module, _ in imports(path)}
    assert not used & scripts


def test_data_scripts_do_not_import_what_trains():
    for path in [*(ROOT / "data_scripts").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        used = {module.split(".")[0] for module, _ in imports(path)}
        assert not used & {"train", "eval", "benchmarks", "tests"}, path.name
        assert "sys.path" not in path.read_text(encoding="utf-8"), path.name


def test_the_concepts_know_nothing_of_who_uses_them():
    """Arrows: scripts -> classifier, report -> the concepts -> io."""
    users = {"minirosprompt.classifier", "minirosprompt.report"}
    for path in FRONT_ROOM:
        if module_name(path) not in users:
            assert not modules_used(path) & users, path.name


def test_there_is_no_circle():
    """Take away what imports nothing that is left, again and again: all goes."""
    left = {}
    for name, path in MODULES.items():
        # `from . import UserError` needs the package, which needs nothing.
        left[name] = modules_used(path) - {name, "minirosprompt", "minirosprompt.io"}
    while left:
        free = [name for name, used in left.items() if not used & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for loaded in [m for m in sys.modules if m.split(".")[0] == "minirosprompt"]:
        del sys.modules[loaded]
    importlib.import_module(name)
    print(name)
"""


def test_every_module_can_be_the_first_one_that_is_imported():
    command = [sys.executable, "-c", ALONE, *MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == list(MODULES), done.stderr


# ---- sizes ---------------------------------------------------------------------------------------

def product_files():
    """-> the .py files that git tracks, or (without git) all, but for the tests."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        paths = [Path(line) for line in found.splitlines()]
    except (OSError, subprocess.CalledProcessError):
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    return [p for p in paths if p.parts[0] not in NOT_THE_PRODUCT and (ROOT / p).exists()]


def lines_of(path):
    return (ROOT / path).read_text(encoding="utf-8").splitlines()


def test_no_line_is_longer_than_100_characters():
    paths = product_files()
    assert Path("train.py") in paths
    too_long = []
    for path in paths:
        for n, line in enumerate(lines_of(path), 1):
            if len(line) > 100:
                too_long.append(f"{path}:{n}")
    assert not too_long


def test_it_can_be_read_in_an_afternoon():
    """The method is small enough to be read as a whole, and each script on its own."""
    assert sum(len(lines_of(path)) for path in FRONT_ROOM) <= 1200
    assert len(lines_of("train.py")) <= 230
    assert len(lines_of("eval.py")) <= 150


def test_every_module_says_what_it_is_for():
    for path in product_files():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or not tree.body, path
