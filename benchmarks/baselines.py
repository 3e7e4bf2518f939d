"""What a user would take instead: with the same weights, on the same texts and the same two cores.

    pip install -r benchmarks/requirements.txt
    python benchmarks/baselines.py                             # SIB-200, 30 languages
    python benchmarks/baselines.py --run runs/sib200           # and a run's prompts beside it
    python benchmarks/baselines.py --only cosine --limit 10    # some rows, ten texts a language
    python benchmarks/baselines.py --cost                      # what scoring takes, nothing else

    cosine    sentence-transformers: cosine of a text's vector and its label words'. A hard prompt
              is the same computation, so ours, beside it, may differ by 1e-4 at most
    setfit    SetFit's recipe for no labelled text, by its own library with its defaults: eight
              sentences "This sentence is {class}" a class, the whole encoder fine-tuned on pairs
              of them, a logistic regression on top. As this encoder wants it, "query: " stands
              before every text, and vectors have length 1
    logistic  for the seen classes alone, as it knows no other: scikit-learn's regression on
              sentence-transformers' vectors of the few texts that train.py trains on. Then the same
              with labelled texts of the unseen classes too, which nothing else here is given: an
              upper line, no rival
    run       the hard and the soft prompts of --run, trained on the same texts by train.py

The regression's C is the best of four on dev texts of the same classes in the source languages, by
which train.py selects its prompts too. Minutes: training, selecting and scoring, without loading.
Accuracy in %, means over target languages; of several seeds mean ± sd.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import argparse
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from by_language import Run, percent, table
from suites import SAMPLE, SEEN, SOURCE

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, decide, load_encoder
from minirosprompt.data import few_shot, load_data, load_label_words, load_split
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, names, positive, whole
from minirosprompt.io.runtime import peak_memory
from minirosprompt.io.settings import default_settings
from minirosprompt.io.weights import encoder_folder

PREFIXES = ("query:", "query: news:")
WORDS = {"one word": (1, "max"), "two, mean": (2, "mean"), "two, best": (2, "max")}
HEAD = ["", "classes that compete", "all", "seen", "unseen", "worst language", "minutes"]


def pick(examples, languages, limit):
    """-> Examples of these languages; of each `limit` from all over the file, or all (None)."""
    picked = []
    for lang in languages:
        of_lang = [e for e in examples if e.lang == lang]
        step = max(1, len(of_lang) // (limit or len(of_lang)))
        picked += of_lang[::step][:limit]
    return picked


class Task:
    """What is tested, what there is to learn from, and how a row of the table comes about."""

    def __init__(self, args):
        settings = default_settings(data=args.data, source=args.source, languages=args.languages,
                                    split="test", group_by=["lang"])
        self.pool, dev, tested = load_data(settings)  # the first two: source languages
        self.dev = pick(dev, args.source, args.limit)
        self.tested = pick(tested, args.languages, args.limit)
        self.texts = [e.text for e in self.tested]
        self.classes = settings.classes
        self.seen = args.seen
        self.targets = [lang for lang in args.languages if lang not in args.source]
        if not self.targets or set(args.seen) - set(self.classes):
            raise UserError("--languages must hold a target language, --seen classes of the data")
        self.begun = False  # is the last that was printed a row of the table?

    def numbers(self, examples):
        """-> (N,) the number of each one's class"""
        return np.array([self.classes.index(e.label) for e in examples])

    def print_row(self, name, scores, seconds=None, alone=False):
        """scores: a (N, C) for each of S seeds; alone: only seen classes compete and are tested."""
        is_seen = np.isin(self.classes, self.seen)                                  # (C,)
        labels = self.numbers(self.tested)                                          # (N,)
        scores = np.where(is_seen | (not alone), scores, -np.inf)                   # (S, N, C)
        right = decide(torch.from_numpy(scores), self.classes).numpy() == labels    # (S, N)
        langs = np.array([e.lang for e in self.tested])                             # (N,)
        of_seen = is_seen[labels]                                                   # (N,)
        of = {"all": of_seen | True, "seen": of_seen, "unseen": ~of_seen}
        for metric, keep in of.items():
            of_lang = [right[:, keep & (langs == lang)].mean(1) for lang in self.targets]
            of[metric] = np.stack(of_lang)                                          # (L, S)
        cells = ["–" if alone and metric != "seen" else percent(of[metric].mean(0))
                 for metric in of]
        cells.append(percent(of["seen" if alone else "all"].min(0)))
        cells.append("–" if seconds is None else f"{seconds / 60:.1f}")
        if not self.begun:
            print("\n" + table(HEAD, []))
            self.begun = True
        compete = f"{len(self.seen)} seen" if alone else f"all {len(self.classes)}"
        print("| " + " | ".join([name, compete, *cells]) + " |", flush=True)


# ---- sentence-transformers -----------------------------------------------------------------------

def sentence_transformer(encoder, dtype=torch.float32):
    """-> its model. It reads our folder as it is, and pools by the mean, as e5 wants it."""
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(str(encoder_folder(encoder)), device="cpu",
                                model_kwargs={"dtype": dtype})
    model.max_seq_length = model[0].auto_model.config.max_position_embeddings - 2
    return model


class Reader:
    """Reads texts behind a prefix -> vectors (N, D) of length 1.

    What was read is kept; `seconds` grows by what reading it took, kept or not.
    """

    def __init__(self, encoder):
        self.encoder = encoder
        self.kept = {}
        self.seconds = 0.0

    @cached_property
    def model(self):
        return sentence_transformer(self.encoder)

    def __call__(self, prefix, texts):
        key = (prefix, *texts)
        if key not in self.kept:
            model = self.model  # loaded before the clock starts
            start = time.perf_counter()
            vectors = model.encode([f"{prefix} {text}" for text in texts],
                                   normalize_embeddings=True, show_progress_bar=False)
            self.kept[key] = vectors, time.perf_counter() - start
        vectors, seconds = self.kept[key]
        self.seconds += seconds
        return vectors


def cosine_scores(x, words, combine):
    """x: (N, D), words: (W, D) for each of C classes; rows have length 1 -> cosines (N, C)"""
    if combine == "max":
        return np.stack([(x @ w.T).max(1) for w in words], 1)
    means = np.stack([w.mean(0) for w in words])                                    # (C, D)
    return x @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T


def cosine_rows(args, task, read):
    encoder, tokenizer = load_encoder(args.encoder)
    differ = []
    for prefix in PREFIXES:
        for called, (n, combine) in WORDS.items():
            label_words = load_label_words(args.data, task.classes, ["eng_Latn"], n)
            read.seconds = 0.0
            x = read(prefix, task.texts)                                            # (N, D)
            words = [read(prefix, of_class) for of_class in label_words.values()]
            scores = cosine_scores(x, words, combine)                               # (N, C)
            task.print_row(f"sentence-transformers, `{prefix}`, {called}", [scores], read.seconds)

        # Ours, with the last of these settings.
        settings = default_settings(verbalizer="states", hard_prompt=prefix, combine=combine)
        classifier = Classifier(encoder, tokenizer, label_words, settings)
        start = time.perf_counter()
        with torch.inference_mode():
            sequences = classifier.encode(task.tested)
            h = classifier.model.read(sequences)                                    # (N, D)
            classifier.verbalizer.read()
            scores = classifier.verbalizer.scores(h).numpy()                        # (N, C)
        task.print_row(f"ours, `{prefix}`, {called}", [scores], time.perf_counter() - start)

        # Their tokenizer is another implementation, which cuts a few texts otherwise.
        ids = read.model.tokenizer([f"{prefix} {text}" for text in task.texts])["input_ids"]
        same = [ours == theirs for ours, theirs in zip(sequences, ids)]             # N
        far = np.abs(F.normalize(h, dim=1).numpy() - x)[same].max()
        differ.append(f"`{prefix}` {far:.0e} ({same.count(False)} texts left out)")
        if far > 1e-4:
            raise UserError(f"ours and sentence-transformers' vectors differ by {far:.0e}")
    print(f"\nLargest difference between our vectors and theirs: {', '.join(differ)}. Left out are "
          "texts that their tokenizer cuts otherwise.", flush=True)
    task.begun = False


# ---- SetFit --------------------------------------------------------------------------------------

def setfit_rows(args, task, _):
    import setfit
    from sklearn.linear_model import LogisticRegression
    found, seconds = [], []
    for seed in args.seeds:
        data = setfit.get_templated_dataset(
            candidate_labels=list(task.classes), template="query: This sentence is {}",
            sample_size=8)
        model = setfit.SetFitModel(sentence_transformer(args.encoder), LogisticRegression(),
                                   normalize_embeddings=True)
        start = time.perf_counter()
        # What it prints and saves would else stand in our table and in the user's folder.
        with tempfile.TemporaryDirectory() as aside, contextlib.redirect_stdout(sys.stderr):
            arguments = setfit.TrainingArguments(aside, seed=seed, save_strategy="no",
                                                 report_to="none")
            setfit.Trainer(model, arguments, data).train()
            texts = [f"query: {text}" for text in task.texts]
            found.append(model.predict_proba(texts, as_numpy=True))                 # (N, C)
        seconds.append(time.perf_counter() - start)
    task.print_row("SetFit, names", found, np.mean(seconds))


# ---- logistic regression -------------------------------------------------------------------------

def fit_logistic(x, y, dev_x, dev_y):
    """x: (n, D), y: (n,) -> scikit-learn's model with the best C on dev; of equals the smallest."""
    from sklearn.linear_model import LogisticRegression
    models = [LogisticRegression(C=C, max_iter=1000).fit(x, y) for C in (1, 10, 100, 1000)]
    return max(models, key=lambda model: model.score(dev_x, dev_y))


def logistic_rows(args, task, read):
    for classes, prefix in itertools.product((task.seen, task.classes), PREFIXES):
        dev = [e for e in task.dev if e.label in classes]
        found, seconds = [], []
        for seed in args.seeds:
            shots = few_shot(task.pool, classes, args.source, args.shots, seed)
            read.seconds = 0.0
            x, dev_x, test_x = [read(prefix, [e.text for e in of])
                                for of in (shots, dev, task.tested)]
            start = time.perf_counter()
            model = fit_logistic(x, task.numbers(shots), dev_x, task.numbers(dev))
            scores = np.full((len(test_x), len(task.classes)), -np.inf)             # (N, C)
            scores[:, model.classes_] = model.predict_log_proba(test_x)
            found.append(scores)
            seconds.append(read.seconds + time.perf_counter() - start)
        alone = classes == task.seen
        learnt = "seen" if alone else "all"
        task.print_row(f"logistic regression, trained on {learnt} classes, `{prefix}`", found,
                       np.mean(seconds), alone)


# ---- a run of train.py ---------------------------------------------------------------------------

def run_rows(args, task, _):
    if args.run is None:
        raise UserError("--only run: of which run? See --run")
    run = Run(args.run, args.data)
    settings = run.settings
    if (set(settings.seen), set(settings.source), settings.shots) != \
            (set(args.seen), set(args.source), [args.shots]):
        raise UserError(f"{args.run}: other --seen, --source or --shots than here")
    row = {(e.lang, e.id): n for n, e in enumerate(run.tested)}
    rows = [row.get((e.lang, e.id)) for e in task.tested]
    if None in rows:
        raise UserError(f"{args.run}: it has not been tested on all of these texts")
    columns = [run.classes.index(label) for label in task.classes]
    for alone, (method, scores) in itertools.product((False, True), run.scores.items()):
        name = f"soft prompt, {method.removeprefix('soft-')}"
        if method == "hard":
            name = f"hard prompt `{settings.hard_prompt}`"
        task.print_row(f"ours, {name}", scores[:, rows][:, :, columns], alone=alone)


# ---- what scoring takes --------------------------------------------------------------------------

def cost(args):
    """Each in a process of its own, for its peak memory; in turn, three times."""
    found = {}
    kinds = list(itertools.product(("ours", "sentence-transformers"), ("float32", "bfloat16")))
    for kind in kinds * 3:
        command = [sys.executable, __file__, *sys.argv[1:], "--cost-of", *kind]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise UserError(f"scoring with {' in '.join(kind)} has failed")
        found.setdefault(", ".join(kind), []).append([float(x) for x in done.stdout.split()[-3:]])
    print(table(["", "texts", "seconds", "texts a second", "peak memory, GB"], []))
    for name, of_kind in found.items():
        texts, seconds, memory = np.median(of_kind, axis=0)
        print(f"| {name} | {texts:.0f} | {seconds:.1f} | {texts / seconds:.0f} | "
              f"{memory / 1e9:.2f} |")


def cost_of(args):
    """What a process of `cost` does, and all it does. Prints texts, seconds, bytes."""
    name, dtype = args.cost_of[0], getattr(torch, args.cost_of[1])
    tested = pick(load_split(args.data, "test"), args.languages, args.limit)
    label_words = load_label_words(args.data, None, ["eng_Latn"], 2)
    if name == "ours":
        settings = default_settings(verbalizer="states", hard_prompt="query:", combine="max")
        score = Classifier(*load_encoder(args.encoder, dtype=dtype), label_words, settings).score
    else:
        read = Reader(args.encoder)
        read.model = sentence_transformer(args.encoder, dtype)

        def score(examples):
            words = [read("query:", of_class) for of_class in label_words.values()]
            return cosine_scores(read("query:", [e.text for e in examples]), words, "max")

    score(tested[:32])  # whatever is done once only is not counted
    start = time.perf_counter()
    score(tested)
    print(len(tested), time.perf_counter() - start, peak_memory(torch.device("cpu")))


ROWS = {"cosine": cosine_rows, "setfit": setfit_rows, "logistic": logistic_rows, "run": run_rows}


def main():
    p = Parser(description=__doc__)
    p.add_argument("--data", default="data/sib200", help="(default: data/sib200)")
    p.add_argument("--encoder", default="multilingual-e5-small", help="(default: %(default)s)")
    p.add_argument("--only", nargs="+", choices=ROWS, help="rows (default: all)")
    p.add_argument("--run", type=Path, help="a run of train.py, for the rows of that name")
    p.add_argument("--seen", type=names, default=SEEN, help="(default: SIB-200's four)")
    p.add_argument("--source", type=names, default=SOURCE, help="(default: six languages)")
    p.add_argument("--languages", type=names, default=[*SAMPLE.split(","), *SOURCE],
                   help="that are tested (default: 24 target languages and the six)")
    p.add_argument("--shots", type=positive, default=16, help="(default: 16)")
    p.add_argument("--seeds", type=whole, nargs="+", default=list(range(5)), help="(default: five)")
    p.add_argument("--limit", type=positive, help="texts a language (default: all)")
    p.add_argument("--threads", type=positive, default=2, help="(default: 2)")
    p.add_argument("--cost", action="store_true", help="seconds and memory of scoring alone")
    p.add_argument("--cost-of", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    if args.cost_of or args.cost:
        return cost_of(args) if args.cost_of else cost(args)
    task, read = Task(args), Reader(args.encoder)
    for name in args.only or ROWS:
        if args.only or name != "run" or args.run:
            ROWS[name](args, task, read)
    print(f"\nPeak memory of all this: {peak_memory(torch.device('cpu')) / 1e9:.1f} GB.")


if __name__ == "__main__":
    cli.run(main)
