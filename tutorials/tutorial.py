"""What the notebooks share: how plots look, how exercises are checked, whether there is an encoder.
"""
import importlib.util
import math
import os
from numbers import Number
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler  # matplotlib brings it

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io import e5, hub

ROOT = Path(__file__).resolve().parent.parent

# Set by the tests: fewer steps, and claims that need the full ones go unchecked.
SHORT = bool(os.environ.get("TUTORIALS_SHORT"))

device = "cuda" if torch.cuda.is_available() else "cpu"

plt.rcParams |= {
    "figure.figsize": (6.4, 3.4),
    "figure.dpi": 120,  # so that it can be projected
    "savefig.bbox": "tight",
    "font.size": 12,
    "font.family": "DejaVu Sans",  # comes with matplotlib; has Cyrillic, Greek and Arabic letters
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.cmap": "Greys",
    "axes.prop_cycle": (cycler(color=["0.0", "#c06000", "0.5", "#0070b0"])
                        + cycler(linestyle=["-", "--", "-.", ":"])),
}


# ---- encoders ------------------------------------------------------------------------------------

def at_hand():
    """Whether multilingual-e5-small is in a cache of this machine; if not, says how to get it.

    No notebook but the first downloads it: without this encoder they leave out what needs one.
    """
    if is_cached():
        return True
    print(f"left out, because {e5.NAME} is not on this machine; to get it (91 MB): "
          f"cd {ROOT} && python data_scripts/download_encoder.py {e5.NAME}")
    return False


def is_cached():
    repository, _ = hub.parse(e5.NAME)
    commit, _ = hub.PINNED[repository]
    from_hub = hub.find_in_cache(repository, [commit, "main"])
    return bool(from_hub) or hub.missing(e5.cache_folder() / e5.NAME) is None


def real_encoder(fetch):
    """-> (encoder, tokenizer): multilingual-e5-small, fetched if need be; without it, pocket."""
    if fetch or is_cached():
        try:
            return load_encoder(e5.NAME, device)
        except UserError as error:
            print(error)
    print("pocket instead: a toy, which needs names of classes in the texts' own language")
    return load_encoder("pocket", device)


def load_script(name):
    """"train" -> train.py as a module.

    It is a script in the repository's root and no part of the package, so `import` does not find
    it from here.
    """
    path = ROOT / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- exercises -----------------------------------------------------------------------------------

def unsolved():
    """What an exercise's stub does, until you replace this call."""
    raise NotImplementedError


def check(function, cases, tolerance=1e-4):
    """Prints what your function gives for every case, and what is expected; "solved" if all agree.

    A function that writes into a tensor it was given has not solved it, right as its result may be.
    cases: {"what is special about it": (arguments, expected)}
    """
    right = 0
    in_place = False
    for case, (arguments, expected) in cases.items():
        given = [own_copy(argument) for argument in arguments]
        try:
            yours = function(*given)
        except NotImplementedError:
            print(f"{function.__name__}: yours to write, in the cell above")
            return
        except Exception:
            print(f"ERROR  {case}\n       called with {', '.join(brief(of) for of in arguments)}")
            raise
        same = alike(yours, expected, tolerance)
        right += same
        print(f"{'right' if same else 'WRONG'}  {case}\n"
              f"       yours     {brief(yours)}\n       expected  {brief(expected)}")
        if not same:
            print(f"       called with {', '.join(brief(of) for of in arguments)}")
        if yours is None and expected is not None:
            print("       None is what a function gives that ends without a return")
        elif not same and isinstance(expected, torch.Tensor):
            print(f"       {first_difference(yours, expected, tolerance)}")
        for number, (before, after) in enumerate(zip(arguments, given), 1):
            if isinstance(before, torch.Tensor) and not alike(after, before, 0.0):
                in_place = True
                print(f"       it changes its argument {number} in place (by += or the like): "
                      "whoever calls it may need the old one")
    if right == len(cases) and in_place:
        print("all right, but not solved before it leaves its arguments as they are")
    else:
        print("solved" if right == len(cases) else f"{right} of {len(cases)} cases are right")


def own_copy(argument):
    """A tensor's copy, so that a function that writes into it spoils no other case."""
    if isinstance(argument, torch.Tensor) and not argument.requires_grad:
        return argument.clone()
    return argument


def alike(yours, expected, tolerance):
    """Numbers and tensors up to the tolerance, also within lists and tuples; all else as it is.

    A NumPy array or number is as good as a list, a tensor or a number of Python's.
    """
    if isinstance(yours, (np.ndarray, np.generic)):
        yours = torch.tensor(yours) if isinstance(expected, torch.Tensor) else yours.tolist()
    if isinstance(expected, torch.Tensor):
        if not isinstance(yours, torch.Tensor) or yours.shape != expected.shape:
            return False
        return torch.allclose(yours.double().cpu(), expected.double().cpu(), rtol=tolerance,
                              atol=tolerance, equal_nan=True)
    if isinstance(expected, float):
        if not isinstance(yours, (Number, torch.Tensor)):
            return False
        return math.isclose(float(yours), expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, (list, tuple)):
        if not isinstance(yours, (list, tuple)) or len(yours) != len(expected):
            return False
        return all(alike(a, b, tolerance) for a, b in zip(yours, expected))
    return yours == expected


def first_difference(yours, expected, tolerance):
    """Two tensors that are not alike -> where they begin to differ, in a line"""
    if not isinstance(yours, torch.Tensor):
        return f"yours is a {type(yours).__name__}, not a tensor: torch.tensor or torch.stack"
    if yours.shape != expected.shape:
        return "a tensor of another shape"
    yours, expected = yours.double().cpu(), expected.double().cpu()
    near = torch.isclose(yours, expected, rtol=tolerance, atol=tolerance)
    at = tuple((~near).nonzero()[0].tolist())
    return (f"{int((~near).sum())} of {near.numel()} numbers differ; the first is at {list(at)}: "
            f"yours {yours[at].item():.4g}, expected {expected[at].item():.4g}")


def brief(value):
    """A value in a line: of a tensor its shape and the first numbers, of a small matrix all."""
    if isinstance(value, torch.Tensor):
        # A small matrix is seen whole, its rows apart.
        whole = value.ndim == 2 and value.numel() <= 12
        rows = value.detach() if whole else value.detach().flatten()[None, :6]
        shown = "; ".join(", ".join(f"{x:.4g}" for x in row) for row in rows.tolist())
        more = ", …" if value.numel() > 6 and not whole else ""
        return f"{tuple(value.shape)}: {shown}{more}"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
