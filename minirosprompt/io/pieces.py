"""XLM-R's tokenizer as a SentencePiece model: read, or built out of the pieces that others hold.

A model is a protocol buffer. Field 1 is repeated, once a piece {1: text, 2: score, 3: type}; the
other fields hold settings, of which XLM-R has its own in field 3, how a text is normalised.
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""
import base64
import json
import struct
import warnings
from pathlib import Path

import sentencepiece

from .. import UserError
from .files import listed, read_json
from .safetensors import open_data

TOKENIZER_JSON = "tokenizer.json"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # XLM-R's first ids; <mask> is its last
UNKNOWN, CONTROL, NORMAL = 2, 3, 1           # SentencePiece's types of pieces
# What transformers takes a text apart with, where the tokenizer is XLM-R's, by its version.
STEPS = {"Precompiled", "Strip", "Replace", "WhitespaceSplit", "Metaspace"}


def read_model(path):
    """A SentencePiece model, or in its absence the tokenizer.json beside it -> a model, as bytes.

    Raises UserError if there is neither, or tokenizer.json is not of XLM-R's kind.
    """
    path = Path(path)
    beside = path.with_name(TOKENIZER_JSON)
    if not path.is_file() and beside.is_file():
        return from_tokenizer_json(beside)
    if not path.is_file():
        raise UserError(f"{path}: no such file, nor {TOKENIZER_JSON} beside it "
                        "(copy it from the encoder that this one was made from)")
    with open_data(path) as file:
        model = file.read()
    if not model:  # SentencePiece would take it for a model, without pieces
        raise UserError(f"{path}: not a SentencePiece model: it is empty")
    warn_of_added(path.parent, added_tokens(beside))
    return model


def check_model(path):
    """Raises UserError if a file is no SentencePiece model."""
    try:
        sentencepiece.SentencePieceProcessor(model_proto=read_model(path))
    except (RuntimeError, OSError):
        raise UserError(f"{path}: not a SentencePiece model") from None


def warn_of_added(folder, tokens=()):
    """Says which tokens somebody has added to XLM-R's: here they are ordinary text.

    tokens: as tokenizer.json lists them. transformers notes them in other files, too, by version.
    """
    by_id = read_beside(folder / "tokenizer_config.json").get("added_tokens_decoder")
    found = [*(tokens if isinstance(tokens, list) else []),
             *(by_id.values() if isinstance(by_id, dict) else [])]
    added = [str(token["content"]) for token in found if isinstance(token, dict)
             and "content" in token]
    added += read_beside(folder / "added_tokens.json")
    added = [token for token in dict.fromkeys(added) if token not in (*SPECIAL, "<mask>")]
    if added:
        warnings.warn(f"{folder}: {len(added)} tokens were added to XLM-R's ({listed(added)}): "
                      "here they are read as ordinary text, so a text that has one gets other ids "
                      "than transformers gives it")


def added_tokens(path):
    """The list of that name in a tokenizer.json, which begins with it: the rest is megabytes."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            _, _, behind = file.read(2**18).partition('"added_tokens":')
        return json.JSONDecoder().raw_decode(behind.lstrip())[0]
    except (OSError, ValueError, RecursionError):
        return []


def read_beside(path):
    """A JSON file that nothing depends on -> dict, empty if it is not there or not sound."""
    try:
        return read_json(path) if path.is_file() else {}
    except UserError:
        return {}


def from_tokenizer_json(path):
    """transformers' own format -> the SentencePiece model that it was once made from, as bytes.

    Raises UserError if it is not of XLM-R's kind.
    """
    open_data(path).close()  # a Git LFS pointer is called by its name
    raw = read_json(path)
    try:
        pieces, scores = zip(*raw["model"]["vocab"])
        steps = [*steps_of(raw["normalizer"]), *steps_of(raw["pre_tokenizer"])]
        (normaliser,) = [step for step in steps if step["type"] == "Precompiled"]
        unigram = raw["model"]["type"] == "Unigram" and not raw["model"].get("byte_fallback")
        special = pieces[:4] == SPECIAL and pieces[-1] == "<mask>"
        rules = base64.b64decode(normaliser["precompiled_charsmap"], validate=True)
        if unigram and special and rules and all(map(is_of_xlmr, steps)):
            warn_of_added(path.parent, raw.get("added_tokens"))
            return sentencepiece_model(pieces, scores, field(3, field(2, rules)))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, struct.error):
        pass
    raise UserError(f"{path}: not XLM-R's kind of tokenizer (Unigram, with its special tokens and "
                    "normalisation); copy sentencepiece.bpe.model to it from the encoder that this "
                    "one was made from")


def steps_of(part):
    """One step of tokenizer.json, or a sequence of them -> [step]"""
    if part["type"] != "Sequence":
        return [part]
    return part["normalizers"] if "normalizers" in part else part["pretokenizers"]


def is_of_xlmr(step):
    """Does SentencePiece do the same with XLM-R's model?"""
    if step["type"] == "Replace":
        return step["pattern"] == {"Regex": " {2,}"}
    if step["type"] == "Metaspace":
        return step.get("prepend_scheme") != "never" and step.get("add_prefix_space") is not False
    return step["type"] in STEPS


def sentencepiece_model(pieces, scores, settings):
    """Pieces in XLM-R's order, with scores -> a SentencePiece model, as bytes.

    settings: the model's other fields, as bytes.
    """
    model = b"".join([piece_field("<unk>", 0.0, UNKNOWN), piece_field("<s>", 0.0, CONTROL),
                      piece_field("</s>", 0.0, CONTROL)])
    # XLM-R has four special tokens in front where SentencePiece has three, and <mask> at the end.
    model += b"".join(piece_field(piece, score, NORMAL)
                      for piece, score in zip(pieces[4:-1], scores[4:-1]))
    return model + settings


def piece_field(piece, score, kind):
    score = b"\x15" + struct.pack("<f", score)
    return field(1, field(1, piece.encode("utf-8")) + score + b"\x18" + varint(kind))


def field(number, content):
    """A field of bytes: its number and type (2), its length, and they."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields_but_pieces(model):
    """A SentencePiece model's top-level fields without field 1, as they stand."""
    kept = b""
    at = 0
    while at < len(model):
        begin = at
        key, at = read_varint(model, at)
        size, at = read_varint(model, at)  # every top-level field has a length
        at += size
        if key >> 3 != 1:
            kept += model[begin:at]
    return kept


def varint(n):
    """7 bits a byte, the lowest first; the highest bit says that more follow."""
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def read_varint(data, at):
    """-> (number, where it ends)"""
    n = shift = 0
    while True:
        byte = data[at]
        n |= (byte & 127) << shift
        shift += 7
        at += 1
        if byte < 128:
            return n, at
