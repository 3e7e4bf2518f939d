"""The results of a run by kind of language, with intervals, as Markdown.

    python benchmarks/by_language.py runs/sib200                 # the tables
    python benchmarks/by_language.py runs/sib200 --hard runs/news --out results/sib200.md

Reads what train.py left in the run's folder: config.json and the scores of every prompt. Averages
are over languages, so that each counts the same; a method's number is the mean over its seeds ± sd.
Of two 95 % intervals the first is over sentences (drawn with all their translations), the second
over languages: what another set of texts, or of languages, would change.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import argparse
import itertools
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from minirosprompt import UserError
from minirosprompt.classifier import decide
from minirosprompt.data import load_data, load_label_words
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser
from minirosprompt.io.files import load_state, read_json, writing
from minirosprompt.io.languages import kind_of, pretraining_text, resource_level
from minirosprompt.io.runs import refuse_if_changed, sha256_of
from minirosprompt.metrics import bootstrap

METRICS = ("all", "seen", "unseen")


def settings_of_run(folder):
    """A run's config.json -> Namespace. Raises UserError if it is not one that train.py wrote."""
    path = folder / "config.json"
    settings = argparse.Namespace(**read_json(path))
    for name in ("seen", "source", "classes", "languages", "group_by", "objective", "seeds"):
        if not isinstance(getattr(settings, name, None), list):
            raise UserError(f"{path}: not of a run of train.py ({name})")
    for name in ("data", "split", "encoder"):
        if not isinstance(getattr(settings, name, None), str):
            raise UserError(f"{path}: not of a run of train.py ({name})")
    return settings


class Run:
    """A run's scores, {method: (S, N, C)} of S seeds and the N `tested` texts; and which are right.

    data: the data folder, if it lies elsewhere than in training. Raises UserError.
    """

    def __init__(self, folder, data=None):
        settings = settings_of_run(folder)
        settings.data = data or settings.data
        pool, dev, tested = load_data(settings)
        texts = [e.columns for e in pool + dev + tested]
        refuse_if_changed(folder, {"texts": sha256_of(texts)})
        classes = list(load_label_words(settings.data, settings.classes))
        labels = np.array([classes.index(e.label) for e in tested])                 # (N,)
        self.settings = settings
        self.tested = tested
        self.classes = classes
        self.langs = np.array([e.lang for e in tested])                             # (N,)
        self.ids = np.array([e.id for e in tested])                                 # (N,)
        is_seen = np.array([e.label in settings.seen for e in tested])              # (N,)
        self.of_metric = {"all": np.full(len(tested), True), "seen": is_seen, "unseen": ~is_seen}
        self.metrics = [metric for metric in METRICS if self.of_metric[metric].any()]
        paths = {"hard": [folder / "hard.pt"]}
        for objective in settings.objective:
            paths[f"soft-{objective}"] = [folder / f"soft-{objective}-{seed}" / "scores.pt"
                                          for seed in dict.fromkeys(settings.seeds)]
        self.baseline = "hard"
        self.scores = {}
        self.right = {}
        for method, of_method in paths.items():
            scores = np.stack([load_state(path).numpy() for path in of_method])     # (S, N, C)
            if scores.shape[1] != len(tested):
                raise UserError(f"{folder}: scores of {scores.shape[1]} texts, but the data have "
                                f"{len(tested)}: not those of the run")
            self.scores[method] = scores
            chosen = decide(torch.from_numpy(scores), classes).numpy()              # (S, N)
            self.right[method] = chosen == labels                                   # (S, N)

    def set_beside(self, other):
        """other: a Run. Its hard prompt is from now on the baseline. Raises UserError."""
        if [(e.lang, e.id) for e in self.tested] != [(e.lang, e.id) for e in other.tested]:
            raise UserError("--hard: that run was tested on other texts")
        template = other.settings.template
        self.baseline = "hard, `" + template.replace("{prompt}", other.settings.hard_prompt) + "`"
        # Beside the other hard prompt, in front of the soft ones.
        methods = list(self.right.items())
        self.right = dict([methods[0], (self.baseline, other.right["hard"]), *methods[1:]])

    def by_language(self, values, langs, metric):
        """values (..., N) -> means (..., L) over each language's texts of a metric."""
        keep = self.of_metric[metric]
        return np.stack([values[..., keep & (self.langs == lang)].mean(-1) for lang in langs], -1)

    def gain(self, method, langs, metric):
        """-> (points over the hard prompt, interval over sentences, interval over languages)"""
        difference = self.right[method].mean(0) - self.right[self.baseline][0]      # (N,)
        of_lang = self.by_language(difference, langs, metric)                       # (L,)
        keep = self.of_metric[metric] & np.isin(self.langs, langs)
        # SIB-200's languages have the same sentences, so the mean over texts, of which this is the
        # interval, is that over languages. Elsewhere languages with more texts weigh more in it.
        over_sentences = bootstrap(difference[keep].astype(float), self.ids[keep])
        return of_lang.mean(), over_sentences, bootstrap(of_lang, np.array(langs))


# ---- which languages -----------------------------------------------------------------------------

def kinds_of(run):
    """-> {title: {kind: its languages}}. Source languages are a kind of their own."""
    source = run.settings.source
    everything = sorted(set(run.langs))
    targets = [lang for lang in everything if lang not in source]
    level = resource_level(pretraining_text(run.settings.encoder))
    by_text = {
        "all": everything,
        "in XLM-R": [lang for lang in everything if lang in level],
        "source languages": [lang for lang in everything if lang in source],
        "target, in XLM-R": [lang for lang in targets if lang in level],
        "… with much text": [lang for lang in targets if level.get(lang) == "high"],
        "… with little": [lang for lang in targets if level.get(lang) == "low"],
        "target, not in XLM-R": [lang for lang in targets if lang not in level],
    }
    kinds = {"XLM-R's pretraining text": by_text}
    for column in ("script", "family"):
        of = {}
        for lang in everything:
            of.setdefault(kind_of(lang, column), []).append(lang)
        kinds[column] = dict(sorted(of.items(), key=lambda item: -len(item[1])))
    return kinds


# ---- Markdown ------------------------------------------------------------------------------------

def percent(values, sign=""):
    """values: (S,), one a seed -> "12.3 ±1.0"; with sign "+" "+12.3 ±1.0"."""
    text = f"{100 * np.mean(values):{sign}.1f}"
    return text + (f" ±{100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def span(interval):
    return f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def accuracy_table(run, title, kinds):
    """One row a kind of language: all / seen / unseen of every method."""
    rows = []
    for kind, langs in kinds.items():
        if not langs:
            continue
        cells = [kind, str(len(langs))]
        for right in run.right.values():
            means = [run.by_language(right, langs, metric).mean(-1) for metric in run.metrics]
            cells.append(" / ".join(map(percent, means)))
        rows.append(cells)
    return table([title, "languages", *run.right], rows)


def worst_table(run, kinds):
    """The worst language of every seed, on all classes and on unseen ones."""
    rows = []
    for kind in ("in XLM-R", "all"):
        langs = kinds[kind]
        for metric in run.metrics if langs else ():
            if metric == "seen":
                continue
            cells = [f"{kind}, {metric} classes"]
            for right in run.right.values():
                of_lang = run.by_language(right, langs, metric)                     # (S, L)
                worst = sorted({langs[i] for i in of_lang.argmin(-1)})
                cells.append(f"{percent(of_lang.min(-1))} ({', '.join(worst)})")
            rows.append(cells)
    return table(["worst language", *run.right], rows)


def gain_table(run, kinds):
    """What soft prompts gain over the baseline, a hard prompt, with both intervals."""
    rows = []
    for kind, langs in kinds.items():
        soft = [method for method in run.right if method.startswith("soft-")]
        for method in soft if langs else ():
            for metric in run.metrics:
                gain, over_sentences, over_languages = run.gain(method, langs, metric)
                rows.append([kind, metric, method, f"{100 * gain:+.1f}", span(over_sentences),
                             span(over_languages)])
    return table(["languages", "classes", "method", f"gain over {run.baseline}",
                  "95 % over sentences", "95 % over languages"], rows)


def difference_table(run, kinds):
    """Two ways to train beside each other, seed by seed: same texts, same start."""
    soft = [method for method in run.scores if method.startswith("soft-")]
    rows = []
    for first, other in itertools.combinations(soft, 2):
        for kind, langs in kinds.items():
            if not langs:
                continue
            cells = []
            for metric in run.metrics:
                a = run.by_language(run.right[first], langs, metric).mean(-1)       # (S,)
                b = run.by_language(run.right[other], langs, metric).mean(-1)       # (S,)
                cells.append(percent(b - a, "+"))
            rows.append([kind, f"{other} minus {first}", " / ".join(cells)])
    return table(["languages", "", f"points, seed by seed, {' / '.join(run.metrics)}"], rows)


def language_table(run):
    """Every language: all / seen / unseen of every method, the mean over seeds."""
    rows = []
    for lang in sorted(set(run.langs)):
        cells = [lang, kind_of(lang, "name")]
        for right in run.right.values():
            means = [run.by_language(right, [lang], metric).mean() for metric in run.metrics]
            cells.append(" / ".join(f"{100 * mean:.0f}" for mean in means))
        rows.append(cells)
    return table(["language", "", *run.right], rows)


def main():
    p = Parser(description=__doc__)
    p.add_argument("run", type=Path, help="a run's folder")
    p.add_argument("--hard", type=Path, metavar="RUN",
                   help="a run whose hard prompt stands beside it; gains are over that one")
    p.add_argument("--out", type=Path, help="Markdown file to write, with every language too")
    args = p.parse_args()
    run = Run(args.run)
    if args.hard:
        run.set_beside(Run(args.hard))
    kinds = kinds_of(run)
    by_text = kinds["XLM-R's pretraining text"]
    sections = [f"Accuracy in %, on {' / '.join(run.metrics)} classes.", worst_table(run, by_text)]
    sections[1:1] = [accuracy_table(run, title, of) for title, of in kinds.items()]
    sections.append(gain_table(run, by_text))
    if len(run.settings.objective) > 1:
        sections.append(difference_table(run, by_text))
    print("\n\n".join(sections))
    if args.out:
        sections.append(language_table(run))
        command = ["python", "benchmarks/by_language.py", *sys.argv[1:]]
        with writing(args.out) as file:
            file.write(f"# {args.run.name}, by language\n\n"
                       f"Written by `{shlex.join(command)}`."
                       "\n\n"
                       + "\n\n".join(sections) + "\n")


if __name__ == "__main__":
    cli.run(main)
