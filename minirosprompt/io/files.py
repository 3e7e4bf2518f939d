"""Files that survive a crash: written aside, then renamed. Reading names the file at fault."""
import csv
import hashlib
import io
import json
import os
import re
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from .. import UserError

csv.field_size_limit(10**8)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


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


def clean(text):
    """Lone surrogates (half a character, from broken JSON) cannot be written as UTF-8: "?"."""
    try:
        # Under a locale without UTF-8 they are the bytes of an argument, as Python hides them.
        return text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError:
        return text.encode("utf-8", "replace").decode("utf-8")


def refuse_pointer(path, start):
    """Raises UserError if a file starts as a Git LFS pointer does."""
    if start.startswith(LFS_POINTER):
        raise UserError(f"{path}: a Git LFS pointer, which stands for the file: "
                        "run git lfs pull in its folder, or download the file itself")


def listed(names, most=10):
    """Names as a message can hold them: ten, each cut, and how many more."""
    names = [f"{name:.60}" for name in names]
    more = f", … and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_text(path):
    """A whole UTF-8 file, with a byte-order mark or without. Raises UserError, naming the file."""
    try:
        data = Path(path).read_bytes()
        refuse_pointer(path, data)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); convert it first") from None
    # Carriage returns alone are line ends where there are no others: an old Macintosh's file.
    return text if "\n" in text else text.replace("\r", "\n")


def read_json(path):
    """Raises UserError, naming the file, if it cannot be read or is not a JSON object."""
    text = read_text(path)
    try:
        value = json.loads(text, object_pairs_hook=once)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object")
    return value


def once(pairs):
    """(name, value) pairs -> a dict. Of two with one name json itself would lose the first."""
    found = {}
    for name, value in pairs:
        if name in found:
            raise UserError(f"{name!r} is there twice")
        found[name] = value
    return found


def read_lines(path):
    """A UTF-8 text file -> its lines; only a line feed (or \\r\\n) ends one."""
    return lines_of(read_text(path))


def lines_of(text):
    text = re.sub(r"\r+\n", "\n", text)
    # Not splitlines(), which also splits at U+2028 and its like.
    return text.removesuffix("\n").split("\n") if text else []


# ---- tables --------------------------------------------------------------------------------------
# A text that begins with a quotation mark takes all up to the next one with it, where a table is
# read as quoted CSV but was written without quoting: whole rows are lost, and csv does not mind. So
# what looks like it is an error (Misquoted), or the table is read without quoting.

SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars"}


class Misquoted(UserError):
    """Read as quoted CSV, a table would lose rows, or parts of them."""


def read_tsv(path, columns):
    """Quoted CSV with tabs -> [{column: text}], every row whole, none of `columns` empty.

    If its quotation marks cannot be CSV's, and every line has as many columns as the header, it is
    read as plain text between tabs, and that is said. Raises UserError with file and line for a
    missing column, a short row, a quotation mark out of place or an empty file.
    """
    lines = table_lines(read_text(path))
    header = tsv_header(path, lines, columns)
    try:
        rows = list(quoted_rows(path, lines, len(header)))
    except Misquoted as misquoted:
        try:
            rows = plain_rows(lines, header)
        except UserError as fault:
            raise UserError(f'{misquoted}; put a text with quotation marks in quotation marks and '
                            f'double its own ("") (it cannot be plain text: {fault})') from None
        warnings.warn(f"{misquoted}: so the file is read as plain text between tabs, "
                      "and keeps its quotation marks")
    table = []
    for number, cells in rows[1:]:
        row = dict(zip(header, cells))
        empty = [c for c in columns if not row[c].strip()]
        if empty:
            raise UserError(f"{path}: line {number}: {listed(empty)} is empty")
        table.append(row)
    if not table:
        raise UserError(f"{path}: no rows")
    return table


def table_lines(text):
    """-> its lines with their ends; only a line feed ends one."""
    return re.findall(".*\n|.+", text)


def tsv_header(path, lines, columns):
    """-> the names of a table's columns, `columns` among them. Raises UserError."""
    first = "".join(lines[:1]).strip("\r\n")
    header = [name.strip('"') for name in first.split("\t")]
    named = list(filter(None, header))  # a spreadsheet may add columns without a name
    if len(set(named)) < len(named):
        raise UserError(f"{path}: line 1: two columns have one name ({first[:100]!r})")
    missing = [c for c in columns if c not in header]
    if missing:
        for mark, name in SEPARATORS.items():
            if set(columns) <= {cell.strip(' "') for cell in first.split(mark)}:
                raise UserError(f"{path}: line 1: {name} stand between the columns; "
                                "save it with tabs between them")
        raise UserError(f"{path}: line 1: no column {listed(missing)} "
                        f"(columns: {listed(header) or 'none'})")
    return header


def quoted_rows(path, lines, width, delimiter="\t", **csv_options):
    """Yields (number of its first line, cells) for each row of a table in quoted CSV.

    Raises UserError, naming path and line, for a row that has not `width` cells; Misquoted.
    """
    options = {"strict": True} | csv_options
    reader = csv.reader(lines, delimiter=delimiter, **options)
    while True:
        first = reader.line_num + 1
        where = f"{path}: line {first}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise csv_fault(path, first, reader.line_num, str(error)) from None
        if cells is None:
            return
        if not cells:  # an empty line
            continue
        last = reader.line_num
        if last > first and holds_rows(lines[first - 1:last], width):
            raise Misquoted(f"{where}: the text that a quotation mark opens here would go to "
                            f"line {last}, over what look like rows of their own")
        if len(cells) != width:
            fault = f"{where}: {width} columns expected, not {len(cells)}"
            if last == first:
                raise UserError(fault)
            raise Misquoted(f"{fault}, in the row that a quotation mark takes to line {last}")
        yield first, cells


def csv_fault(path, first, last, error):
    """The UserError for what csv says of the row from line `first` to `last`."""
    if "new-line character" in error:
        return UserError(f"{path}: line {last}: a carriage return alone (\\r) in a text; "
                         "take it out, or put every column in quotation marks")
    if "unexpected end" in error:
        return Misquoted(f"{path}: line {first}: a quotation mark opens a text here, "
                         "and none closes it")
    if "expected after" in error:
        return Misquoted(f"{path}: line {first}: a quotation mark opens a text here, and the one "
                         f"that would close it, in line {last}, is not at its end")
    return UserError(f"{path}: line {last}: {error}")


def holds_rows(lines, width):
    """Whether two or more lines of one row would each be a whole row but for quotation marks.

    Of tables with tabs: a text may well have as many commas as a row.
    """
    # Quoted throughout it is beyond doubt: that is how write_row writes it.
    if lines[0].startswith('"') and lines[-1].rstrip("\r\n").endswith('"'):
        return False
    return sum(line.count("\t") == width - 1 for line in lines) >= 2


def plain_rows(lines, header):
    """[(number of its line, cells)] of a table that is not quoted.

    Raises UserError, naming a line, if the table is not such a one.
    """
    rows = []
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")
        cells = line.split("\t")
        if len(cells) != len(header) and line:
            raise UserError(f"line {number} has {len(cells)} columns")
        if "\r" in line:
            raise UserError(f"line {number} has a carriage return")
        if number == 1 and cells != header or any(map(is_quoted, cells)):
            raise UserError(f"line {number} is quoted")
        if line:
            rows.append((number, cells))
    return rows


def is_quoted(cell):
    """Whether it has CSV's quoting for certain: in quotation marks, with others doubled inside."""
    inside = cell[1:-1]
    framed = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return framed and '""' in inside and '"' not in inside.replace('""', "")


def write_row(file, cells):
    """One row of a TSV that csv reads back as it was."""
    # csv's writer does not quote a lone carriage return, and its reader stumbles over one; a row
    # of several lines that is quoted throughout is never taken for several rows.
    several_lines = any("\r" in str(cell) or "\n" in str(cell) for cell in cells)
    quoting = csv.QUOTE_ALL if several_lines else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter="\t", lineterminator="\n", quoting=quoting).writerow(cells)


# ---- checkpoints ---------------------------------------------------------------------------------

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
    """compute(*args), a tensor, which takes minutes: done once, then read from `path`."""
    if not Path(path).exists():
        save_state(path, compute(*args))
    found = load_state(path)
    if not isinstance(found, torch.Tensor):
        raise UserError(f"{path}: another kind of checkpoint; delete it")
    return found
