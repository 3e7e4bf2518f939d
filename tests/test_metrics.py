"""Metrics, means and intervals by hand, the tables, and the picture."""
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from minirosprompt.data import Example
from minirosprompt.io.languages import resource_level
from minirosprompt.io.picture import draw
from minirosprompt.io.tables import format_averages, format_gains, format_table
from minirosprompt.metrics import (
    CELLS,
    accuracies,
    average_by,
    bootstrap,
    gain,
    harmonic_mean,
    macro_f1,
    result_rows,
    summarise,
)


def test_harmonic_mean_by_hand():
    assert harmonic_mean(0.6, 0.3) == pytest.approx(0.4)
    assert harmonic_mean(0.0, 0.0) == 0
    assert harmonic_mean(1.0, 0.0) == 0


def test_macro_f1_by_hand():
    """Class 0: TP 1, FP 1, FN 1 -> 1/2; class 1 the same; class 2 never occurs, is never predicted.
    """
    assert macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), 3) == pytest.approx(0.5)
    assert macro_f1(np.array([0, 1, 2]), np.array([0, 1, 2]), 3) == 1.0


def test_accuracies_by_hand():
    seen = np.array([True, True, False])
    row = accuracies(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), seen, 3)
    assert row["n"] == 4
    assert row["seen"] == pytest.approx(2 / 3)
    assert row["unseen"] == 0
    assert row["all"] == 0.5
    assert row["harmonic"] == 0
    assert accuracies(np.array([0]), np.array([0]), np.array([True]), 1)["unseen"] is None


def test_bootstrap_moves_whole_clusters():
    """Ten copies of two sentences tell no more than two sentences: no narrower interval."""
    values = np.array([0.0, 1.0] * 10)
    clusters = np.array(["a", "b"] * 10)
    assert bootstrap(values, clusters) == [0.0, 1.0]
    low, high = bootstrap(np.arange(100) % 2, np.arange(100))
    assert 0.38 < low < 0.43
    assert 0.57 < high < 0.62  # 0.5 +- 1.96 * 0.05
    assert bootstrap(np.ones(5), np.arange(5)) == [1.0, 1.0]


def test_rows_and_summary_by_hand():
    examples = []
    for lang in ("aa", "bb"):
        examples += [Example("", label, lang, str(i)) for i, label in enumerate("xxyy")]
    labels = np.array([0, 0, 1, 1] * 2)
    predictions = {0: np.array([0, 0, 1, 0, 0, 1, 1, 1]), 1: np.array([0, 0, 1, 1, 0, 1, 0, 0])}
    rows = []
    for seed, p in predictions.items():
        rows += result_rows("soft", seed, examples, labels, p, ["x", "y"], ["x"], ["aa"])
    assert [(r["lang"], r["role"], r["seen"], r["unseen"]) for r in rows] == [
        ("aa", "source", 1.0, 0.5),
        ("bb", "target", 0.5, 1.0),
        ("aa", "source", 1.0, 1.0),
        ("bb", "target", 0.5, 0.0),
    ]
    summary = summarise(rows, {"aa": 0.9, "bb": 0.1})["soft"]
    assert summary["target unseen"] == {"mean": 0.5, "sd": pytest.approx(0.5**0.5)}
    assert summary["worst unseen"]["mean"] == 0.25  # 0.5 and 0.0
    assert summary["high all"]["mean"] == pytest.approx(0.875)
    assert summary["low all"]["mean"] == pytest.approx(0.5)
    assert "50.0 ±70.7" in format_table({"soft": summary}, CELLS)
    both = np.stack(list(predictions.values()))
    mean, interval = gain(examples, labels, both, predictions[1], labels == 0)
    assert mean == 0
    assert interval == [0, 0]


def test_resource_level_by_hand():
    level = resource_level({"a": 1, "b": 300.5, "c": 0.1, "d": 2, "e": 0.2})
    assert level == {"b": "high", "d": "high", "a": "low", "e": "low", "c": "low"}


def test_kinds_of_languages_by_hand():
    rows = [
        {"method": "hard", "seed": 0, "lang": "a", "all": 0.5},
        {"method": "hard", "seed": 0, "lang": "b", "all": 0.1},
        {"method": "hard", "seed": 0, "lang": "c", "all": 0.3},
        {"method": "hard", "seed": 0, "lang": "z", "all": 0.9},
        {"method": "soft", "seed": 0, "lang": "b", "all": 0.6},
        {"method": "soft", "seed": 1, "lang": "b", "all": 0.8},
        {"method": "soft", "seed": 0, "lang": "c", "all": 0.2},
        {"method": "soft", "seed": 1, "lang": "c", "all": 0.2},
        {"method": "soft", "seed": 0, "lang": "a", "all": 1.0},
        {"method": "soft", "seed": 1, "lang": "a", "all": 0.0},
    ]
    script = {"a": "Cyrl", "b": "Latn", "c": "Latn", "never tested": "Thai"}
    table = average_by(rows, script)
    assert list(table) == ["Latn", "Cyrl"]
    assert table == {
        "Latn": {"languages": 2, "hard": pytest.approx(0.2), "soft": pytest.approx(0.45)},
        "Cyrl": {"languages": 1, "hard": 0.5, "soft": 0.5},
    }
    line = format_averages("by script", table).splitlines()[2]
    assert line.split() == ["Latn", "2", "20.0", "45.0"]


def test_gains_are_printed_for_every_method_but_the_baseline():
    cell = {"mean": 0.25, "sd": None}
    interval = {"mean": 0.1, "low": 0.05, "high": 0.15, "sentences": 20}
    summary = {
        "hard": {"worst unseen": {"mean": 0.2, "sd": None}},
        "soft-erm": {"worst unseen": cell, "target unseen gain": interval},
        "soft-cvar": {"worst unseen": cell, "target unseen gain": interval},
    }
    lines = format_gains(summary).splitlines()
    assert [line.split()[0] for line in lines] == ["soft-erm", "soft-cvar"]
    for line in lines:
        assert all(number in line for number in ("+10.0", "+5.0", "+15.0", "+5.0"))
    # where every class is seen, or every language a source
    summary = {"hard": {}, "soft-erm": {"all gain": interval}}
    assert format_gains(summary) == ("soft-erm against hard, all classes: +10.0 points in all "
                                     "languages (95 %: +5.0 to +15.0)\n")
    interval["sentences"] = 2
    assert "; of 2 sentences, which says nothing of others)" in format_gains(summary)


# ---- the picture ---------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def picture_row(method, lang, role, unseen, seed=0):
    return {"method": method, "seed": seed, "lang": lang, "role": role, "unseen": unseen,
            "all": 0.5}


def words_of(picture):
    """-> every text of an SVG; raises if it is not valid XML."""
    return [text.text for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_every_method_and_language_is_in_the_picture():
    """Methods that nobody has thought of, too, and more of them than there are marks."""
    methods = ["hard", "soft-erm", "soft-group-dro", "soft-cvar", "soft-x", "soft-y", "soft-<z>"]
    rows = []
    for i, method in enumerate(methods):
        rows.append(picture_row(method, "aa", "source", 0.1 * i))
        rows.append(picture_row(method, "bb", "target", 0.05 * i))
    picture = draw(rows, {"aa": "Aari"}, 1 / 4)
    words = words_of(picture)
    assert all(method in words for method in methods)
    assert "Aari (source)" in words
    assert "bb (target)" in words  # nobody knows its name
    assert "chance" in words
    assert "accuracy on unseen classes, %" in words
    # A mark for every method in the legend, and one for each of its two languages.
    assert len(list(ElementTree.fromstring(picture).iter(f"{SVG}g"))) == 3 * len(methods)


def test_names_in_the_picture_are_escaped():
    rows = [picture_row("hard", "aa", "target", 0.5), picture_row("hard", "bb", "target", 0.5)]
    name = "N|uu & <script>alert('!')</script> \"Kx'a\""
    picture = draw(rows, {"aa": name}, 1 / 4)
    assert "<script>" not in picture
    assert f"{name} (target)" in words_of(picture)


def test_the_picture_shows_the_spread_over_seeds():
    """One seed: no whisker; two: one a method and language."""
    one = [picture_row("soft-erm", "aa", "target", 0.2)]
    two = [*one, picture_row("soft-erm", "aa", "target", 0.4, seed=1)]
    whiskers = []
    for rows in (one, two):
        root = ElementTree.fromstring(draw(rows, {}, 1 / 4))
        paths = [path.get("d") for path in root.findall(f"{SVG}path")]
        whiskers.append([d for d in paths if "H" in d])
    assert len(whiskers[0]) == 0
    assert len(whiskers[1]) == 1


def test_the_picture_without_unseen_classes_or_without_some_results():
    """Then it is of all classes; and a language without a number has no mark, but its line."""
    rows = [picture_row("hard", "aa", "target", None), picture_row("soft", "aa", "target", None)]
    assert "accuracy on all classes, %" in words_of(draw(rows, {}, 1 / 4))
    rows = [picture_row("hard", "aa", "target", 0.5), picture_row("hard", "bb", "target", None)]
    assert "bb (target)" in words_of(draw(rows, {}, 1 / 4))
