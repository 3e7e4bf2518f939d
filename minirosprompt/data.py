"""Labelled texts from TSV files, few-shot samples, and batches.

A data folder holds train.tsv, dev.tsv and test.tsv (or one sentences.tsv with a column `split`).
Each has a header and the columns id, text, label, lang and whatever else there is (`domain`), and
is read as quoted CSV with tabs. And it holds labels.json, {class: {language: [label words]}}.
"""
import random
from dataclasses import dataclass, field
from pathlib import Path

from . import UserError
from .io.files import clean, listed, read_json, read_tsv
from .io.label_words import are_words, known_languages
from .io.weights import POCKET

MINITOPICS = POCKET / "minitopics"
# The other five of its classes are unseen, the other eight of its languages are targets.
MINITOPICS_SEEN = ["sports", "food", "health", "education", "economy", "animals", "politics"]
MINITOPICS_SOURCE = ["eng_Latn", "spa_Latn", "rus_Cyrl", "zho_Hans"]
COLUMNS = ("id", "text", "label", "lang")


@dataclass(frozen=True)
class Example:
    """A text, and what is known of it."""
    text: str
    label: str = ""   # its class
    lang: str = ""
    id: str = ""      # translations of one sentence share it
    columns: dict = field(default_factory=dict)  # every column of its row, to group by


# ---- files ---------------------------------------------------------------------------------------

def read_examples(path):
    """A TSV file -> list of Examples. Raises UserError with file and line (io/files.py)."""
    rows = read_tsv(path, COLUMNS)
    return [Example(row["text"], row["label"], row["lang"], row["id"], row) for row in rows]


def data_folder(name_or_path):
    """"minitopics" or a folder -> its Path."""
    return MINITOPICS if str(name_or_path) == "minitopics" else Path(name_or_path)


def load_split(name_or_path, split):
    """-> the Examples of "train", "dev" or "test" of a data folder (or of "minitopics")."""
    folder = data_folder(name_or_path)
    path = folder / f"{split}.tsv"
    all_splits = folder / "sentences.tsv"
    if path.exists() or not all_splits.exists():
        return read_examples(path)
    examples = read_examples(all_splits)
    if "split" not in examples[0].columns:
        raise UserError(f"{all_splits}: line 1: no column split")
    examples = [e for e in examples if e.columns["split"] == split]
    if not examples:
        raise UserError(f"{all_splits}: no row with split {split}")
    return examples


def load_label_words(path, classes=None, languages=None, first=None):
    """{class: [label words]}, of some classes and languages or (None) of all.

    path: a labels.json, or what --data takes; languages: names, or ["all"]; first: so many words
    a class and language. Raises UserError for a class without a word.
    """
    if Path(path).suffix.lower() != ".json":
        path = data_folder(path) / "labels.json"
    table = {clean(label): by_lang for label, by_lang in read_json(path).items()}
    languages = known_languages(path, table, languages)
    label_words = {}
    for label in table if classes is None else classes:
        by_lang = table.get(label, {})
        if not isinstance(by_lang, dict) or not all(map(are_words, by_lang.values())):
            raise UserError(f"{path}: {label!r}: expected {{language: [label words]}}")
        chosen = [by_lang[lang] for lang in by_lang if languages is None or lang in languages]
        label_words[label] = [clean(word) for words in chosen for word in words[:first]]
        if not label_words[label]:
            where = f" in {listed(languages)}: see --label-languages" if languages else ""
            raise UserError(f"{path}: {label!r} has no label word{where}")
    if not table:
        raise UserError(f"{path}: no class in it")
    return label_words


# ---- what a run is about -------------------------------------------------------------------------

def load_data(args):
    """-> (train, dev, tested): Examples to draw from, to select a prompt by, to report on.

    Where --classes, --seen, --source or --languages are not given, fills them in (choose).
    dev: seen classes in source languages, nothing else.
    """
    train = load_split(args.data, "train")
    dev = load_split(args.data, "dev")
    tested = load_split(args.data, args.split)
    choose(args, train, dev + tested)
    # Unseen classes and target languages must choose nothing, so they are taken out here.
    train = [e for e in train if e.label in args.seen and e.lang in args.source]
    dev = [e for e in dev if e.label in args.seen and e.lang in args.source]
    tested = [e for e in tested if e.label in args.classes and e.lang in args.languages]
    for split, examples in (("train", train), ("dev", dev), (args.split, tested)):
        if not examples:
            raise UserError(f"{args.data}: no text of these classes and languages in {split}")
    groups_of(train, args.group_by)  # raises, if it has no such column
    groups_of(dev, args.group_by)
    return train, dev, tested


def choose(args, train, others):
    """Fills in --classes, --languages, --seen and --source where they are not given.

    others: the Examples of the other splits. Seen classes and source languages are those with
    training texts. Raises UserError for a name that the data do not have.
    """
    trained = {e.label for e in train}
    sources = {e.lang for e in train}
    mini = args.data == "minitopics"
    for flag, have, default in (("classes", trained | {e.label for e in others}, None),
                                ("languages", sources | {e.lang for e in others}, None),
                                ("seen", trained, MINITOPICS_SEEN if mini else None),
                                ("source", sources, MINITOPICS_SOURCE if mini else None)):
        chosen = getattr(args, flag) or sorted(default or have)
        unknown = [name for name in chosen if name not in have]
        if unknown:
            split = "the train split of " if flag in ("seen", "source") else ""
            raise UserError(f"--{flag}: {listed(unknown)} not in {split}{args.data}, "
                            f"which has {listed(sorted(have))}")
        setattr(args, flag, chosen)
    outside = set(args.seen) - set(args.classes)
    if len(args.seen) < 2:
        raise UserError(f"--seen: {args.seen[0]} alone teaches nothing; name two classes or more")
    if outside:
        raise UserError(f"--seen: {listed(sorted(outside))} not among --classes")


def few_shot(examples, classes, langs, shots, seed):
    """`shots` examples of every class in every language, drawn with `seed`; or all there are.

    shots: 8, or [8], or one number for each of langs. The order of `examples` makes no difference.
    """
    shots = shots if isinstance(shots, list) else [shots]
    if len(shots) not in (1, len(langs)):
        raise UserError(f"--shots: {len(shots)} numbers for {len(langs)} source languages")
    shots_of = dict(zip(langs, shots * len(langs)))
    chosen = []
    for lang in sorted(langs):
        for label in sorted(classes):
            there = [e for e in examples if e.lang == lang and e.label == label]
            # Sorted, so that the draw does not depend on the order of the file.
            there.sort(key=lambda e: (e.id, e.text))
            # Its own generator for each cell: one more language changes no other's draw.
            rng = random.Random(f"{seed} {lang} {label}")
            chosen += rng.sample(there, min(shots_of[lang], len(there)))
    return chosen


def groups_of(examples, columns):
    """One group for each value of the columns, such as lang, or lang and label.

    -> (group number of each example, names of the groups). Raises UserError: no such column.
    """
    for column in columns:
        if column not in examples[0].columns:
            have = listed(examples[0].columns)
            raise UserError(f"--group-by {column}: the data have the columns {have}")
    keys = [tuple(e.columns[c] for c in columns) for e in examples]
    groups = sorted(set(keys))
    return [groups.index(key) for key in keys], [" ".join(key) for key in groups]


# ---- batches -------------------------------------------------------------------------------------

def draw_batch(sampler, groups, size, seed, step):
    """Indices of a batch. sampler: "balanced" or "natural"; groups: each text's, 0 .. G-1."""
    if sampler == "natural":
        return natural_batch(len(groups), size, seed, step)
    return balanced_batch(groups, max(groups) + 1, size, seed, step)


def balanced_batch(groups, G, size, seed, step):
    """Indices of a batch with size / G members of each group.

    With fewer than G places: of `size` groups drawn at random. It depends on (seed, step) alone,
    so a resumed run goes on with the batches it would have had.
    """
    rng = random.Random(f"{seed} {step}")
    members = [[i for i, of in enumerate(groups) if of == g] for g in range(G)]
    batch = []
    # In a new order each time, because the first groups get what size / G leaves over.
    for turn, g in enumerate(rng.sample(range(G), G)):
        n = size // G + (turn < size % G)
        if n <= len(members[g]):
            batch += rng.sample(members[g], n)
        else:  # of a small group some come more than once
            batch += rng.choices(members[g], k=n)
    return batch


def natural_batch(n, size, seed, step):
    """Indices of a batch of n texts, as they come: a large group fills most of it."""
    rng = random.Random(f"{seed} {step}")
    return rng.sample(range(n), size) if size <= n else rng.choices(range(n), k=size)


def length_buckets(sequences, budget):
    """Lists of indices into sequences, alike in length, so that little is padding.

    Each holds at most `budget` tokens, padding included.
    """
    buckets = []
    bucket = []
    for i in sorted(range(len(sequences)), key=lambda i: len(sequences[i])):
        # They come by length, so this one would be the longest, and all are padded to it.
        if bucket and (len(bucket) + 1) * len(sequences[i]) > budget:
            buckets.append(bucket)
            bucket = []
        bucket.append(i)
    return buckets + [bucket] if bucket else buckets
