"""Label words as an encoder reads them. What it cannot read or tell apart is refused."""
import warnings
from collections import Counter
from itertools import combinations

from .. import UserError


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
        raise UserError(f"--label-languages: {path} has no word in {', '.join(unknown)}")
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
            raise UserError(f"class {label!r}: its label words are a list, such as [{words!r}]")
        if not words:
            raise UserError(f"class {label!r}: every class needs at least one label word")
        words = list(dict.fromkeys(words))
        of_class = []
        for word, ids in zip(words, tokenizer.encode(words)):
            ids = [i for i in without_bare_space(ids, tokenizer) if tokenizer.piece(i) != "<unk>"]
            if [tokenizer.piece(i) for i in ids] in ([], ["▁"]):
                unknown.append(word)
            else:
                of_class.append((label, word, ids))
        if not of_class:
            raise UserError(f"class {label!r}: the label word {words[0]!r} has no tokens that this "
                            "encoder knows; use another word, in any language")
        found += of_class
    if unknown:
        warnings.warn(f"{len(unknown)} label words have no tokens that this encoder knows, and are "
                      f"left out: {', '.join(unknown[:3])}{' ...' if unknown[3:] else ''}")
    return found


def check_apart(signs):
    """signs: {class: all that the encoder gets of its label words, each hashable}.

    Raises UserError for two classes with the same signs, which would always tie; warns of two that
    share some, which may. Raises UserError for one class alone, too.
    """
    if len(signs) < 2:
        raise UserError(f"{', '.join(signs)!r} is the only class, so every text would get it: name "
                        "two, a line each or with commas")
    sharing = []
    for (a, of_a), (b, of_b) in combinations(signs.items(), 2):
        if set(of_a) == set(of_b):
            raise UserError(f"classes {a!r} and {b!r} cannot be told apart: this encoder reads "
                            "their label words as the same tokens; use other words")
        if set(of_a) & set(of_b):
            sharing.append(f"{a!r} and {b!r}")
    if sharing:
        more = f" (and {len(sharing) - 3} more pairs)" if sharing[3:] else ""
        warnings.warn(f"classes {'; '.join(sharing[:3])}{more} have label words of the same "
                      "tokens: texts that those fit best are ties")


def own_pieces(label_words, tokenizer):
    """{class: [word, ...]} -> {class: {id: word}}: the pieces of a class's words, each once.

    A piece that another class has too ("world" in "world politics" and "world music") says nothing
    and is left out, unless a class has no other. Raises and warns as tokens_of and check_apart do.
    """
    pieces = {label: {} for label in label_words}
    for label, word, ids in tokens_of(label_words, tokenizer):
        for i in ids:
            pieces[label].setdefault(i, word)
    classes_with = Counter(i for of_class in pieces.values() for i in of_class)
    own = {}
    for label, of_class in pieces.items():
        alone = {i: word for i, word in of_class.items() if classes_with[i] == 1}
        own[label] = alone or of_class
    check_apart(own)
    return own
