"""What a run leaves for people and scripts: the table, results.json and .csv, the picture."""
import csv

import numpy as np

from . import metrics
from .classifier import decide
from .io.files import write_json, writing
from .io.languages import kind_of, load_languages, pretraining_text, resource_level
from .io.picture import draw
from .io.runtime import peak_memory
from .io.tables import format_averages, format_gains, format_table
from .io.texts import warn_of_ties, write_predictions


def report(folder, settings, examples, classes, scores, device):
    """Prints the table; writes results.json, results.csv and figure.svg. -> the rows.

    settings: Namespace of the run; scores: {(method, seed): (N, C)}, the method "hard" is there.
    """
    seen, source = settings.seen, settings.source
    labels = np.array([classes.index(e.label) for e in examples])                   # (N,)
    predicted = {}  # {(method, seed): (N,)}
    rows = []
    for (method, seed), of_prompt in scores.items():
        warn_of_ties(of_prompt, f"{method}, seed {seed}")
        predicted[method, seed] = p = decide(of_prompt, classes).numpy()            # (N,)
        rows += metrics.result_rows(method, seed, examples, labels, p, classes, seen, source)
    # Languages with much and with little pretraining text are averaged apart.
    summary = metrics.summarise(rows, pretraining_text(settings.encoder))

    # Unseen classes in target languages: what it is all about. All texts: there may be no such.
    unseen = np.array([e.label not in seen and e.lang not in source for e in examples])
    for what, keep in (("target unseen", unseen), ("all", np.full(len(examples), True))):
        if keep.any():
            add_intervals(summary, examples, labels, predicted, what, keep)

    # Files first: a terminal that cannot show ± must not cost the results.
    written = {"settings": vars(settings), "rows": rows, "summary": summary}
    write_json(folder / "results.json", written)
    with writing(folder / "results.csv") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    write_predictions(folder / "predictions.tsv", examples, classes, predicted)
    with writing(folder / "figure.svg") as file:
        names = {lang: of["name"] for lang, of in load_languages().items()}
        file.write(draw(rows, names, 1 / len(classes)))

    langs = {e.lang for e in examples}
    print(f"\naccuracy in %, {len(classes)} classes compete "
          f"({len(set(seen) & set(classes))} seen in training), chance {100 / len(classes):.1f}; "
          f"{len(langs & set(source))} source and {len(langs - set(source))} target languages\n")
    print(format_table(summary, metrics.CELLS))
    print(format_gains(summary))
    memory = peak_memory(device)
    print(f"per language: {folder / 'results.csv'}, figure.svg; per text: predictions.tsv"
          + (f"; peak memory {memory / 1e9:.1f} GB" if memory else ""))
    return rows


def add_intervals(summary, examples, labels, predicted, what, keep):
    """Where keep (N,): `what`'s interval and gain over the hard prompt, of means over texts."""
    ids = np.array([e.id for e in examples])[keep]
    for method in summary:
        chosen = np.stack([p for (name, _), p in predicted.items() if name == method])  # (S, N)
        right = (chosen == labels).mean(0)[keep]
        low, high = metrics.bootstrap(right, ids)
        if what in summary[method]:
            summary[method][what] |= {"low": low, "high": high}
        if method != "hard":
            mean, (low, high) = metrics.gain(examples, labels, chosen, predicted["hard", 0], keep)
            summary[method][f"{what} gain"] = {"mean": mean, "low": low, "high": high,
                                               "sentences": len(set(ids))}


def report_by_kind(folder, rows, encoder):
    """Prints and writes (averages.json) the accuracy on all classes over kinds of languages."""
    level = resource_level(pretraining_text(encoder))
    langs = {row["lang"] for row in rows}
    kinds = {
        "pretraining text": {lang: level.get(lang, "none") for lang in langs},
        "script": {lang: kind_of(lang, "script") for lang in langs},
        "family": {lang: kind_of(lang, "family") for lang in langs},
    }
    averages = {}
    for name, of_langs in kinds.items():
        averages[name] = metrics.average_by(rows, of_langs)
        title = f"accuracy on all classes in %, languages by {name}"
        print("\n" + format_averages(title, averages[name]))
    write_json(folder / "averages.json", averages)
