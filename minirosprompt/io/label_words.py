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


def without_bare_space(ids, tokenizer):
    """Drops a lone "▁" in front.

    In scripts without spaces every word alone begins with it, and it says nothing.
    """
    return ids[1:] if len(ids) > 1 and tokenizer.piece(ids[0]) == "▁" else ids


def tokens_of(label_words, tokenizer):
    """{class: [word, ...]} -> W triples (class, word, ids of its pieces, unknown ones left out).

    A word that two languages of a class share counts once. Warns of words of which the encoder
    knows no piece. Raises UserError for a class that has no other.
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
            ids = [i for i in without_bare_space(ids, tokenizer) if tokenizer.piece(i) != "<unk>"]
            if [tokenizer.piece(i) for i in ids] in ([], ["▁"]):
                unknown.append(word)
            else:
                of_class.append((label, word, ids))
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
    """{class: [word, ...]} -> [(class, word, ids)]: of each word the pieces only its class has.

    A piece that another class has too ("world" in "world politics" and "world music") says nothing
    and is left out, unless a class has no other. Raises and warns as tokens_of and check_apart do,
    and warns of a class that has no piece of its own when others need its pieces too.
    """
    found = [(label, word, list(dict.fromkeys(ids)))
             for label, word, ids in tokens_of(label_words, tokenizer)]
    pieces = {label: set() for label in label_words}
    for label, _, ids in found:
        pieces[label].update(ids)
    classes_with = Counter(i for of_class in pieces.values() for i in of_class)
    poor = {label: of_class for label, of_class in pieces.items()
            if all(classes_with[i] > 1 for i in of_class)}
    own = []
    for label, word, ids in found:
        if label not in poor:
            ids = [i for i in ids if classes_with[i] == 1]
        if ids:
            own.append((label, word, ids))
    check_apart({label: [tuple(sorted(ids)) for of, _, ids in own if of == label]
                 for label in label_words})
    for label, of_class in poor.items():
        rivals = dict.fromkeys(of for of, _, ids in own if of != label and of_class & set(ids))
        if rivals:
            warnings.warn(f"class {label!r:.80} has no token that its label words alone have, so "
                          f"its texts may go to {listed(rivals, 3)}; use other words")
    return own
