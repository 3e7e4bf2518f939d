"""What a run is judged by: generalised zero-shot metrics for every language, and their means.

All classes compete for every text (the joint label set, Xian et al. 2017): "seen" is the accuracy
on texts of classes that the prompt was trained on, "unseen" on texts of the others, "harmonic"
2 seen unseen / (seen + unseen).
"""
from collections import Counter

import numpy as np

from .io.languages import resource_level

# What the table shows: which languages, and which metric of them.
CELLS = [
    ("source", "seen"), ("source", "unseen"), ("source", "harmonic"),
    ("target", "seen"), ("target", "unseen"), ("target", "harmonic"),
    ("worst", "unseen"),            # the worst language
    ("high", "all"), ("low", "all"),  # languages with much and with little pretraining text
]


def harmonic_mean(a, b):
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def macro_f1(labels, predicted, C):
    """Mean F1 over the classes that occur in labels or predicted; both (N,) of 0 .. C-1."""
    # A confusion matrix: labels down, predictions across.
    pairs = np.zeros((C, C))
    np.add.at(pairs, (labels, predicted), 1)
    both = pairs.sum(0) + pairs.sum(1)                        # (C,) 2 TP + FP + FN
    there = both > 0
    return float((2 * np.diag(pairs)[there] / both[there]).mean())


def accuracies(labels, predicted, seen, C):
    """labels, predicted: (N,) class numbers; seen: (C,) bool -> a dict with the metrics.

    seen or unseen is None where the texts have no such class, and harmonic then too.
    """
    # All classes compete for every text; only what the accuracy is taken over differs.
    right = labels == predicted                               # (N,)
    of_seen = seen[labels]                                    # (N,)
    row = {"n": len(labels), "seen": None, "unseen": None, "all": float(right.mean()),
           "harmonic": None, "macro_f1": macro_f1(labels, predicted, C)}
    if of_seen.any():
        row["seen"] = float(right[of_seen].mean())
    if not of_seen.all():
        row["unseen"] = float(right[~of_seen].mean())
    if row["seen"] is not None and row["unseen"] is not None:
        row["harmonic"] = harmonic_mean(row["seen"], row["unseen"])
    return row


def result_rows(method, seed, examples, labels, predicted, classes, seen, source):
    """One row a language, as results.json holds them.

    labels, predicted: (N,) class numbers; seen, source: names.
    """
    is_seen = np.array([c in seen for c in classes])          # (C,)
    langs = np.array([e.lang for e in examples])              # (N,)
    rows = []
    for lang in np.unique(langs):
        of_lang = langs == lang
        role = "source" if lang in source else "target"
        row = {"method": method, "seed": seed, "lang": str(lang), "role": role}
        row |= accuracies(labels[of_lang], predicted[of_lang], is_seen, len(classes))
        rows.append(row)
    return rows


# ---- means over languages and seeds --------------------------------------------------------------

def mean_of(rows, metric):
    """Mean of one metric over rows, None where no row has it."""
    values = [row[metric] for row in rows if row[metric] is not None]
    return float(np.mean(values)) if values else None


def mean_or_worst(rows, which, metric, level):
    """One number of one training run: a metric's mean over some of its languages, or the worst.

    which: as in CELLS; level: {language: "high" or "low"}. None if there is nothing.
    """
    if which == "worst":
        return min((row[metric] for row in rows if row[metric] is not None), default=None)
    chosen = [row for row in rows if which in (row["role"], level.get(row["lang"]))]
    return mean_of(chosen, metric)


def summarise(rows, amount=None):
    """Rows of several seeds -> {method: {"target unseen": {"mean", "sd"}, ...}}, over seeds.

    sd is None for one seed. amount: {language: amount of pretraining text}.
    """
    level = resource_level(amount or {})
    summary = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        seeds = {}
        for row in rows:
            if row["method"] == method:
                seeds.setdefault(row["seed"], []).append(row)
        summary[method] = {}
        for which, metric in CELLS:
            # First over the languages of a seed, then over seeds: sd is what a rerun would vary.
            values = [mean_or_worst(of_seed, which, metric, level) for of_seed in seeds.values()]
            if None not in values:
                sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
                summary[method][f"{which} {metric}"] = {"mean": float(np.mean(values)), "sd": sd}
    return summary


def average_by(rows, kind_of, metric="all"):
    """Means over kinds of languages, such as scripts; the kinds with most languages first.

    kind_of: {language: kind}. -> {kind: {"languages": n, method: mean over them and the seeds}}
    """
    langs = {row["lang"] for row in rows if row["lang"] in kind_of}
    count = Counter(kind_of[lang] for lang in langs)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    averages = {}
    for kind in sorted(count, key=lambda kind: (-count[kind], kind)):
        averages[kind] = {"languages": count[kind]}
        of_kind = [row for row in rows if kind_of.get(row["lang"]) == kind]
        for method in methods:
            of_method = [row for row in of_kind if row["method"] == method]
            averages[kind][method] = mean_of(of_method, metric)
    return averages


# ---- intervals -----------------------------------------------------------------------------------

def bootstrap(values, clusters, repeats=2000, seed=0):
    """95 % percentile interval of the mean of values (N,): clusters are drawn with replacement.

    clusters: (N,) anything; translations of one sentence are one cluster, because they are right
    or wrong together.
    """
    # Each cluster as a sum and a count, so that drawing them needs no list of texts.
    _, cluster = np.unique(clusters, return_inverse=True)
    total = np.bincount(cluster, values)                      # (clusters,)
    count = np.bincount(cluster)                              # (clusters,)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(total), size=(repeats, len(total)))
    means = total[drawn].sum(1) / count[drawn].sum(1)         # (repeats,)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def gain(examples, labels, predicted, baseline, keep):
    """Accuracy of `predicted` minus that of `baseline` where keep (N,), and its 95 % interval.

    predicted: (S, N), one row a seed; baseline: (N,). Sentences are drawn again with all their
    translations and seeds.
    """
    # Paired: both methods on the same texts, so what is hard for both cancels.
    difference = (predicted == labels).mean(0) - (baseline == labels)       # (N,)
    difference = difference[keep].astype(float)
    ids = np.array([e.id for e in examples])[keep]
    return float(difference.mean()), bootstrap(difference, ids)
