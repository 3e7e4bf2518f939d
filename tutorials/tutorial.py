"""What the notebooks share.

A short mode for the tests, how plots look, train.py as a module, whether there is a real encoder.
"""
import importlib.util
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from cycler import cycler  # matplotlib brings it

from minirosprompt.io import e5, hub

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


def at_hand():
    """Whether multilingual-e5-small is in a cache of this machine; if not, says how to get it.

    A notebook downloads nothing: without this encoder it leaves out what needs one.
    """
    repository, _ = hub.parse(e5.NAME)
    commit, _ = hub.PINNED[repository]
    from_hub = hub.find_in_cache(repository, [commit, "main"])
    if from_hub or hub.missing(e5.cache_folder() / e5.NAME) is None:
        return True
    print(f"left out, because {e5.NAME} is not on this machine; to get it (91 MB): "
          f"python data_scripts/download_encoder.py {e5.NAME}")
    return False


def unsolved(text="not solved yet"):
    """What an exercise's stub does: the checker below it fails until you replace this call."""
    raise NotImplementedError(text)
