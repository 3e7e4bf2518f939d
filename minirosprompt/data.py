"""Labelled texts from TSV files, few-shot samples, and batches.

A data folder holds train.tsv, dev.tsv and test.tsv (or one sentences.tsv with a column `split`), each with a header and
the columns id, text, label, lang and whatever else there is (`domain`), read as quoted CSV with tabs; and labels.json,
{class: {language: [label words]}}.
"""
import csv
import random
from dataclasses import dataclass
from pathlib import Path

from . import UserError
from .checkpoint import read_json
from .tokenizer import clean
from .weights import POCKET, encoder_folder

MINITOPICS = POCKET / "minitopics"
MINITOPICS_SEEN = ["sports", "food", "health", "education", "economy", "animals", "politics"]  # its other five are unseen
MINITOPICS_SOURCE = ["eng_Latn", "spa_Latn", "rus_Cyrl", "zho_Hans"]                          # its other eight are targets
LANGUAGES = Path(__file__).parent / "languages.tsv"
COLUMNS = ("id", "text", "label", "lang")
csv.field_size_limit(10**8)


@dataclass(frozen=True)
class Example:
    id: str
    text: str
    label: str
    lang: str
    row: dict  # every column, for grouping by others


def read_tsv(path):
    """-> list of Examples. Raises UserError with file and line for a missing column, a short row or an empty file."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            header = reader.fieldnames or []
            missing = [c for c in COLUMNS if c not in header]
            if missing:
                raise UserError(f"{path}: line 1: no column {', '.join(missing)} (columns: {', '.join(header) or 'none'})")
            examples = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{path}: line {reader.line_num}: {len(header)} columns expected")
                empty = [c for c in COLUMNS if not row[c].strip()]
                if empty:
                    raise UserError(f"{path}: line {reader.line_num}: {', '.join(empty)} is empty")
                examples.append(Example(*(row[c] for c in COLUMNS), row))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 TSV file ({error})") from None
    if not examples:
        raise UserError(f"{path}: no rows")
    return examples


def write_row(file, cells):
    """One row of a TSV that csv reads back as it was: its writer does not quote a lone carriage return, its reader stumbles there."""
    quoting = csv.QUOTE_ALL if any("\r" in str(cell) for cell in cells) else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter="\t", lineterminator="\n", quoting=quoting).writerow(cells)


def data_folder(name_or_path):
    """"minitopics" or a folder -> its Path."""
    return MINITOPICS if str(name_or_path) == "minitopics" else Path(name_or_path)


def load_split(name_or_path, split):
    """-> the Examples of "train", "dev" or "test" of a data folder (or of "minitopics")."""
    folder = data_folder(name_or_path)
    path, all_splits = folder / f"{split}.tsv", folder / "sentences.tsv"
    if path.exists() or not all_splits.exists():
        return read_tsv(path)
    examples = read_tsv(all_splits)
    if "split" not in examples[0].row:
        raise UserError(f"{all_splits}: line 1: no column split")
    examples = [e for e in examples if e.row["split"] == split]
    if not examples:
        raise UserError(f"{all_splits}: no row with split {split}")
    return examples


def load_languages():
    """-> {code: {name, script, family, xlmr, cc100_gib, pocket}} of SIB-200's languages and a few more.

    cc100_gib: size of the language's part of CC-100, which XLM-R was pretrained on (Conneau et al. 2020, table 6); xlmr:
    "high" or "low" for the upper and lower half by that size, "no" if XLM-R has not seen the language.
    """
    with open(LANGUAGES, encoding="utf-8", newline="") as file:
        return {row.pop("code"): row for row in csv.DictReader(file, delimiter="\t")}


def load_resource(encoder):
    """{lang: amount of pretraining text}: from languages.json in the encoder's folder, else XLM-R's own."""
    path = encoder_folder(encoder) / "languages.json"
    if path.exists():
        return read_json(path)
    return {lang: float(row["cc100_gib"]) for lang, row in load_languages().items() if row["cc100_gib"]}


def load_label_words(path, classes=None, languages=None):
    """labels.json -> {class: [label words]}, of some classes and languages or (None) of all."""
    table, words = {clean(label): by_lang for label, by_lang in read_json(path).items()}, {}
    for label in table if classes is None else classes:
        by_lang = table.get(label, {})
        if not isinstance(by_lang, dict) or not all(
                isinstance(ws, list) and all(isinstance(w, str) and w.strip() for w in ws) for ws in by_lang.values()):
            raise UserError(f"{path}: {label!r}: expected {{language: [label words]}}")
        words[label] = [clean(w) for lang, ws in by_lang.items() if languages is None or lang in languages for w in ws]
        if not words[label]:
            raise UserError(f"{path}: {label!r} has no label word" + (f" in {', '.join(languages)}" if languages else ""))
    return words


def few_shot(examples, labels, langs, shots, seed):
    """`shots` examples of every label in every language, drawn with `seed`; all of them where there are fewer.

    A pure function: the same arguments give the same list, whatever the order of `examples`.
    """
    chosen = []
    for lang in sorted(langs):
        for label in sorted(labels):
            cell = sorted((e for e in examples if e.lang == lang and e.label == label), key=lambda e: (e.id, e.text))
            chosen += random.Random(f"{seed} {lang} {label}").sample(cell, min(shots, len(cell)))
    return chosen


def groups_of(examples, columns):
    """-> (group number of each example, names of the groups): one group a value of the columns, such as lang or lang,label."""
    for column in columns:
        if column not in examples[0].row:
            raise UserError(f"--group-by {column}: the data have the columns {', '.join(examples[0].row)}")
    keys = [" ".join(e.row[c] for c in columns) for e in examples]
    names = sorted(set(keys))
    return [names.index(key) for key in keys], names


def balanced_batch(groups, G, size, seed, step):
    """Indices of a batch with size / G members of each group (with fewer than G places: of `size` groups drawn at random).

    It depends on (seed, step) alone, so a resumed run goes on with the batches it would have had.
    """
    rng = random.Random(f"{seed} {step}")
    members = [[] for _ in range(G)]
    for i, g in enumerate(groups):
        members[g].append(i)
    batch = []
    for turn, g in enumerate(rng.sample(range(G), G)):
        n = size // G + (turn < size % G)
        batch += rng.sample(members[g], n) if n <= len(members[g]) else rng.choices(members[g], k=n)
    return batch


def length_buckets(rows, budget):
    """Lists of indices into rows (lists of ids), alike in length, each at most `budget` tokens with its padding."""
    buckets, bucket = [], []
    for i in sorted(range(len(rows)), key=lambda i: len(rows[i])):
        if bucket and (len(bucket) + 1) * len(rows[i]) > budget:
            buckets.append(bucket)
            bucket = []
        bucket.append(i)
    return buckets + [bucket] if bucket else buckets
