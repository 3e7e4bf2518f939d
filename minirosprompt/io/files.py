"""Files that survive a crash: written aside, then renamed. Reading names the file at fault."""
import csv
import hashlib
import io
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from .. import UserError

csv.field_size_limit(10**8)


@contextmanager
def writing(path, mode="w"):
    """Opens a temporary file beside `path` and renames it at the end: `path` is always whole.

    Raises UserError, naming the file, if the disk is full or nothing may be written there.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except FileExistsError:
        raise UserError(f"{path}: {path.parent} is a file, not a folder") from None
    except OSError as error:
        fault = error.strerror or error
        raise UserError(f"{path}: {fault}; what was there before is unharmed") from None
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


def read_tsv(path, columns):
    """Quoted CSV with tabs -> [{column: text}], every row whole, none of `columns` empty.

    Raises UserError with file and line for a missing column, a short row or an empty file.
    """
    rows = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            header = reader.fieldnames or []
            missing = [c for c in columns if c not in header]
            if missing:
                raise UserError(f"{path}: line 1: no column {', '.join(missing)} "
                                f"(columns: {', '.join(header) or 'none'})")
            for row in reader:
                line = f"{path}: line {reader.line_num}"
                # csv puts what is too much under the key None, and None where something is missing
                if None in row or None in row.values():
                    raise UserError(f"{line}: {len(header)} columns expected")
                empty = [c for c in columns if not row[c].strip()]
                if empty:
                    raise UserError(f"{line}: {', '.join(empty)} is empty")
                rows.append(row)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 TSV file ({error})") from None
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def read_lines(path):
    """A UTF-8 text file -> its lines; only a line feed (or \\r\\n) ends one."""
    try:
        content = Path(path).read_text(encoding="utf-8-sig")  # \r\n becomes \n
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it first") from None
    # Not splitlines(), which also splits at U+2028 and its like.
    return content.removesuffix("\n").split("\n") if content else []


def write_row(file, cells):
    """One row of a TSV that csv reads back as it was."""
    # csv's writer does not quote a lone carriage return, and its reader stumbles over one.
    has_return = any("\r" in str(cell) for cell in cells)
    quoting = csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter="\t", lineterminator="\n", quoting=quoting).writerow(cells)


def clean(text):
    """Lone surrogates (half a character, from broken JSON) cannot be written as UTF-8: "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def save_state(path, state):
    """A checkpoint of tensors, numbers, texts and lists; whole or not at all.

    Its last 32 bytes are the sha256 of the others.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with writing(path, "wb") as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).digest())


def load_state(path):
    """-> what save_state wrote. Never runs code from the file.

    Raises UserError if it is missing or damaged.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    try:
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ValueError("checksum")
        return torch.load(io.BytesIO(data[:-32]), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        fault = type(error).__name__
        raise UserError(f"{path}: damaged checkpoint ({fault}); delete it to start anew") from None


def kept(path, compute, *args):
    """compute(*args), which takes minutes: done once, then read from `path`."""
    if not Path(path).exists():
        save_state(path, compute(*args))
    return load_state(path)
