"""What a program can check of MiniTopics."""
import csv
import itertools
import json
import re
import unicodedata
from collections import Counter

import pytest

from minirosprompt.data import MINITOPICS, MINITOPICS_SEEN, MINITOPICS_SOURCE


def table(name):
    with open(MINITOPICS / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


CONCEPTS = table("concepts.tsv")
FRAMES = table("frames.tsv")
SENTENCES = table("sentences.tsv")
LANGUAGES = [column for column in FRAMES[0] if column != "frame"]
TOPICS = sorted({row["topic"] for row in CONCEPTS})
LABELS = {topic: {lang: [] for lang in LANGUAGES} for topic in TOPICS}
CONTENT = {topic: [] for topic in TOPICS}  # concepts that are no label words
for row in CONCEPTS:
    if row["concept"].startswith("label"):
        for lang in LANGUAGES:
            LABELS[row["topic"]][lang].append(row[lang])
    else:
        CONTENT[row["topic"]].append(row)


def test_size():
    assert len(TOPICS) == 12
    assert len(LANGUAGES) == 12
    assert len({lang[4:] for lang in LANGUAGES}) >= 5
    assert len(MINITOPICS_SEEN) == 7
    assert set(MINITOPICS_SEEN) < set(TOPICS)
    assert len(MINITOPICS_SOURCE) == 4
    assert set(MINITOPICS_SOURCE) < set(LANGUAGES)
    for topic in TOPICS:
        assert len(CONTENT[topic]) >= 20
        assert all(len(set(words)) == 2 for words in LABELS[topic].values())
    assert len([r for r in FRAMES if "{0}" in r["eng_Latn"]]) >= 10
    assert len([r for r in FRAMES if "{topic}" in r["eng_Latn"]]) >= 4


def test_sentences_are_parallel_and_split_by_id():
    by_id = {}
    for row in SENTENCES:
        by_id.setdefault(row["id"], []).append(row)
    for i, rows in by_id.items():
        assert sorted(r["lang"] for r in rows) == sorted(LANGUAGES), i
        assert len({(r["label"], r["domain"], r["split"]) for r in rows}) == 1
        assert rows[0]["label"] == i.rsplit("-", 1)[0]
    count = Counter((rows[0]["label"], rows[0]["split"]) for rows in by_id.values())
    assert all((count[t, "train"], count[t, "dev"], count[t, "test"]) == (8, 4, 8) for t in TOPICS)
    registers = Counter()
    for rows in by_id.values():
        registers[rows[0]["label"], rows[0]["split"], rows[0]["domain"]] += 1
    for topic, split in itertools.product(TOPICS, ("train", "dev", "test")):
        assert registers[topic, split, "news"] == registers[topic, split, "chat"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_texts(lang):
    columns = {
        "concepts": [r[lang] for r in CONCEPTS],
        "frames": [r[lang] for r in FRAMES],
        "sentences": [r["text"] for r in SENTENCES if r["lang"] == lang],
    }
    for name, texts in columns.items():
        count = Counter(text.casefold() for text in texts)
        twice = [text for text, n in count.items() if n > 1]
        assert not twice, (name, twice)
        for text in texts:
            assert text == text.strip()
            assert text
            assert unicodedata.normalize("NFC", text) == text
            assert '"' not in text
            assert "  " not in text
    assert all(unicodedata.category(text[-1]).startswith("P") for text in columns["sentences"])
    for row in FRAMES:
        assert blanks(row[lang]) == blanks(row["eng_Latn"]), row


def blanks(frame):
    """What a frame leaves to be filled in, such as {0} and {topic}."""
    return sorted(re.findall(r"\{\w+\}", frame))


SCRIPT = {
    "Cyrl": "CYRILLIC",
    "Arab": "ARABIC",
    "Deva": "DEVANAGARI",
    "Hans": "CJK",
    "Latn": "LATIN",
}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_script(lang):
    """Nine letters in ten are of the language's script in every sentence.

    A brand or a unit may be in another.
    """
    for row in SENTENCES:
        if row["lang"] == lang:
            letters = [c for c in row["text"] if c.isalpha()]
            of_script = [c for c in letters if SCRIPT[lang[4:]] in unicodedata.name(c)]
            assert len(of_script) >= 0.9 * len(letters), row["text"]


def words(text):
    return re.findall(r"[\w\u0300-\u036f\u0900-\u097f'’-]+", text.casefold())


def test_no_sentence_gives_its_label_word_away():
    for row in SENTENCES:
        text = words(row["text"])
        for label in LABELS[row["label"]][row["lang"]]:
            if row["lang"] == "zho_Hans":
                assert label not in row["text"], row
            else:
                wanted = words(label)
                for i in range(len(text)):
                    assert text[i:i + len(wanted)] != wanted, (label, row)


def test_labels_json_holds_the_label_words_of_the_concepts_table():
    assert json.loads((MINITOPICS / "labels.json").read_text(encoding="utf-8")) == LABELS
