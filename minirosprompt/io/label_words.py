"""Classes and their label words: those of a data folder, and as an encoder reads them.

What it cannot read or tell apart is refused.
"""
import unicodedata
import warnings
from collections import Counter
from itertools import combinations

from .. import UserError
from .files import clean, listed, read_json, read_tsv

SPLITS = ("train", "dev", "test")


# ---- the classes of a data folder ----------------------------------------------------------------

def classes_with_texts(folder):
    """-> the classes that have a text in some split of a data folder, by name; None: no tables.

    train.py's rule for what competes (data.py: choose). Raises UserError as refuse_unknown does.
    """
    labels = {}  # {split: classes}
    for split in SPLITS:
        if (folder / f"{split}.tsv").exists():
            rows = read_tsv(folder / f"{split}.tsv", ["label"])
            labels[split] = {row["label"] for row in rows}
    if (folder / "sentences.tsv").exists():
        of_files = set(labels)
        for row in read_tsv(folder / "sentences.tsv", ["label", "split"]):
            if row["split"] in SPLITS and row["split"] not in of_files:
                labels.setdefault(row["split"], set()).add(row["label"])
    for split, of_split in labels.items():
        refuse_unknown(folder, split, of_split)
    return sorted(set().union(*labels.values())) if labels else None


def refuse_unknown(folder, split, labels):
    """Raises UserError for a class of a split that the folder's labels.json lacks."""
    known = {clean(label) for label in read_json(folder / "labels.json")}
    unknown = sorted(set(labels) - known)
    if unknown:
        raise UserError(f"{folder}: labels.json has no class {listed(unknown)}, "
                        f"but the {split} split has: add it there (upper case counts)")


def tested(examples, classes, languages, folder, split):
    """-> those of a split's Examples whose class competes, in these languages (None: in all).

    Texts of other classes are counted and said. Raises UserError as refuse_unknown does, for a
    language that the split lacks, and if nothing is left.
    """
    refuse_unknown(folder, split, {e.label for e in examples})
    others = Counter(e.label for e in examples if e.label not in classes)
    if others:
        warnings.warn(f"{folder}: left out: {others.total():,} of {len(examples):,} {split} texts, "
                      f"of classes that the run does not have ({listed(sorted(others))}); a copy "
                      "of the folder, named by --data, is tested on all")
    examples = [e for e in examples if e.label in classes]
    if not examples:
        raise UserError(f"{folder}: the {split} split has no text of the classes {listed(classes)}")
    unknown = set(languages or ()) - {e.lang for e in examples}
    if unknown:
        raise UserError(f"--languages: {listed(sorted(unknown))} not in {folder}")
    return [e for e in examples if languages is None or e.lang in languages]


def same_names(names, path):
    """Class names as somebody writes them -> {name: the class of a labels.json}, where it has it.

    Upper case does not count, unless the file itself tells two classes apart by it.
    """
    labels = [clean(label) for label in read_json(path)]
    found = {}
    for name in names:
        fitting = [name] if name in labels else [of for of in labels if folded(of) == folded(name)]
        if len(fitting) > 1:
            raise UserError(f"--labels: {name!r:.80} may be {listed(fitting)} of {path}: write it "
                            "as there")
        if fitting:
            found[name] = fitting[0]
    return found


def words_or_names(names, named, of_data):
    """named: what same_names found; of_data: {class: label words} -> {name: label words}, for a
    class that the data lacks its name. Warns where some have many words and some a name alone.
    """
    rich = [name for name in names if len(of_data.get(named.get(name), ())) > 2]
    poor = [name for name in names if name not in named]
    if rich and poor:
        warnings.warn(f"{rich[0]!r:.80} has {len(of_data[named[rich[0]]])} label words, of the "
                      f"data, and {listed(poor, 3)} a name alone: texts in other languages may all "
                      "go to the former; give the others words too, in a file (--labels FILE)")
    return {name: of_data.get(named.get(name), [name]) for name in names}


def folded(name):
    return unicodedata.normalize("NFC", name).casefold()


# ---- label words ---------------------------------------------------------------------------------


def are_words(value):
    return isinstance(value, list) and all(isinstance(w, str) and w.strip() for w in value)


def known_languages(path, table, languages):
    """--label-languages -> the same, or None for all. table: {class: {language: [words]}}

    Raises UserError for some that no class has words in, next to others: misspelt, most likely.
    """
    if languages is None or "all" in languages:
        return None
    have = {lang for by_lang in table.values() if isinstance(by_lang, dict) for lang in by_lang}
    unknown = [lang for lang in languages if lang not in have]
    if unknown and len(unknown) < len(languages):
        raise UserError(f"--label-languages: {path} has no word in {listed(unknown)}")
    return languages


def is_bare(piece):
    """Whether a piece is of spaces and punctuation alone: "▁", "-", "!"."""
    return all(unicodedata.category(c)[0] in "PZ" for c in piece.replace("▁", ""))


def tokens_of(label_words, tokenizer):
    """{class: [word, ...]} -> W triples (class, word, ids of its pieces).

    Unknown pieces and punctuation are left out. A word that two languages of a class share counts
    once. Warns of words of which nothing is left. Raises UserError for a class that has no other.
    """
    found = []
    unknown = []
    for label, words in label_words.items():
        if isinstance(words, str):  # else each of its letters would be a word
            raise UserError(f"class {label!r:.80}: its label words are a list, such as "
                            f"[{words!r:.80}]")
        if not words:
            raise UserError(f"class {label!r:.80}: every class needs at least one label word")
        words = list(dict.fromkeys(words))
        of_class = []
        for word, ids in zip(words, tokenizer.encode(words)):
            ids = [i for i in ids
                   if tokenizer.piece(i) != "<unk>" and not is_bare(tokenizer.piece(i))]
            if ids:
                of_class.append((label, word, ids))
            else:
                unknown.append(f"{word} ({label})")
        if not of_class:
            raise UserError(f"class {label!r:.80}: the label word {words[0]!r:.80} has no tokens "
                            "that this encoder knows; use another word, in any language")
        found += of_class
    if unknown:
        warnings.warn(f"{len(unknown)} label words have no tokens that this encoder knows, and are "
                      f"left out: {listed(unknown, 3)}")
    return found


def check_apart(signs):
    """signs: {class: all that the encoder gets of its label words, each hashable}.

    Raises UserError for two classes with the same signs, which would always tie; warns of two that
    share some, which may. Raises UserError for one class alone, too.
    """
    if len(signs) < 2:
        raise UserError(f"{listed(signs)!r} is the only class, so every text would get it: name "
                        "two, a line each or with commas")
    sharing = []
    for (a, of_a), (b, of_b) in combinations(signs.items(), 2):
        if set(of_a) == set(of_b):
            raise UserError(f"classes {a!r:.80} and {b!r:.80} cannot be told apart: this encoder "
                            "reads their label words as the same tokens, as far as it has room "
                            "for them; use other words")
        if set(of_a) & set(of_b):
            sharing.append(f"{a!r:.80} and {b!r:.80}")
    if sharing:
        more = f" (and {len(sharing) - 3} more pairs)" if sharing[3:] else ""
        warnings.warn(f"classes {'; '.join(sharing[:3])}{more} have label words of the same "
                      "tokens: texts that those fit best are ties")


def own_pieces(label_words, tokenizer):
    """{class: [word, ...]} -> [(class, word, ids)]: of each word the pieces that say something.

    A piece that all classes have ("about" in "about sport", "about food") says nothing and is left
    out, unless a class has no other. Raises and warns as tokens_of and check_apart do, and warns of
    a class that no text can fit best, and of one that the encoder can only spell.
    """
    found = [(label, word, list(dict.fromkeys(ids)))
             for label, word, ids in tokens_of(label_words, tokenizer)]
    of_classes = {label: set() for label in label_words}  # {class: its pieces}
    for label, _, ids in found:
        of_classes[label].update(ids)
    in_all = set.intersection(*of_classes.values()) if of_classes else set()
    if in_all not in of_classes.values():  # else a class has no other
        found = [(label, word, [i for i in ids if i not in in_all]) for label, word, ids in found]
        found = [(label, word, ids) for label, word, ids in found if ids]
    check_apart({label: [tuple(sorted(ids)) for of, _, ids in found if of == label]
                 for label in label_words})
    warn_of_poor(found, tokenizer)
    return found


def warn_of_poor(found, tokenizer):
    """found: own_pieces' triples. Warns, a line each, of classes that no text can fit best, and of
    those of which the encoder knows scraps.
    """
    of_class = {}  # {class: [ids of a word]}
    for label, _, ids in found:
        of_class.setdefault(label, []).append(ids)
    alone = {label: {ids[0] for ids in words if len(ids) == 1} for label, words in of_class.items()}
    in_some = set().union(*alone.values())
    mixed = []
    spelt = []
    for label, words in of_class.items():
        pieces = dict.fromkeys(i for ids in words for i in ids)
        if not alone[label] and in_some.issuperset(pieces):  # a mean of others: never the largest
            others = [of for of in of_class if alone[of].intersection(pieces)]
            mixed.append(f"{label!r:.80} (of {listed(others, 3)})")
        letters = [tokenizer.piece(i).strip("▁") for i in pieces]
        cased = any(c.lower() != c.upper() for c in "".join(letters))  # two of Chinese are a word
        if cased and len(letters) > 2 and max(map(len, letters)) <= 2:
            spelt.append(f"{label!r:.80} ({' '.join(letters[:6])})")
    for names, what in ((mixed, "are mixtures of others' label words, so that one of those fits "
                                "every text better"),
                        (spelt, "are known to this encoder by scraps alone")):
        if names:
            warnings.warn(f"classes that {what}: {listed(names, 3)}; use other words")
