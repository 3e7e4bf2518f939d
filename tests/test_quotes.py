"""What is told of a result in one place stands where it was measured: tables get other rows."""
import json
import re

import pytest
from conftest import ROOT

# (who tells it, in these words, where it stands, in these)
QUOTES = [
    ("README.md", "10.8 points in MiniTopics' target languages (95 % over sentences: 6.9 to 14.9)",
     "RESULTS.md", "ERM +10.8 (6.9 to 14.9)"),
    ("README.md", "9.0 over all 205 languages of SIB-200, real text (54 to 63 %; 6.1 to 11.8)",
     "RESULTS.md", "| all, unseen classes | +9.0 | +6.1 to +11.8;"),
    ("README.md", "(54 to 63 %;",
     "RESULTS.md", "| all | 205 | 62.6 / 67.7 / 53.9 | 66.3 ±0.4 / 68.4 ±1.1 / 62.9 ±1.1 |"),
    ("README.md", "on SIB-200's seen classes 0.6 (-1.5 to 2.8)",
     "RESULTS.md", "| all, seen classes | +0.6 | -1.5 to +2.8;"),
    ("README.md", "is 4.6 points below the hard one",
     "RESULTS.md", "70.5 | 65.7 ±2.6 | -4.6 (-7.6 to -1.5) |"),
    ("minirosprompt/prompts/README.md", "4.6 points *below* the hard prompt",
     "RESULTS.md", "70.5 | 65.7 ±2.6 | -4.6 (-7.6 to -1.5) |"),
    ("minirosprompt/prompts/README.md", "(95 %: -7.6 to -1.5;",
     "results/cross.md", "| -4.6 (-7.6 to -1.5) |"),
    ("data_scripts/pretraining/README.md", "| 5.89 | 6.78 | 7.07 | 6.96 | 47.5 | 38.9 |",
     "RESULTS.md", "(English 47.5, aim 45; eight trial languages 38.9, aim 35:"),
    ("benchmarks/README.md", "[8.6 minutes, theirs 18.3](../results/baselines.md)",
     "results/baselines.md", "| sentence-transformers, float32 | 38 | 1.89 | 18.3 |"),
    ("benchmarks/README.md", "[8.6 minutes, theirs 18.3](../results/baselines.md)",
     "results/baselines.md", "| ours, float32 | 81 | 1.03 | 8.6 |"),
    ("tutorials/05_group_dro.ipynb", "DRO minus ERM is -0.1 ±0.7 points over 205 languages",
     "RESULTS.md", "DRO minus ERM is -0.1 ±0.7 points on all classes"),
    ("tutorials/05_group_dro.ipynb",
     "57.9 ±2.4, 60.6 ±2.3 and 61.2 ±3.7 in the worst source language, and 71.1, 71.9 and 71.0",
     "results/log.md",
     "(texts as they come) | 71.1 ±0.8 | 70.7 ±3.0 | 18.9 ±3.2 | 72.9 ±1.0 | 57.9 ±2.4"),
    ("tutorials/05_group_dro.ipynb", "60.6 ±2.3", "results/log.md",
     "balanced batches | 71.9 ±0.7 | 68.3 ±1.8 | 21.8 ±3.3 | 74.0 ±1.0 | 60.6 ±2.3"),
    ("tutorials/05_group_dro.ipynb", "61.2 ±3.7", "results/log.md",
     "η = 0.3 | 71.0 ±1.7 | 66.7 ±4.0 | 23.3 ±3.5 | 73.0 ±1.5 | 61.2 ±3.7"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb", "| all | 205 | 62.6 | 66.3 |",
     "results/sib200.md", "| all | 205 | 62.6 / 67.7 / 53.9 | 66.3 ±"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb", "| source | 6 | 76.5 | 80.9 |",
     "results/sib200.md", "| source languages | 6 | 76.5 / 79.7 / 71.1 | 80.9 ±"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb",
     "| target, much pretraining text | 39 | 73.7 | 79.8 |",
     "results/sib200.md", "| … with much text | 39 | 73.7 / 77.3 / 67.6 | 79.8 ±"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb", "| target, little | 46 | 66.6 | 70.1 |",
     "results/sib200.md", "| … with little | 46 | 66.6 / 71.9 / 57.7 | 70.1 ±"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb", "| target, none | 114 | 56.4 | 59.4 |",
     "results/sib200.md", "| target, not in XLM-R | 114 | 56.4 / 62.1 / 46.8 | 59.4 ±"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb",
     "Lowest under the hard prompt is Dzongkha, 9.3 %",
     "results/sib200.md", "| all, all classes | 9.3 (dzo_Tibt)"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb",
     "*unseen* ones gain 9.0 points (95 % over sentences: 6.1 to 11.8)",
     "results/sib200.md", "| all | unseen | soft-erm | +9.0 | +6.1 to +11.8"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb", "seen ones 0.6 (-1.5 to 2.8)",
     "results/sib200.md", "| all | seen | soft-erm | +0.6 | -1.5 to +2.8"),
    ("tutorials/06_unseen_classes_unseen_languages.ipynb",
     "gets 67.7 % on seen topics and 53.9 % on unseen ones",
     "results/sib200.md", "| all | 205 | 62.6 / 67.7 / 53.9 |"),
    ("tutorials/07_statistics.ipynb",
     "RESULTS.md has 103 of 199 target languages with a gain beyond their own 95 % interval",
     "RESULTS.md", "195 of the 199 targets gain, 103 of them beyond their own interval"),
    ("tutorials/07_statistics.ipynb", "about three in the mean over many (in RESULTS.md, two to",
     "RESULTS.md", "| target, in XLM-R, all classes | +4.7 | +2.5 to +6.8;"),
    ("tutorials/07_statistics.ipynb", "+10.8 points (6.9 to 14.9) on MiniTopics' test split",
     "RESULTS.md", "ERM +10.8 (6.9 to 14.9)"),
    ("tutorials/07_statistics.ipynb", "and +9.0 (6.1 to 11.8) on SIB-200",
     "RESULTS.md", "| all, unseen classes | +9.0 | +6.1 to +11.8;"),
    ("tutorials/08_baselines.ipynb",
     "| logistic regression | 74.3 ±0.8 | 78.1 ±2.1 | 67.9 ±1.9 | 24.0 ±3.1 |",
     "results/baselines.md", "| 74.3 ±0.8 | 78.1 ±2.1 | 67.9 ±1.9 | 24.0 ±3.1 |"),
    ("tutorials/08_baselines.ipynb",
     "| soft prompt, ERM | 71.5 ±0.5 | 72.7 ±0.9 | 69.4 ±0.8 | 21.0 ±1.1 |",
     "results/baselines.md", "| 71.5 ±0.5 | 72.7 ±0.9 | 69.4 ±0.8 | 21.0 ±1.1 |"),
]


def told(name):
    """The words of a page, or of a notebook's prose: one space, one minus, nothing bold."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    text = " ".join(text.split()).replace("**", "").replace("\N{MINUS SIGN}", "-")
    return text.replace("± ", "±")


@pytest.mark.parametrize(("teller", "quote", "source", "row"), QUOTES)
def test_it_stands_where_it_was_measured(teller, quote, source, row):
    assert quote in told(teller), "changed here: change this list, and look at the other place"
    assert row in told(source), f"{teller} quotes a row that is not there any longer"


def test_the_summary_has_the_rows_of_the_whole_table():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    first = text[:text.index("| gain over the hard prompt")].split("\n")
    rows = [line for line in first if re.match(r"\| [^|]+ \| \d+ \|", line)]
    assert len(rows) == 7
    whole = (ROOT / "results/sib200.md").read_text(encoding="utf-8").split("\n")
    assert all(row in whole for row in rows)


def test_the_coins_of_the_picture_are_those_that_the_notebook_tosses():
    printed = (ROOT / "tutorials/07_statistics.ipynb").read_text(encoding="utf-8")
    counts = re.search(r"soft alone is right (\d+) times, hard alone (\d+) times", printed)
    picture = (ROOT / "tutorials/pictures/07_pairs.svg").read_text(encoding="utf-8")
    assert picture.count("<circle") == sum(int(count) for count in counts.groups())
