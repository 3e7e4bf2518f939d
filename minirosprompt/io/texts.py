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
# As they stand in any script: between a class and its words, between words, and within a list.
COLON = "[:：]"
SEMICOLON = "[;；؛]"
COMMA = "[,，、،]"
HEADERS = ("label", "labels", "class", "classes")
QUOTES = "\"'“”„‘’«»「」"  # around a name they are no part of it
MARK = r"[#*•–-]+ "  # of a comment, or of a list's item; "#sports" may be a class


def labels(text):
    """--labels -> a Path (of a file; or it ends in .json, .txt, .tsv), or two class names or more.

    Between them are commas, as in any script, or semicolons. Label words come from a file alone.
    """
    if Path(text).suffix.lower() in (".json", ".txt", ".tsv") or is_file(text):
        return Path(text)
    found = re.split(rf"{COMMA}|{SEMICOLON}|\n", text)
    text = ",".join(unquoted(name) for name in found)
    found = names(text)
    given = Counter(name.strip() for name in text.split(",") if name.strip())
    twice = [name for name in given if given[name] > 1]
    if twice:
        raise argparse.ArgumentTypeError(f"{twice[0]!r:.80} is there twice")
    with_words = [name for name in given if re.search(COLON, name)]
    if len(found) > 1 and with_words:
        raise argparse.ArgumentTypeError(
            f"{with_words[0]!r:.80} has a colon: label words come from a file, a class a line: "
            "sports: goal; match")
    if len(found) == 1:
        raise argparse.ArgumentTypeError(
            f"{found[0]!r:.80} is one class, or a file that is not there; every text would get it: "
            "name two classes, with commas")
    return found


def unquoted(name):
    """'"sports"' -> 'sports': a pasted list has quotes, which an encoder would read."""
    name = name.strip()
    return name[1:-1] if len(name) > 2 and name[0] in QUOTES and name[-1] in QUOTES else name


def is_file(text):
    """Is there a file of this name, or a pipe, such as <(command) makes?"""
    try:
        return Path(text).exists() and not Path(text).is_dir()
    except (OSError, ValueError):  # as a path it would be too long, say
        return False


def read_label_list(path, languages=None):
    """A class a line -> {class: [label words]}.

    After a colon or a tab: its label words, or a description, with semicolons between them. A
    class without any is represented by its own name. languages: refused. Raises UserError; also
    for what is another kind of file.
    """
    if languages:
        raise UserError(f"--label-languages: {path} does not say which language its words are in")
    label_words = {}
    lists = 0  # lines with commas, and neither colon nor tab
    for number, line in enumerate(read_lines(path), 1):
        name, *words = re.split("\t" if "\t" in line else COLON, line, maxsplit=1)
        lists += not words and re.search(COMMA, name) is not None
        name = clean(unquoted(name))
        words = "".join(words)
        if not name and not words.strip():
            continue
        if not label_words and name.startswith("{"):
            raise UserError(f"{path}: JSON, it seems; the name of such a file must end in .json")
        if not label_words and name.casefold() in HEADERS and ("\t" in line or not words):
            raise UserError(f"{path}: line {number}: {name!r} is the head of a column, it seems: "
                            "take it out (or put a colon behind it, if it is a class)")
        if re.match(MARK, name):
            raise UserError(f"{path}: line {number}: {name!r:.80} is a comment or an item of a "
                            "list, it seems: a line is a class; take it, or its mark, out")
        if not name or name in label_words:
            fault = f"{name!r:.80} is there twice" if name else "no class before the colon"
            raise UserError(f"{path}: line {number}: {fault}")
        words = [clean(word.strip()) for word in re.split(SEMICOLON, words) if word.strip()]
        if any(is_list(word) for word in words):
            warnings.warn(f"{path}: line {number}: read as one description, commas included; "
                          "between label words there must be semicolons")
        label_words[name] = words or [name]
    if not label_words:
        raise UserError(f"{path}: no class in it")
    if lists == len(label_words):
        raise UserError(f"{path}: commas in every line: write one class a line; if its name has a "
                        "comma, put a colon behind it")
    return label_words


def is_list(words):
    """Does it look like label words between commas, and not like a sentence?"""
    parts = re.split(COMMA, words)
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


def warn_of_losses(texts, sequences, room, tokenizer, what):
    """sequences: lists of ids, one a text, before they are cut to `room` ids.

    what: "texts", or what else they are.
    """
    cut = sum(len(ids) > room for ids in sequences)
    if cut:
        warnings.warn(f"{cut} of {len(sequences)} {what} are longer than the {room} tokens that "
                      "there is room for: of these the end is not read")
    unread = sum(text != "" and all(tokenizer.piece(i) in ("▁", "<unk>") for i in ids)
                 for text, ids in zip(texts, sequences))
    if unread:
        warnings.warn(f"{unread} of {len(sequences)} {what} have no token that this encoder knows: "
                      "what they are scored as means nothing")


def warn_of_ties(scores, what):
    """A few ties are chance; many say that classes cannot be told apart."""
    ties = int(((scores == scores.amax(1, keepdim=True)).sum(1) > 1).sum())
    if ties:
        warnings.warn(f"{what}: {ties} of {len(scores)} texts fit two classes or more exactly "
                      "alike; of these the first by name is taken")
