"""Files that survive a crash, checkpoints that resume to the bit, and what a run needs to be repeatable."""
import atexit
import hashlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy
import sentencepiece
import torch

try:
    import resource
except ImportError:  # Windows
    resource = None

from . import UserError


@contextmanager
def writing(path, mode="w"):
    """Opens a temporary file beside `path` and renames it at the end: `path` is the old file or the new one, whole.

    Raises UserError, naming the file, if the disk is full or nothing may be written there.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except FileExistsError:
        raise UserError(f"{path}: {path.parent} is a file, not a folder") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; what was there before is unharmed") from None
    finally:
        with suppress(OSError):
            aside.unlink()


def write_json(path, value):
    with writing(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path):
    """Raises UserError, naming the file, if it cannot be read or is not a JSON object."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def save_state(path, state):
    """A checkpoint of tensors, numbers, texts and lists; whole or not at all. Its last 32 bytes are the sha256 of the others."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with writing(path, "wb") as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).digest())


def load_state(path):
    """-> what save_state wrote. Never runs code from the file. Raises UserError if it is missing or damaged."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError("checksum")
        return torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path}: damaged checkpoint ({type(error).__name__}); delete it to start anew") from None


@contextmanager
def interrupts():
    """Within, the first Ctrl-C (SIGINT) only adds to the list it yields, so that a loop can finish its step; the second one ends."""
    seen, before = [], signal.getsignal(signal.SIGINT)

    def note(*_):
        seen.append(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def pick_device(device, dtype):
    """The flags --device and --dtype -> (torch.device, torch.dtype). "auto" is CUDA where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA GPU on this machine; use --device cpu")
    return torch.device(device), {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def join():
    """Under torchrun: connects the processes, each with a GPU of its own if there are any; only the first one prints."""
    if "LOCAL_RANK" in os.environ:
        torch.distributed.init_process_group("gloo")  # what is exchanged lies on the CPU
        atexit.register(torch.distributed.destroy_process_group)  # its threads must end before Python does, or may abort the process
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if shard()[0] > 0:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")


def shard():
    """-> (number of this process, how many there are): (0, 1) without torchrun."""
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if joined else (0, 1)


def peak_memory(device):
    """The most memory in use so far, in bytes: of this process, or of its tensors on a GPU. None if the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def environment(device):
    """Versions, machine and commit: what somebody needs to repeat a run."""
    git, commit = shutil.which("git"), ""
    if git:
        commit = subprocess.run([git, "describe", "--always", "--dirty"], cwd=Path(__file__).parent, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__,
            "sentencepiece": sentencepiece.__version__, "machine": platform.machine(), "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "commit": commit}
