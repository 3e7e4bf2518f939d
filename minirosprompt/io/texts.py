"""Anybody's texts and classes in, scores out: what eval.py reads and prints."""
import argparse
import json
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from .. import UserError
from .cli import names
from .files import clean, lines_of, read_lines, write_row, writing
from .runtime import shard

FORMATS = ("tsv", "jsonl")


def labels(text):
    """--labels -> a Path (of a file; or it ends in .json, .txt, .tsv), or two class names or more.

    Between them are commas, as in any script, or semicolons.
    """
    if Path(text).suffix.lower() in (".json", ".txt", ".tsv") or is_file(text):
        return Path(text)
    text = re.sub("[;，、،؛；\n]", ",", text)
    found = names(text)
    given = Counter(name.strip() for name in text.split(",") if name.strip())
    twice = [name for name in given if given[name] > 1]
    if twice:
        raise argparse.ArgumentTypeError(f"{twice[0]!r} is there twice")
    if len(found) == 1:
        raise argparse.ArgumentTypeError(f"{found[0]!r} is one class, or a file that is not there; "
                                         "every text would get it: name two classes, with commas")
    return found


def is_file(text):
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # as a path it would be too long, say
        return False


def read_label_list(path, languages=None):
    """A class a line -> {class: [label words]}.

    After a colon or a tab: its label words, or a description, with semicolons between them. A
    class without any is represented by its own name. languages: refused. Raises UserError.
    """
    if languages:
        raise UserError(f"--label-languages: {path} does not say which language its words are in")
    label_words = {}
    for number, line in enumerate(read_lines(path), 1):
        name, _, words = line.partition("\t" if "\t" in line else ":")
        name = clean(name.strip())
        if not name and not words.strip():
            continue
        if not name or name in label_words:
            fault = f"{name!r} is there twice" if name else "no class before the colon"
            raise UserError(f"{path}: line {number}: {fault}")
        words = [clean(word.strip()) for word in words.split(";") if word.strip()]
        if any(is_list(word) for word in words):
            warnings.warn(f"{path}: line {number}: read as one description, commas included; "
                          "between label words there must be semicolons")
        label_words[name] = words or [name]
    if not label_words:
        raise UserError(f"{path}: no class in it")
    return label_words


def is_list(words):
    """Does it look like label words between commas, and not like a sentence?"""
    parts = words.split(",")
    return len(parts) > 1 and all(len(part.split()) in (1, 2) for part in parts)


def read_texts(texts, source):
    """The texts of --text, and those of --input: a path, or "-" for standard input. -> list

    Empty if neither is given. A file and standard input are read alike, but for bytes that are not
    UTF-8: in a file they are an error. Raises UserError.
    """
    texts = list(texts or [])
    if source == "-" and shard()[1] > 1:
        raise UserError("--input -: several processes cannot read one standard input; use a file")
    if source == "-":
        if sys.stdin is None:
            raise UserError("--input -: standard input is closed")
        data = sys.stdin.buffer.read()
        read = data.decode("utf-8-sig", "replace")  # it cannot be converted and read again
        if "\ufffd" in read and "\ufffd".encode() not in data:
            warnings.warn("--input -: not UTF-8; the bytes that are not have been replaced")
        texts += lines_of(read)
    elif source is not None:
        texts += read_lines(source)
    if source is not None and not texts:
        raise UserError(f"--input {source}: no text in it")
    empty = texts.count("")
    if empty:
        warnings.warn(f"{empty} of {len(texts)} texts are empty: what they are scored as means "
                      "nothing")
    return texts


def write_scores(file, form, texts, classes, probability, chosen):
    """One line a text, with its class (chosen: N numbers) and every class's probability (N, C)."""
    if form == "tsv":
        write_row(file, ["text", "class", *classes])
    for text, row, c in zip(texts, probability.tolist(), chosen):
        label = classes[c]
        if form == "tsv":
            write_row(file, [clean(text), label, *[f"{p:.4f}" for p in row]])
        else:
            scores = {name: round(p, 4) for name, p in zip(classes, row)}
            line = {"text": clean(text), "class": label, "scores": scores}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def write_predictions(path, examples, classes, predicted):
    """A table: what each text is, what it was taken for. predicted: {(method, seed): (N,)}"""
    names = [method if method == "hard" else f"{method}-{seed}" for method, seed in predicted]
    with writing(path) as file:
        write_row(file, ["id", "lang", "label", *names, "text"])
        for e, *chosen in zip(examples, *predicted.values()):
            write_row(file, [e.id, e.lang, e.label, *[classes[c] for c in chosen], e.text])


def warn_of_losses(texts, sequences, room, tokenizer):
    """sequences: lists of ids, one a text, before they are cut to `room` ids."""
    cut = sum(len(ids) > room for ids in sequences)
    if cut:
        warnings.warn(f"{cut} of {len(sequences)} texts are longer than the {room} tokens that "
                      "there is room for: of these the end is not read")
    unread = sum(text != "" and all(tokenizer.piece(i) in ("▁", "<unk>") for i in ids)
                 for text, ids in zip(texts, sequences))
    if unread:
        warnings.warn(f"{unread} of {len(sequences)} texts have no token that this encoder knows: "
                      "what they are scored as means nothing")


def warn_of_ties(scores, what):
    """A few ties are chance; many say that classes cannot be told apart."""
    ties = int(((scores == scores.amax(1, keepdim=True)).sum(1) > 1).sum())
    if ties:
        warnings.warn(f"{what}: {ties} of {len(scores)} texts fit two classes or more exactly "
                      "alike; of these the first by name is taken")
