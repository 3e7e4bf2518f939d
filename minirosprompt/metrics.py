"""What a run is judged by: generalised zero-shot metrics for every language, their means, the worst, and intervals.

All classes compete for every text (the joint label set, Xian et al. 2017): "seen" is the accuracy on texts of classes that
the prompt was trained on, "unseen" on texts of the others, "harmonic" 2 seen unseen / (seen + unseen).
"""
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
        [("worst language", "unseen"), ("worst language", "harmonic")]


def cell(rows, role, column):
    """One number of one training run: the mean over its source or target languages, or its worst language."""
    if role == "worst language":
        return min((row[column] for row in rows if row[column] is not None), default=None)
    return mean_of([row for row in rows if row["role"] == role], column)


def summarise(rows, resource=None):
    """Rows of several seeds -> {method: {"role column": {"mean", "sd"}}}: mean and sd over seeds (sd None for one seed).

    resource: {lang: share of the encoder's pretraining text}; if given, the languages' upper and lower half are averaged too.
    """
    summary = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        seeds = [[r for r in rows if r["method"] == method and r["seed"] == seed]
                 for seed in dict.fromkeys(r["seed"] for r in rows if r["method"] == method)]
        values = {f"{role} {column}": [cell(of_seed, role, column) for of_seed in seeds] for role, column in CELLS}
        if resource:
            ranked = sorted(resource, key=resource.get, reverse=True)
            for name, half in (("high-resource", ranked[:len(ranked) // 2]), ("low-resource", ranked[len(ranked) // 2:])):
                values[f"{name} all"] = [mean_of([r for r in of_seed if r["lang"] in half], "all") for of_seed in seeds]
        summary[method] = {name: {"mean": float(np.mean(vs)), "sd": float(np.std(vs, ddof=1)) if len(vs) > 1 else None}
                           for name, vs in values.items() if None not in vs}
    return summary


def gain(examples, gold, predicted, baseline, keep):
    """Accuracy of `predicted` minus that of `baseline` on the examples where keep (N,), and its 95 % interval.

    predicted: (S, N), one row a seed; baseline: (N,). Sentences are drawn again with all their translations and seeds.
    """
    difference = ((predicted == gold).mean(0) - (baseline == gold))[keep].astype(float)
    return float(difference.mean()), bootstrap(difference, np.array([e.id for e in examples])[keep])


def format_table(summary):
    """The table that train.py and eval.py print: methods x cells, in per cent, mean ± sd over seeds."""
    present = [(role, column) for role, column in CELLS if any(f"{role} {column}" in of for of in summary.values())]
    lines = [" " * 16 + "".join(f"{role if i == 0 or present[i - 1][0] != role else '':>15}" for i, (role, _) in enumerate(present)),
             f"{'':16}" + "".join(f"{column:>15}" for _, column in present)]
    for method, of in summary.items():
        line = f"{method:16}"
        for role, column in present:
            number = of.get(f"{role} {column}")
            text = "" if number is None else f"{100 * number['mean']:.1f}" + (
                f" ±{100 * number['sd']:4.1f}" if number["sd"] is not None else "")
            line += f"{text:>15}"
        lines.append(line)
    return "\n".join(lines)
