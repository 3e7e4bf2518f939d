"""What a run is judged by: generalised zero-shot metrics for every language, their means, the worst, and intervals.

All classes compete for every text (the joint label set, Xian et al. 2017): "seen" is the accuracy on texts of classes that
the prompt was trained on, "unseen" on texts of the others, "harmonic" 2 seen unseen / (seen + unseen).
"""
from collections import Counter

import numpy as np


def harmonic_mean(a, b):
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def macro_f1(gold, predicted, C):
    """Mean F1 over the classes that occur in gold or predicted; both (N,) of 0 .. C-1."""
    pairs = np.zeros((C, C))
    np.add.at(pairs, (gold, predicted), 1)
    both = pairs.sum(0) + pairs.sum(1)                        # 2 TP + FP + FN of every class
    return float((2 * np.diag(pairs)[both > 0] / both[both > 0]).mean())


def accuracies(gold, predicted, seen, C):
    """gold, predicted: (N,) class numbers; seen: (C,) bool -> {n, seen, unseen, all, harmonic, macro_f1}.

    seen or unseen is None where the texts have no such class, and harmonic then too.
    """
    right, of_seen = gold == predicted, seen[gold]
    mean = lambda part: float(right[part].mean()) if part.any() else None  # noqa: E731
    row = {"n": len(gold), "seen": mean(of_seen), "unseen": mean(~of_seen), "all": float(right.mean())}
    row["harmonic"] = None if None in (row["seen"], row["unseen"]) else harmonic_mean(row["seen"], row["unseen"])
    return row | {"macro_f1": macro_f1(gold, predicted, C)}


def bootstrap(values, clusters, repeats=2000, seed=0):
    """95 % percentile interval of the mean of values (N,) when whole clusters are drawn again with replacement.

    clusters: (N,) anything; translations of one sentence are one cluster, because they are right or wrong together.
    """
    _, cluster = np.unique(clusters, return_inverse=True)
    total, count = np.bincount(cluster, values), np.bincount(cluster)          # one entry a cluster
    drawn = np.random.default_rng(seed).integers(len(total), size=(repeats, len(total)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def result_rows(method, seed, examples, gold, predicted, classes, seen, source):
    """One row a language, as results.json holds them. gold, predicted: (N,) class numbers; seen, source: names."""
    is_seen, langs = np.array([c in seen for c in classes]), np.array([e.lang for e in examples])
    return [{"method": method, "seed": seed, "lang": str(lang), "role": "source" if lang in source else "target"}
            | accuracies(gold[langs == lang], predicted[langs == lang], is_seen, len(classes)) for lang in np.unique(langs)]


def mean_of(rows, column):
    """Mean of one column over rows, None where no row has it."""
    values = [row[column] for row in rows if row[column] is not None]
    return float(np.mean(values)) if values else None


CELLS = [(role, column) for role in ("source", "target") for column in ("seen", "unseen", "harmonic")] + \
        [("worst", "unseen"), ("high", "all"), ("low", "all")]


def resource_class(resource):
    """{lang: amount of pretraining text} -> {lang: "high" for the upper half of them, "low" for the lower}."""
    ranked = sorted(resource, key=lambda lang: -resource[lang])
    return {lang: "high" if i < len(ranked) // 2 else "low" for i, lang in enumerate(ranked)}


def cell(rows, role, column, classes):
    """One number of one training run: the mean over some of its languages, or the worst one's. None if there is nothing."""
    if role == "worst":
        return min((row[column] for row in rows if row[column] is not None), default=None)
    return mean_of([row for row in rows if role in (row["role"], classes.get(row["lang"]))], column)


def summarise(rows, resource=None):
    """Rows of several seeds -> {method: {"target unseen": {"mean", "sd"}, ...}}, over seeds (sd None for one seed).

    resource: {lang: share of the encoder's pretraining text}, to average over high- and low-resource languages.
    """
    classes, summary = resource_class(resource or {}), {}
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [row for row in rows if row["method"] == method]
        seeds = [[row for row in of_method if row["seed"] == seed] for seed in dict.fromkeys(r["seed"] for r in of_method)]
        summary[method] = {}
        for role, column in CELLS:
            values = [cell(of_seed, role, column, classes) for of_seed in seeds]
            if None not in values:
                sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
                summary[method][f"{role} {column}"] = {"mean": float(np.mean(values)), "sd": sd}
    return summary


def by_class(rows, classes, column="all"):
    """Means over classes of languages: {class: {"languages": n, method: mean over its languages and the seeds}}.

    classes: {lang: class}, such as its script; the classes with most languages come first.
    """
    langs = Counter(classes[lang] for lang in {row["lang"] for row in rows} if lang in classes)
    methods = dict.fromkeys(row["method"] for row in rows)
    return {name: {"languages": n} | {method: mean_of([row for row in rows if row["method"] == method
                                                       and classes.get(row["lang"]) == name], column) for method in methods}
            for name, n in sorted(langs.items(), key=lambda item: (-item[1], item[0]))}


def gain(examples, gold, predicted, baseline, keep):
    """Accuracy of `predicted` minus that of `baseline` on the examples where keep (N,), and its 95 % interval.

    predicted: (S, N), one row a seed; baseline: (N,). Sentences are drawn again with all their translations and seeds.
    """
    difference = ((predicted == gold).mean(0) - (baseline == gold))[keep].astype(float)
    return float(difference.mean()), bootstrap(difference, np.array([e.id for e in examples])[keep])


def format_table(summary):
    """The table that train.py and eval.py print: methods x cells, in per cent, mean ± sd over seeds."""
    cells = [(role, column) for role, column in CELLS if any(f"{role} {column}" in of for of in summary.values())]
    head = [role if i == 0 or cells[i - 1][0] != role else "" for i, (role, _) in enumerate(cells)]
    lines = [" " * 15 + "".join(f"{name:>11}" for name in head), " " * 15 + "".join(f"{column:>11}" for _, column in cells)]
    for method, of in summary.items():
        texts = []
        for role, column in cells:
            number = of.get(f"{role} {column}")
            sd = "" if number is None or number["sd"] is None else f" ±{100 * number['sd']:.1f}"
            texts.append("" if number is None else f"{100 * number['mean']:.1f}{sd}")
        lines.append(f"{method:15}" + "".join(f"{text:>11}" for text in texts))
    return "\n".join(lines)


def format_by_class(title, table):
    """The tables that eval.py prints by classes of languages, in per cent. table: from by_class."""
    methods = [name for name in next(iter(table.values())) if name != "languages"]
    lines = [title, f"{'':15}{'languages':>11}" + "".join(f"{method:>16}" for method in methods)]
    return "\n".join(lines + [f"{name:15}{of['languages']:11}" + "".join(f"{100 * of[method]:16.1f}" for method in methods)
                              for name, of in table.items()])
