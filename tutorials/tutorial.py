"""What the notebooks share: a short mode for the tests, how plots look, train.py as a module."""
import importlib.util
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from cycler import cycler  # matplotlib brings it

# Set by the tests: fewer steps, and claims that need the full ones go unchecked.
SHORT = bool(os.environ.get("TUTORIALS_SHORT"))

plt.rcParams |= {
    "figure.figsize": (6, 3.2),
    "figure.dpi": 80,
    "savefig.bbox": "tight",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.cmap": "Greys",
    "axes.prop_cycle": (cycler(color=["0.0", "#c06000", "0.5", "#0070b0"])
                        + cycler(linestyle=["-", "--", "-.", ":"])),
}
# The committed outputs were computed with two; another number changes the last digits.
torch.set_num_threads(2)


def load_script(name):
    """"train" -> train.py as a module.

    It is a script in the repository's root and no part of the package, so `import` does not find
    it from here.
    """
    path = Path(__file__).resolve().parent.parent / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unsolved(text="not solved yet"):
    """What an exercise's stub does: the checker below it fails until you replace this call."""
    raise NotImplementedError(text)
