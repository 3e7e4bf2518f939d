"""Choose a hard prompt, and how to train a soft one, on SIB-200 without a look at what is tested.

    python benchmarks/choose.py hard            # one row a hard prompt: 5 minutes
    python benchmarks/choose.py soft            # one row a way to train: 4 minutes each, or more
    python benchmarks/choose.py soft --only P16 lr   # some of the rows

Both see the four seen classes in the six source languages, and nothing else (Xian et al. 2017):
dev, and the half of train by sentence that no prompt is trained on. All seven names compete. A soft
prompt is trained on three of the four classes in three of the six languages, and judged on the
other three, the fourth class as if unseen: four such folds. What came out, and what was taken:
results/log.md. `hard` with an --encoder that has a masked-LM head: words at the mask, each prompt
as it is and under contextual calibration.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import itertools
import random
import shlex
import shutil
from pathlib import Path

import numpy as np
import torch
from ablations import run
from suites import SEEN, SOURCE

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, decide, load_encoder
from minirosprompt.data import load_label_words, load_split
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, whole, whole_path
from minirosprompt.io.files import listed, read_json, write_row, writing
from minirosprompt.io.settings import default_settings

HALVES = [["eng_Latn", "spa_Latn", "zho_Hans"], ["deu_Latn", "rus_Cyrl", "arb_Arab"]]

BEFORE = "{prompt} {text}"
BEHIND = "{text} {prompt}"
HARD = [(BEFORE, words) for words in (
    "query:", "", "passage:", "topic:", "news:", "query: topic:", "query: news:",
    "query: news article:", "query: news about", "query: headline:", "query: category",
    "query: Wikipedia:", "query: this text is about", "query: query: query: query:")]
HARD += [(BEHIND, words) for words in ("topic", "news", "category", "subject")]
HARD += [("query: " + BEHIND, words) for words in ("topic", "news", "category")]
# For an encoder with a masked-LM head, whose verbalizer reads words at the mask.
HARD_AT_MASK = [("{prompt} {mask} {text}", words) for words in (
    "Topic:", "Category:", "This is about", "In this article about", "A text about", "")]
HARD_AT_MASK += [("{prompt} {mask} . {text}", words) for words in (
    "Topic:", "This is about", "This is a text about", "News about")]
HARD_AT_MASK += [("{prompt} {mask} : {text}", words) for words in (
    "This is about", "In this article about", "News about", "")]
HARD_AT_MASK += [("{mask} {prompt} : {text}", "news")]
HARD_AT_MASK += [("{text} {prompt} {mask}", words) for words in ("Topic:", "Category:")]
HARD_AT_MASK += [("{text} {prompt} {mask} .", words) for words in (
    "This is about", "This text is about")]
WORDS = {  # what the label words are: (languages, so many of each)
    "one": (["eng_Latn"], 1), "two": (["eng_Latn"], 2), "two of six": (SOURCE, 2),
    "two of all": (["all"], 2),
}
SOFT = {  # row: flags of train.py
    "default": "",
    "P4": "--prompt-length 4",
    "P16": "--prompt-length 16",
    "mean": "--combine mean",
    "steps": "--steps 40",
    "lr": "--lr 0.003",
    "tau": "--temperature 0.1",
    "words": f"--label-languages {','.join(SOURCE)}",
    "behind": "--template '{text} {prompt}' --hard-prompt news --prompt-length 1",
    "both": "--template 'query: {text} {prompt}' --hard-prompt news --prompt-length 2",
    "dro": "--objective group-dro",
}


def judged_on(data):
    """-> (train rows to draw from, rows to judge by): Examples of all classes, source languages."""
    train = [e for e in load_split(data, "train") if e.lang in SOURCE]
    dev = [e for e in load_split(data, "dev") if e.lang in SOURCE]
    ids = sorted({e.id for e in train if e.label in SEEN})
    there = {e.label for e in train} | {e.lang for e in train}
    missing = [name for name in (*SEEN, *SOURCE) if name not in there]
    if missing:  # other data than SIB-200, whose classes and languages these are
        raise UserError(f"{data}: its train split has no text of {listed(missing)}: choose.py is "
                        "made for SIB-200")
    # By sentence, so that no translation of one that is judged by is trained on.
    drawn = set(random.Random(0).sample(ids, len(ids) // 2))
    judge = [e for e in train if e.id not in drawn] + dev
    return [e for e in train if e.id in drawn], [e for e in judge if e.label in SEEN]


# ---- hard prompts --------------------------------------------------------------------------------

@torch.inference_mode()
def hard(args):
    _, judge = judged_on(args.data)
    encoder, tokenizer = load_encoder(args.encoder, dtype=torch.bfloat16)
    classes = list(load_label_words(args.data))
    labels = torch.tensor([classes.index(e.label) for e in judge])                  # (N,)
    columns = list(itertools.product(WORDS, ("mean", "max")))
    print(f"accuracy in %, {len(judge)} texts of {len(SEEN)} seen classes in {len(SOURCE)} "
          f"languages; {len(classes)} names compete")
    print("| hard prompt | " + " | ".join(f"{words}, {how}" for words, how in columns) + " |")
    print("|---" * (1 + len(columns)) + "|")
    prompts, calibrations = HARD, ("none",)
    if encoder.head:
        # What a mask says before it has read a text is no evidence; a cosine has little of that.
        prompts, calibrations = HARD_AT_MASK, ("none", "contextual")
    for template, words in prompts:
        settings = default_settings(template=template, hard_prompt=words)
        if not words:
            settings.template = " ".join(template.replace("{prompt}", "").split())
        shown = settings.template.replace("{prompt}", words)
        h = None  # is the same for all columns
        for calibration in calibrations:
            settings.calibration = calibration
            cells = []
            for which, combine in columns:
                settings.combine = combine
                label_words = load_label_words(args.data, classes, *WORDS[which])
                classifier = Classifier(encoder, tokenizer, label_words, settings).calibrate()
                if h is None:
                    h = classifier.model.read(classifier.encode(judge))             # (N, D)
                classifier.verbalizer.read()
                scores = classifier.verbalizer.scores(h) - classifier.offset        # (N, C)
                right = decide(scores, classes) == labels                           # (N,)
                cells.append(f"{100 * right.float().mean():.1f}")
            calibrated = "" if calibration == "none" else ", calibrated"
            print(f"| `{shown}`{calibrated} | " + " | ".join(cells) + " |", flush=True)


# ---- soft prompts --------------------------------------------------------------------------------

def test_of(judge):
    """Every other one of the sentences, with all its translations."""
    ids = {e.id for e in judge[::2]}
    return [e for e in judge if e.id in ids]


def write_folds(data, folder):
    """Writes a data folder whose train, dev and test are rows of train and dev alone."""
    train, judge = judged_on(data)
    if (folder / "labels.json").exists():
        there = sorted((e.id, e.lang) for e in load_split(folder, "test"))
        if there != sorted((e.id, e.lang) for e in test_of(judge)):
            raise UserError(f"{folder}: made from other data than {data}; move it away")
        return
    dev = [e for e in load_split(data, "dev") if e.lang in SOURCE]  # unseen ones: names only
    test = test_of(judge)
    for split, examples in (("train", train + [e for e in dev if e.label not in SEEN]),
                            ("dev", dev), ("test", test)):
        with writing(folder / f"{split}.tsv") as file:
            write_row(file, ("id", "text", "label", "lang"))
            for e in examples:
                write_row(file, (e.id, e.text, e.label, e.lang))
    shutil.copy(Path(data) / "labels.json", folder / "labels.json")


def soft(args):
    home = Path("runs") / "choose"
    write_folds(args.data, home / "data")
    print("accuracy in %; mean over four folds and the seeds, in languages not trained on; hard: "
          "the harmonic mean of the hard prompt under the row's flags")
    print("| row | seen | as if unseen | harmonic mean | ± sd of the folds | hard |")
    print("|---|---|---|---|---|---|")
    for row in args.only or SOFT:
        found = {}  # hard, soft: [seen, unseen, harmonic mean] of every fold
        for fold, held_out in enumerate(SEEN):
            results = run_fold(args, home, row, fold, held_out)
            for method, cells in results["summary"].items():
                numbers = [cells[f"target {of}"]["mean"] for of in ("seen", "unseen", "harmonic")]
                found.setdefault(method.split("-")[0], []).append(numbers)
        mean = 100 * np.mean(found["soft"], axis=0)                                 # (3,)
        sd = 100 * np.std([numbers[2] for numbers in found["soft"]], ddof=1)
        hard_mean = 100 * np.mean([numbers[2] for numbers in found["hard"]])
        cells = [f"{row}: `{SOFT[row]}`" if SOFT[row] else row]
        cells += [f"{number:.1f}" for number in (*mean, sd, hard_mean)]
        print("| " + " | ".join(cells) + " |", flush=True)


def run_fold(args, home, row, fold, held_out):
    """-> results.json of train.py with the row's flags on one fold; run if it was not yet."""
    name = f"choose/{row}-{fold}"
    results = home / f"{row}-{fold}" / "results.json"
    if not results.exists():
        flags = ["--resume", f"runs/{name}"]
        if not (results.parent / "config.json").exists():
            seen = [label for label in SEEN if label != held_out]
            flags = ["--name", name, "--encoder", args.encoder, "--data", str(home / "data"),
                     "--seen", ",".join(seen), "--source", ",".join(HALVES[fold % 2]),
                     "--languages", ",".join(HALVES[1 - fold % 2]), "--shots", "16",
                     "--objective", "erm", "--seeds", *map(str, args.seeds),
                     "--dtype", "bfloat16", *shlex.split(SOFT[row])]
        run(["train.py", *flags])
    found = read_json(results)
    settings = found["settings"]
    if (settings["encoder"], settings["seeds"]) != (whole_path(args.encoder), args.seeds):
        raise UserError(f"{results}: run with another --encoder or other --seeds; move it away to "
                        "run the row again")
    return found


def main():
    p = Parser(description=__doc__)
    p.add_argument("what", choices=["hard", "soft"])
    p.add_argument("--data", default="data/sib200", help="(default: data/sib200)")
    p.add_argument("--encoder", default="multilingual-e5-small",
                   help="(default: multilingual-e5-small)")
    p.add_argument("--only", nargs="+", choices=list(SOFT), help="rows of soft (default: all)")
    p.add_argument("--seeds", type=whole, nargs="+", default=[0, 1], help="(default: 0 1)")
    args = p.parse_args()
    (hard if args.what == "hard" else soft)(args)


if __name__ == "__main__":
    cli.run(main)
