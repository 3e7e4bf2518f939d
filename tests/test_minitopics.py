"""What a program can check of MiniTopics."""
import csv
import json
import re
import unicodedata
from collections import Counter

import pytest

from minirosprompt.data import MINITOPICS, MINITOPICS_SEEN, MINITOPICS_SOURCE


def table(name):
    with open(MINITOPICS / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


CONCEPTS, FRAMES, SENTENCES = table("concepts.tsv"), table("frames.tsv"), table("sentences.tsv")
LANGUAGES = [column for column in FRAMES[0] if column != "frame"]
TOPICS = sorted({row["topic"] for row in CONCEPTS})
LABELS = {topic: {lang: [row[lang] for row in CONCEPTS if row["topic"] == topic and row["concept"].startswith("label")]
                  for lang in LANGUAGES} for topic in TOPICS}


def test_size():
    assert len(TOPICS) == 12 and len(LANGUAGES) == 12 and len({lang[4:] for lang in LANGUAGES}) >= 5
    assert len(MINITOPICS_SEEN) == 7 and set(MINITOPICS_SEEN) < set(TOPICS)
    assert len(MINITOPICS_SOURCE) == 4 and set(MINITOPICS_SOURCE) < set(LANGUAGES)
    for topic in TOPICS:
        assert len([r for r in CONCEPTS if r["topic"] == topic and not r["concept"].startswith("label")]) >= 20
        assert all(len(set(words)) == 2 for words in LABELS[topic].values())
    assert len([r for r in FRAMES if "{0}" in r["eng_Latn"]]) >= 10 and len([r for r in FRAMES if "{topic}" in r["eng_Latn"]]) >= 4


def test_sentences_are_parallel_and_split_by_id():
    by_id = {}
    for row in SENTENCES:
        by_id.setdefault(row["id"], []).append(row)
    for i, rows in by_id.items():
        assert sorted(r["lang"] for r in rows) == sorted(LANGUAGES), i
        assert len({(r["label"], r["domain"], r["split"]) for r in rows}) == 1 and rows[0]["label"] == i.rsplit("-", 1)[0]
    count = Counter((rows[0]["label"], rows[0]["split"]) for rows in by_id.values())
    assert all((count[t, "train"], count[t, "dev"], count[t, "test"]) == (8, 4, 8) for t in TOPICS)
    registers = Counter((rows[0]["label"], rows[0]["split"], rows[0]["domain"]) for rows in by_id.values())
    assert all(registers[t, s, "news"] == registers[t, s, "chat"] for t in TOPICS for s in ("train", "dev", "test"))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_texts(lang):
    columns = {"concepts": [r[lang] for r in CONCEPTS], "frames": [r[lang] for r in FRAMES],
               "sentences": [r["text"] for r in SENTENCES if r["lang"] == lang]}
    for name, texts in columns.items():
        twice = [text for text, n in Counter(t.casefold() for t in texts).items() if n > 1]
        assert not twice, (name, twice)
        for text in texts:
            assert text == text.strip() and text and unicodedata.normalize("NFC", text) == text and '"' not in text and "  " not in text
    assert all(unicodedata.category(text[-1]).startswith("P") for text in columns["sentences"])
    for row in FRAMES:
        assert sorted(re.findall(r"\{\w+\}", row[lang])) == sorted(re.findall(r"\{\w+\}", row["eng_Latn"])), row


SCRIPT = {"Cyrl": "CYRILLIC", "Arab": "ARABIC", "Deva": "DEVANAGARI", "Hans": "CJK", "Latn": "LATIN"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_script(lang):
    """Nine letters in ten are of the language's script in every sentence (a brand or a unit may be in another)."""
    for row in SENTENCES:
        if row["lang"] == lang:
            letters = [c for c in row["text"] if c.isalpha()]
            assert sum(SCRIPT[lang[4:]] in unicodedata.name(c) for c in letters) >= 0.9 * len(letters), row["text"]


def words(text):
    return re.findall(r"[\w\u0300-\u036f\u0900-\u097f'’-]+", text.casefold())


def test_no_sentence_gives_its_label_word_away():
    for row in SENTENCES:
        text = words(row["text"])
        for label in LABELS[row["label"]][row["lang"]]:
            if row["lang"] == "zho_Hans":
                assert label not in row["text"], row
            else:
                n = len(words(label))
                assert not any(text[i:i + n] == words(label) for i in range(len(text))), (label, row)


def test_labels_json_holds_the_label_words_of_the_concepts_table():
    assert json.loads((MINITOPICS / "labels.json").read_text(encoding="utf-8")) == LABELS
