import numpy as np
import pytest

from minirosprompt import metrics
from minirosprompt.data import Example
from minirosprompt.metrics import accuracies, bootstrap, gain, harmonic_mean, macro_f1, result_rows, summarise
from minirosprompt.report import format_table


def test_harmonic_mean_by_hand():
    assert harmonic_mean(0.6, 0.3) == pytest.approx(0.4) and harmonic_mean(0.0, 0.0) == 0 and harmonic_mean(1.0, 0.0) == 0


def test_macro_f1_by_hand():
    """Class 0: TP 1, FP 1, FN 1 -> 1/2; class 1: TP 1, FP 1, FN 1 -> 1/2; class 2 neither occurs nor is predicted."""
    assert macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0]), 3) == pytest.approx(0.5)
    assert macro_f1(np.array([0, 1, 2]), np.array([0, 1, 2]), 3) == 1.0


def test_accuracies_by_hand():
    row = accuracies(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), np.array([True, True, False]), 3)
    assert row["n"] == 4 and row["seen"] == pytest.approx(2 / 3) and row["unseen"] == 0 and row["all"] == 0.5 and row["harmonic"] == 0
    assert accuracies(np.array([0]), np.array([0]), np.array([True]), 1)["unseen"] is None


def test_bootstrap_moves_whole_clusters():
    """Ten copies of the same two sentences tell no more than two sentences: the interval must not shrink."""
    values, clusters = np.array([0.0, 1.0] * 10), np.array(["a", "b"] * 10)
    assert bootstrap(values, clusters) == [0.0, 1.0]
    low, high = bootstrap(np.arange(100) % 2, np.arange(100))
    assert 0.38 < low < 0.43 and 0.57 < high < 0.62  # 0.5 +- 1.96 * 0.05
    assert bootstrap(np.ones(5), np.arange(5)) == [1.0, 1.0]


def test_rows_and_summary_by_hand():
    examples = [Example(str(i), "", label, lang, {}) for lang in ("aa", "bb") for i, label in enumerate("xxyy")]
    gold = np.array([0, 0, 1, 1] * 2)
    predictions = {0: np.array([0, 0, 1, 0, 0, 1, 1, 1]), 1: np.array([0, 0, 1, 1, 0, 1, 0, 0])}
    rows = [r for seed, p in predictions.items() for r in result_rows("soft", seed, examples, gold, p, ["x", "y"], ["x"], ["aa"])]
    assert [(r["lang"], r["role"], r["seen"], r["unseen"]) for r in rows] == [
        ("aa", "source", 1.0, 0.5), ("bb", "target", 0.5, 1.0), ("aa", "source", 1.0, 1.0), ("bb", "target", 0.5, 0.0)]
    summary = summarise(rows, {"aa": 0.9, "bb": 0.1})["soft"]
    assert summary["target unseen"] == {"mean": 0.5, "sd": pytest.approx(0.5 ** 0.5)}
    assert summary["worst unseen"]["mean"] == 0.25            # 0.5 and 0.0
    assert summary["high all"]["mean"] == pytest.approx(0.875) and summary["low all"]["mean"] == pytest.approx(0.5)
    assert "50.0 ±70.7" in format_table({"soft": summary})
    mean, interval = gain(examples, gold, np.stack(list(predictions.values())), predictions[1], gold == 0)
    assert mean == 0 and interval == [0, 0]


def test_classes_of_languages_by_hand():
    assert metrics.resource_level({"a": 1, "b": 300.5, "c": 0.1, "d": 2, "e": 0.2}) == {"b": "high", "d": "high", "a": "low", "e": "low", "c": "low"}
    rows = [{"method": "hard", "seed": 0, "lang": "a", "all": 0.5}, {"method": "hard", "seed": 0, "lang": "b", "all": 0.1},
            {"method": "hard", "seed": 0, "lang": "c", "all": 0.3}, {"method": "hard", "seed": 0, "lang": "z", "all": 0.9},
            {"method": "soft", "seed": 0, "lang": "b", "all": 0.6}, {"method": "soft", "seed": 1, "lang": "b", "all": 0.8},
            {"method": "soft", "seed": 0, "lang": "c", "all": 0.2}, {"method": "soft", "seed": 1, "lang": "c", "all": 0.2},
            {"method": "soft", "seed": 0, "lang": "a", "all": 1.0}, {"method": "soft", "seed": 1, "lang": "a", "all": 0.0}]
    table = metrics.average_by(rows, {"a": "Cyrl", "b": "Latn", "c": "Latn", "never tested": "Thai"})
    assert list(table) == ["Latn", "Cyrl"]
    assert table == {"Latn": {"languages": 2, "hard": pytest.approx(0.2), "soft": pytest.approx(0.45)}, "Cyrl": {"languages": 1, "hard": 0.5, "soft": 0.5}}
    assert metrics.format_averages("by script", table).splitlines()[2].split() == ["Latn", "2", "20.0", "45.0"]
