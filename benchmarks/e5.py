"""multilingual-e5-small beside sentence-transformers; and two training runs at once.

    pip install -r benchmarks/requirements.txt
    python benchmarks/e5.py                            # SIB-200, 1,500 texts in 30 languages
    python benchmarks/e5.py --only vectors --limit 2   # 60 texts: are the vectors the same?
    python benchmarks/e5.py --only two                 # needs neither SIB-200 nor a network

    vectors   the same weights and texts to vectors of length 1, in the order given and sorted by
              length: seconds and peak memory, each in a process of its own, in turn; float32 and
              bfloat16. In float32 ours and theirs may differ by 1e-4 at most
    two       train.py with pocket, alone and two at once: seconds until all have ended, imports
              included. 2.0 would be two one after the other

Both sort texts by length themselves, so the order ought to make no difference. Left out of the
comparison, not of the times, are texts that their tokenizer cuts otherwise. Medians. What scoring
with label words costs: baselines.py --cost.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from baselines import pick, sentence_transformer
from by_language import table
from suites import SAMPLE, SOURCE

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example, load_split
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, names, positive
from minirosprompt.io.runtime import peak_memory
from minirosprompt.io.settings import default_settings

TRAIN = Path(__file__).resolve().parent.parent / "train.py"
NAMES = ("ours", "sentence-transformers")
ORDERS = ("as given", "by length")


# ---- vectors -------------------------------------------------------------------------------------

def vectors_of(args):
    """What a process of vector_rows does, and all it does. Prints texts, seconds, bytes."""
    name, dtype, order, path = args.vectors_of
    texts = [e.text for e in pick(load_split(args.data, "test"), args.languages, args.limit)]
    if order == "by length":
        texts.sort(key=len)
    if name == "ours":
        encoder, tokenizer = load_encoder(args.encoder, dtype=getattr(torch, dtype))
        settings = default_settings(verbalizer="states", hard_prompt="query:")
        # Its classes are never asked for.
        classifier = Classifier(encoder, tokenizer, {"a": ["a"], "b": ["b"]}, settings)

        @torch.inference_mode()
        def encode(texts):
            sequences = classifier.encode([Example(text) for text in texts])
            return F.normalize(classifier.model.read(sequences), dim=1).numpy()     # (N, D)

        ids = classifier.encode([Example(text) for text in texts])
    else:
        model = sentence_transformer(args.encoder, getattr(torch, dtype))
        ids = model.tokenizer([f"query: {text}" for text in texts])["input_ids"]

        def encode(texts):
            return model.encode([f"query: {text}" for text in texts], batch_size=32,
                                normalize_embeddings=True, show_progress_bar=False)  # (N, D)

    encode(texts[:32])  # whatever is done once only is not counted
    start = time.perf_counter()
    vectors = encode(texts)
    seconds = time.perf_counter() - start
    np.savez(path, vectors=vectors, ids=[" ".join(map(str, of_text)) for of_text in ids])
    print(len(texts), seconds, peak_memory(torch.device("cpu")))


def vector_rows(args):
    measured, files = {}, {}
    kinds = list(itertools.product(args.dtypes, ORDERS, NAMES))
    with tempfile.TemporaryDirectory() as folder:
        for dtype, order, name in kinds * args.repeats:
            path = Path(folder) / f"{name}, {dtype}, {order}.npz"
            command = [sys.executable, __file__, *sys.argv[1:], "--vectors-of", name, dtype, order,
                       str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode != 0:
                raise UserError(f"{name} in {dtype} has failed")
            of_kind = measured.setdefault((dtype, order, name), [])
            of_kind.append([float(x) for x in done.stdout.split()[-3:]])
            files[dtype, order, name] = dict(np.load(path))
    head = ["", "texts", "seconds", "texts a second", "theirs / ours", "peak memory, GB"]
    print(table(head, []))
    for (dtype, order, name), of_kind in measured.items():
        texts, seconds, memory = np.median(of_kind, axis=0)
        ours = np.median(measured[dtype, order, "ours"], axis=0)[1]
        print(f"| {name}, {dtype}, {order} | {texts:.0f} | {seconds:.1f} | {texts / seconds:.0f} | "
              f"{seconds / ours:.2f} | {memory / 1e9:.2f} |")
    print()
    for dtype, order in itertools.product(args.dtypes, ORDERS):
        ours, theirs = [files[dtype, order, name] for name in NAMES]
        same = ours["ids"] == theirs["ids"]                                         # (N,)
        far = np.abs(ours["vectors"] - theirs["vectors"])[same].max()
        print(f"{dtype}, {order}: ours and theirs differ by {far:.0e} at most "
              f"({(~same).sum()} of {len(same)} texts left out)")
        if dtype == "float32" and far > 1e-4:
            raise UserError(f"ours and sentence-transformers' vectors differ by {far:.0e}")


# ---- two at once ---------------------------------------------------------------------------------

def seconds_of(runs, steps):
    """So many training runs at once -> seconds until all have ended."""
    command = [sys.executable, str(TRAIN), "--encoder", "pocket", "--seeds", "0", "--objective",
               "group-dro", "--steps", str(steps)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        processes = [subprocess.Popen([*command, "--name", str(n)], cwd=folder,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                     for n in range(runs)]
        statuses = [process.wait() for process in processes]
        seconds = time.perf_counter() - start
    if any(statuses):
        raise UserError(f"train.py has failed: {' '.join(command)}")
    return seconds


def two_rows(args):
    alone, two = [], []
    seconds_of(1, args.steps)  # whatever is read for the first time is not counted
    for _ in range(args.repeats):
        alone.append(seconds_of(1, args.steps))
        two.append(seconds_of(2, args.steps))
    print("\n" + table(["pocket, training", "seconds", "of one alone"], []))
    print(f"| alone | {np.median(alone):.1f} | 1 |")
    print(f"| two at once | {np.median(two):.1f} | {np.median(two) / np.median(alone):.2f} |")


ROWS = {"vectors": vector_rows, "two": two_rows}


def main():
    p = Parser(description=__doc__)
    p.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="(default: both)")
    p.add_argument("--data", default="data/sib200", help="(default: %(default)s)")
    p.add_argument("--encoder", default="multilingual-e5-small", help="(default: %(default)s)")
    p.add_argument("--languages", type=names, default=[*SAMPLE.split(","), *SOURCE],
                   help="(default: 30 of SIB-200's)")
    p.add_argument("--limit", type=positive, default=50, help="texts a language (default: 50)")
    p.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"],
                   default=["float32", "bfloat16"], help="(default: both)")
    p.add_argument("--steps", type=positive, default=60, help="of training (default: 60)")
    p.add_argument("--repeats", type=positive, default=3, help="(default: 3)")
    p.add_argument("--threads", type=positive, help="for the vectors (default: PyTorch's own)")
    p.add_argument("--vectors-of", nargs=4, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.vectors_of:
        return vectors_of(args)
    for name in args.only:
        ROWS[name](args)


if __name__ == "__main__":
    cli.run(main)
