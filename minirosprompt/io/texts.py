"""Anybody's texts and classes in, scores out: what eval.py reads and prints."""
import json
import sys
from pathlib import Path

from .. import UserError
from .cli import names
from .files import clean, read_lines, write_row
from .runtime import shard

FORMATS = ("tsv", "jsonl")


def labels(text):
    """--labels -> a Path (.json, .txt, .tsv) or class names."""
    return Path(text) if Path(text).suffix in (".json", ".txt", ".tsv") else names(text)


def read_label_list(path):
    """A class a line -> {class: [label words]}.

    After a colon or a tab: its label words, or a description, with semicolons between them. A
    class without any is represented by its own name.
    """
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
        label_words[name] = words or [name]
    if not label_words:
        raise UserError(f"{path}: no class in it")
    return label_words


def read_texts(texts, source):
    """The texts of --text, and those of --input: a path, or "-" for standard input. -> list

    Standard input cannot be read twice, so bytes that are not UTF-8 become "\ufffd" there. Raises
    UserError.
    """
    texts = list(texts or [])
    if source == "-" and shard()[1] > 1:
        raise UserError("--input -: several processes cannot read one standard input; use a file")
    if source == "-":
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
        texts += [line.removesuffix("\n") for line in sys.stdin]
    elif source is not None:
        texts += read_lines(source)
    if not texts:
        raise UserError(f"--input {source}: no text in it")
    return texts


def write_scores(file, form, texts, classes, probability):
    """One line a text, with its class and every class's probability (N, C)."""
    if form == "tsv":
        write_row(file, ["text", "class", *classes])
    for text, row in zip(texts, probability.tolist()):
        label = classes[row.index(max(row))]
        if form == "tsv":
            write_row(file, [clean(text), label, *[f"{p:.4f}" for p in row]])
        else:
            scores = {name: round(p, 4) for name, p in zip(classes, row)}
            line = {"text": clean(text), "class": label, "scores": scores}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
