"""Is all here that the notebooks need? Says what is missing, and what to do.

    python tutorials/day_one.py

The first cell of every notebook asks the same, so this needs nothing but Python itself.
"""
import importlib.util
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
PACKAGES = ["torch", "sentencepiece", "numpy", "tqdm", "matplotlib"]
JUPYTER = ["jupyterlab", "ipykernel"]  # who reads this in a notebook has them
OLDEST_TORCH = (2, 10)  # the tests pass with it
ON_COLAB = "google.colab" in sys.modules


class NotReady(Exception):
    """In a notebook it shows as its text alone, without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def missing_packages():
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def problems():
    """-> what is wrong with this Python and this folder: a list of lines, empty if all is well"""
    found = []
    if sys.version_info < (3, 10):
        found.append(f"Python {sys.version.split()[0]} is too old: 3.10 or newer is needed")
    if not (ROOT / "minirosprompt" / "classifier.py").exists():
        found.append(f"{FOLDER} lies outside of the repository: clone all of it, and open the "
                     "notebook in its folder tutorials")
    lacking = missing_packages()
    if lacking:
        found.append(f"{sys.executable} has no {', '.join(lacking)}{elsewhere()}")
    elif torch_version() < OLDEST_TORCH:
        found.append(f"torch {version('torch')} is older than {'.'.join(map(str, OLDEST_TORCH))}: "
                     f"{install('torch')}")
    return found


def elsewhere():
    """Another Python, which has them; or how this one gets them."""
    for python in (".venv/bin/python", ".venv/Scripts/python.exe"):
        own = ROOT / python
        if own.exists() and Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
            return (f", but the repository has a Python of its own, {python}. In Jupyter: Kernel, "
                    "Change Kernel; or start Jupyter anew with .venv activated")
    return ": " + install(f'-r "{FOLDER / "requirements.txt"}"')


def install(what):
    return f'"{sys.executable}" -m pip install {what}'


def torch_version():
    """-> (major, minor)"""
    try:
        return tuple(int(part) for part in version("torch").split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return OLDEST_TORCH  # built by hand: then it is as it is


def ready():
    """Says in a line what there is. Raises NotReady, which says what is missing."""
    if ON_COLAB and missing_packages():  # its own torch, which knows its GPU, stays
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *missing_packages()],
                       check=True)
    found = problems()
    if found:
        raise NotReady("Not ready yet.\n- " + "\n- ".join(found))
    for folder in (ROOT, FOLDER):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    import torch
    device = "a GPU" if torch.cuda.is_available() else "no GPU (none is needed)"
    print(f"ready: Python {sys.version.split()[0]}, torch {torch.__version__}, {device}")


if __name__ == "__main__":
    PACKAGES += JUPYTER
    try:
        ready()
    except NotReady as error:
        sys.exit(f"day_one.py: {error}")
