"""The machine a run lives on: its device, its processes, Ctrl-C, and what to note of it."""
import atexit
import os
import platform
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy
import sentencepiece
import torch

from .. import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None


@contextmanager
def interrupts():
    """Within, the first Ctrl-C (SIGINT) only adds to the list that it yields; the second one ends.

    So a loop can finish its step, save, and stop.
    """
    seen = []
    before = signal.getsignal(signal.SIGINT)

    def note(*_):
        seen.append(signal.SIGINT)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def pick_device(device, dtype):
    """--device and --dtype -> (torch.device, torch.dtype). "auto" is CUDA where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA GPU on this machine; use --device cpu")
    return torch.device(device), {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def to_device(tensor, device):
    """A tensor on the CPU -> the same on `device`.

    To a GPU it goes from pinned memory: Python need not wait until it is there.
    """
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def join():
    """Under torchrun: connects the processes, each with a GPU of its own if there are any.

    Only the first one prints.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    lacking = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ)
    if lacking:
        raise UserError(f"LOCAL_RANK is set, as torchrun does it, but {', '.join(sorted(lacking))} "
                        "is not: start with torchrun, or unset it")
    # Some versions of gloo greet on standard output, where our scores go: to standard error.
    sys.stdout.flush()
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        torch.distributed.init_process_group("gloo")  # what is exchanged lies on the CPU
    finally:
        os.dup2(ours, 1)
        os.close(ours)
    # gloo's threads must end before Python does, or they may abort the process
    atexit.register(torch.distributed.destroy_process_group)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if shard()[0] > 0:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")


def shard():
    """-> (number of this process, how many there are): (0, 1) without torchrun."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def peak_memory(device):
    """The most memory in use so far, in bytes: of this process, or of its tensors on a GPU.

    None if the system does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def environment(device):
    """Versions, machine and commit: what somebody needs to repeat a run."""
    git = shutil.which("git")
    commit = ""
    if git:
        described = subprocess.run([git, "describe", "--always", "--dirty"], text=True,
                                   cwd=Path(__file__).parent, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)
        commit = described.stdout.strip()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "sentencepiece": sentencepiece.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "commit": commit,
    }
