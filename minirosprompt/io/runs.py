"""The folders of runs: held by one process at a time, never mixed up, found again."""
import hashlib
import itertools
import json
import warnings
from argparse import ArgumentTypeError
from contextlib import contextmanager, suppress
from os.path import getmtime
from pathlib import Path

# A dependency of torch, so it is there.
from filelock import FileLock, Timeout

from .. import UserError
from . import settings
from .files import listed, read_json, write_json
from .runtime import environment, shard

# What an evaluation writes, and what says that a folder is a run's.
RESULTS = ("results.json", "results.csv", "predictions.tsv", "figure.svg", "averages.json",
           "config.json")


@contextmanager
def alone_in(folder):
    """Within, no other process that asks for it, too, can work in this folder.

    It is made if need be, and taken away again if it stays empty. Raises UserError if there is
    another process.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is a file, not a folder") from None
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process is working in it; wait for its end, or take "
                        "another name") from None
    try:
        yield
    finally:
        if new:
            remove_if_empty(folder)
        with suppress(OSError):  # it went with the folder; or this is Windows, where it stays
            (folder / ".lock").unlink()
        lock.release()


def remove_if_empty(folder):
    """Takes away a folder that holds nothing but locks, and those below it that do."""
    below = sorted(filter(Path.is_dir, folder.rglob("*")), reverse=True)  # the deepest first
    for path in filter(Path.is_dir, [*below, folder]):
        inside = list(path.iterdir())
        if all(file.name.startswith(".") and file.name.endswith("lock") for file in inside):
            for file in inside:
                file.unlink()
            path.rmdir()


@contextmanager
def alone_with_results(folder):
    """Within, no other process writes its results to this folder (--out); None: nothing to do."""
    if folder is None or shard()[0] > 0:  # of several processes the first one reports
        yield
        return
    with alone_in(folder):
        try:
            free_of_results(str(folder))  # somebody may have been faster
        except ArgumentTypeError as error:
            raise UserError(f"--out: {error}") from None
        yield


@contextmanager
def held(run, new, settings, inputs, device):
    """Within, no other process can work in the folder `run`.

    Notes there what it is about: the settings; what the machine is; hashes of the inputs, {name:
    anything that JSON can hold}. Raises UserError if another process is there, a new run would
    overwrite an old one, or an old one would go on with other inputs.
    """
    with alone_in(run):
        if new:
            refuse_if_there(run)  # somebody may have been faster
        hashes = {name: sha256_of(value) for name, value in inputs.items()}
        begun_with = settings if new else read_json(run / "config.json")
        refuse_if_changed(run, hashes | {"settings": sha256_of(begun_with)})
        write_json(run / "config.json", settings)
        write_json(run / "env.json", environment(device))
        write_json(run / "inputs.json", hashes | {"settings": sha256_of(settings)})
        yield


def refuse_if_there(run):
    """Raises UserError if a run has been begun in this folder, or it is no folder for one."""
    home = Path("runs")
    above = [run, *run.parents]
    if home not in above[1:] or ".." in run.parts:
        raise UserError(f"--name: {run} does not lie below {home}")
    for folder in above[1:above.index(home)]:
        if (folder / "config.json").exists():
            raise UserError(f"--name: {run} lies inside of another run, {folder}")
    if (run / "config.json").exists():
        raise UserError(f"{run} exists: choose another --name, or go on with it by --resume {run}")


def sha256_of(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def refuse_if_changed(run, hashes):
    """Raises UserError if inputs.json has others: half a run with one text, half with another?"""
    path = run / "inputs.json"
    before = read_json(path) if path.exists() else hashes
    # A run of an earlier version has not noted all of them.
    changed = [name for name in hashes if name in before and before[name] != hashes[name]]
    if changed:
        raise UserError(f"{run}: not what the run was begun with: {listed(changed)}; put it "
                        "back as it was, or begin a new run")


def free_folder(path):
    """Makes `path`, or path-2, path-3 ... if it is there: no evaluation overwrites another."""
    for n in itertools.count(1):
        folder = path if n == 1 else path.with_name(f"{path.name}-{n}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            pass


def prompts_of(run):
    """A run's folder, that of one of its prompts, or a file -> the prompts' paths, by name.

    Raises UserError if there is none.
    """
    if run.suffix == ".safetensors":
        return [run]
    found = sorted([*run.glob("prompt.safetensors"), *run.glob("*/prompt.safetensors")])
    if not found and not run.exists():
        raise UserError(f"--run {run}: no such folder")
    if not found:
        begun = (run / "config.json").exists()
        raise UserError(f"--run {run}: no prompt.safetensors in it"
                        + (f"; go on with the run by train.py --resume {run}" if begun else ""))
    if (run / "config.json").exists():
        config = read_json(run / "config.json")
        kinds = [config.get(name) for name in ("objective", "seeds")]
        kinds = [kind if isinstance(kind, list) else [] for kind in kinds]  # by another hand
        wanted = [run / f"soft-{objective}-{seed}" / "prompt.safetensors"
                  for objective, seed in itertools.product(*kinds)]
        absent = [path.parent.name for path in wanted if path not in found]
        if absent:
            warnings.warn(f"{run} is not finished: without {listed(absent)}")
    return found


def free_of_results(text):
    """Type of --out: a folder without a run or results, which would be lost. -> its Path"""
    if not text.strip():
        raise ArgumentTypeError("nothing is given")
    for name in RESULTS:
        if (Path(text) / name).exists():
            raise ArgumentTypeError(f"{text} holds a {name} already; take another folder")
    return Path(text)


def newest_run():
    """-> the folder under runs/ whose prompt was written last. Raises UserError."""
    found = list(Path("runs").glob("**/prompt.safetensors"))
    if not found:
        raise UserError(f"{Path('runs').absolute()}: no trained prompt there; run python train.py, "
                        "or name a run by --run")
    return max(found, key=getmtime).parent.parent


def shipped_prompt(encoder):
    """-> the prompt that comes with this repository for an encoder. Raises UserError."""
    name = encoder or "multilingual-e5-small"
    shipped = {path.stem: path for path in settings.PROMPTS.glob("*.safetensors")}
    if name not in shipped:
        raise UserError(f"--run: no prompt ships for {name}; name one that train.py made")
    return shipped[name]
