"""safetensors: a file of tensors that runs no code when it is read, unlike a pickle.

It is 8 bytes of length n (little-endian), n bytes of JSON {name: {dtype, shape, data_offsets}},
and one buffer. https://github.com/huggingface/safetensors
"""
import json
import math
import os
import struct

import torch

from .. import UserError
from .files import LFS_POINTER, refuse_pointer, writing

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation


def open_data(path):
    """-> a file of data, opened. Raises UserError if it cannot be, or is a Git LFS pointer."""
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    start = file.read(len(LFS_POINTER))
    file.seek(0)
    try:
        refuse_pointer(path, start)
    except UserError:
        file.close()
        raise
    return file


def read_safetensors(path):
    """-> ({name: tensor}, {metadata}).

    Raises UserError, naming file and fault, for anything but a whole, sound file. Nothing is
    allocated before every bound is checked, so no file can ask for more memory than its own size.
    """
    def check(sound, fault):
        if not sound:
            raise UserError(f"{path}: damaged safetensors file: {fault:.200}")

    with open_data(path) as file:
        size = os.fstat(file.fileno()).st_size
        header, n = read_header(file, size, check)
        metadata = header.pop("__metadata__", {})
        texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
        check(texts, "its metadata are not texts")
        for name, entry in header.items():
            check_entry(name, entry, check)

        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        end = 0
        for name, entry in entries:
            check(entry["data_offsets"][0] == end, f"gap or overlap before {name!r}")
            end = entry["data_offsets"][1]
        there = size - 8 - n
        check(end == there, f"{there} bytes of data, the header describes {end}: cut short?")

        tensors = {}
        for name, entry in entries:
            start, end = entry["data_offsets"]
            dtype = DTYPES[entry["dtype"]]
            buffer = bytearray(end - start)
            check(file.readinto(buffer) == end - start, "the file shrank while it was read")
            if dtype is torch.bool:
                check(not buffer.strip(b"\0\1"), f"{name!r} has a truth value beyond 0 and 1")
            flat = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def read_header(file, size, check):
    """-> (the header as a dict, its length in bytes)"""
    def no_duplicates(pairs):
        check(len(dict(pairs)) == len(pairs), "a name occurs twice in the header")
        return dict(pairs)

    check(size >= 8, f"{size} bytes, shorter than its own length field")
    (n,) = struct.unpack("<Q", file.read(8))
    fits = n <= min(size - 8, MAX_HEADER)
    check(fits, f"the header should have {n} bytes, the file has {size}")
    text = file.read(n)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        check(False, f"the header is not JSON ({type(error).__name__})")
    check(isinstance(header, dict), "the header is not a JSON object")
    return header, n


def check_entry(name, entry, check):
    """Is this header entry sound in itself?"""
    keys = {"dtype", "shape", "data_offsets"}
    sound = isinstance(entry, dict) and set(entry) == keys
    check(sound, f"{name!r} needs dtype, shape and data_offsets")
    dtype = entry["dtype"]
    shape = entry["shape"]
    offsets = entry["data_offsets"]
    known = isinstance(dtype, str) and dtype in DTYPES
    check(known, f"{name!r} has the unknown dtype {dtype!r}")
    check(isinstance(shape, list) and all(map(is_size, shape)), f"{name!r} has a bad shape")
    check(math.prod(max(1, n) for n in shape) < 2**63, f"{name!r} has a bad shape")
    pair = isinstance(offsets, list) and len(offsets) == 2 and all(map(is_size, offsets))
    check(pair, f"{name!r} has bad offsets")
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    check(offsets[1] - offsets[0] == wanted, f"{name!r}: shape and offsets disagree")


def is_size(n):
    # bool is an int in Python, and JSON's integers have no end
    return type(n) is int and 0 <= n < 2**63


def write_safetensors(path, tensors, metadata=None):
    """{name: tensor} -> one file, whole or not at all."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data start at a multiple of 8
    with writing(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().flatten()
            file.write(flat.view(torch.uint8).numpy().tobytes())
