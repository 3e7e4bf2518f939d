"""Evaluate a trained prompt, or classify anybody's texts into anybody's classes.

    python eval.py                                                   # the newest run, on its data's test split
    python eval.py --run runs/NAME --data FOLDER --split dev         # any run, any data set
    python eval.py --labels "sports,politics,health" --text "Der Torwart hielt den Ball."
    python eval.py --labels labels.json --input texts.txt > scores.tsv   # one text a line
    torchrun --nproc-per-node 4 -- eval.py --run runs/NAME           # the same, on four processes (GPUs, if there are)
"""
import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from minirosprompt import UserError, metrics
from minirosprompt.cli import Parser, names, nonnegative, run as run_script
from minirosprompt.checkpoint import join, peak_memory, pick_device, shard, write_json, writing
from minirosprompt.data import data_folder, length_buckets, load_label_words, load_languages, load_resource, load_split, write_row
from minirosprompt.prompt import TOKENS_AT_ONCE, PromptedEncoder, Template, load_prompt, pad
from minirosprompt.tokenizer import Tokenizer, clean
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.weights import TOKENIZER_FILE, encoder_folder
from minirosprompt.xlmr import XLMR


@torch.inference_mode()
def score(model, verbalizer, template, texts, progress=None):
    """Scores of every class for every text: (N, C) on the CPU. Texts of like length go together, so little is padding.

    Under torchrun each of n processes takes every n-th bucket; all of them get all scores, the same as one would.
    """
    rows, (rank, ranks), device = template.encode(texts), shard(), verbalizer.rows.device
    scores = torch.zeros(len(rows), len(verbalizer.classes))
    with tqdm(total=len(rows), desc=progress, unit="text", disable=progress is None, delay=1) as bar:
        for bucket in length_buckets(rows, TOKENS_AT_ONCE[device.type])[rank::ranks]:
            h = model(pad([rows[i] for i in bucket], device))                            # (B, D)
            scores[bucket] = verbalizer.scores(h).cpu()                                  # (B, C)
            bar.update(len(bucket))
    if ranks > 1:
        torch.distributed.all_reduce(scores)  # a sum in which all but one are 0
    if not torch.isfinite(scores).all():
        raise UserError("some scores are not finite numbers: the prompt or the encoder is damaged, or overflows (try --dtype float32)")
    return scores


class Reader:
    """A frozen encoder with the settings under which a prompt is trained and used (the keys of SETTINGS)."""
    SETTINGS = {"encoder": str, "data": str, "classes": list, "seen": list, "source": list, "label_languages": list, "template": str,
                "hard_prompt": str, "k": int, "combine": str, "calibration": str, "stacking": float}

    def __init__(self, settings, device, dtype):
        self.settings, self.device = {name: settings[name] for name in self.SETTINGS}, device
        folder = encoder_folder(settings["encoder"])
        self.tokenizer = Tokenizer(folder / TOKENIZER_FILE)
        self.encoder = XLMR.from_pretrained(settings["encoder"], device, dtype)
        if self.tokenizer.vocab_size > self.encoder.config.vocab_size:
            raise UserError(f"{folder}: {TOKENIZER_FILE} has more ids than config.json's vocab_size: not of one encoder")

    def verbalizer(self, label_words):
        return Verbalizer(self.encoder, self.tokenizer, label_words, self.settings["k"], self.settings["combine"])

    def template(self, prompt):
        """prompt: the number of soft prompt vectors, or the words of a hard prompt."""
        return Template(self.settings["template"], self.tokenizer, prompt, self.encoder.config.max_tokens)

    def classify(self, texts, label_words, prompt):
        """Scores (N, C) of texts for classes that may be new. prompt: (P, D), or None for the hard prompt."""
        template = self.template(self.settings["hard_prompt"] if prompt is None else len(prompt))
        model = PromptedEncoder(self.encoder, self.tokenizer.mask, prompt).to(self.device)
        verbalizer = self.verbalizer(label_words)
        if self.settings["calibration"] == "contextual":
            with torch.inference_mode():
                verbalizer.calibrate(model(pad(template.encode([""]), self.device)))
        verbalizer.stack(self.settings["seen"], self.settings["stacking"])
        return score(model, verbalizer, template, texts, progress="scoring")


def report(folder, settings, examples, label_words, scores, resource, device):
    """Prints the table, writes results.json and results.csv, -> their rows: one a method, seed and language.

    scores: {(method, seed): (N, C)}; the method "hard" is there. resource: {lang: amount of pretraining text}.
    """
    classes, seen, source = list(label_words), settings["seen"], settings["source"]
    gold = np.array([classes.index(e.label) for e in examples])
    predicted = {key: s.argmax(1).numpy() for key, s in scores.items()}
    rows = [row for (method, seed), p in predicted.items()
            for row in metrics.result_rows(method, seed, examples, gold, p, classes, seen, source)]
    summary = metrics.summarise(rows, resource)
    keep = np.array([e.label not in seen and e.lang not in source for e in examples])
    if keep.any():
        for method in summary:
            of_method = np.stack([p for (m, _), p in predicted.items() if m == method])
            right = (of_method == gold).mean(0)[keep]
            low, high = metrics.bootstrap(right, np.array([e.id for e in examples])[keep])
            summary[method]["target unseen"] |= {"low": low, "high": high}
            if method != "hard":
                mean, (low, high) = metrics.gain(examples, gold, of_method, predicted["hard", 0], keep)
                summary[method]["target unseen gain"] = {"mean": mean, "low": low, "high": high}
    langs = {e.lang for e in examples}
    print(f"\naccuracy in %, {len(classes)} classes compete ({len(set(seen) & set(classes))} seen in training), "
          f"chance {100 / len(classes):.1f}; {len(langs & set(source))} source and {len(langs - set(source))} target languages\n")
    print(metrics.format_table(summary))
    for method, of in summary.items():
        if "target unseen gain" in of:
            g, worst = of["target unseen gain"], of["worst unseen"]["mean"] - summary["hard"]["worst unseen"]["mean"]
            print(f"{method} against hard, unseen classes: {100 * g['mean']:+.1f} points in target languages (95 % interval "
                  f"{100 * g['low']:+.1f} to {100 * g['high']:+.1f}), {100 * worst:+.1f} in the worst language")
    write_json(folder / "results.json", {"settings": settings, "rows": rows, "summary": summary})
    with writing(folder / "results.csv") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    memory = peak_memory(device)
    print(f"\nper language: {folder / 'results.csv'}" + (f"; peak memory {memory / 1e9:.1f} GB" if memory else ""))
    return rows


def newest_run():
    runs = [p.parent for p in Path("runs").glob("*/config.json") if list(p.parent.glob("*/prompt.safetensors"))]
    if not runs:
        raise UserError("runs: no trained prompt there yet: run python train.py first, or name one with --run")
    return max(runs, key=lambda run: max(p.stat().st_mtime for p in run.glob("*/prompt.safetensors")))


def report_by_class(folder, rows, resource):
    """Prints and writes (by_class.json) the accuracy on all classes, averaged over classes of languages."""
    known, seen, langs = load_languages(), metrics.resource_class(resource), {row["lang"] for row in rows}
    by = {"pretraining text": metrics.by_class(rows, {lang: seen.get(lang, "none") for lang in langs})}
    for column in ("script", "family"):
        by[column] = metrics.by_class(rows, {lang: known[lang][column] if lang in known else "unknown" for lang in langs})
    for name, of in by.items():
        print("\n" + metrics.format_by_class(f"accuracy on all classes in %, languages by {name}", of))
    write_json(folder / "by_class.json", by)


def arguments(argv):
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", type=Path, help="folder of a run, or one prompt.safetensors (default: the newest under runs/)")
    p.add_argument("--encoder", help="if it lies elsewhere than in training")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the encoder (default: float32)")
    p.add_argument("--show-neighbours", action="store_true", help="print what each label word turned into, and stop")
    g = p.add_argument_group("evaluate on labelled data")
    g.add_argument("--data", help="data folder (default: the one trained on)")
    g.add_argument("--languages", type=names, help="languages that are tested (default: all in the data)")
    g.add_argument("--split", choices=["test", "dev", "train"], default="test", help="(default: test)")
    g.add_argument("--calibration", choices=["none", "contextual"], help="(default: as in training)")
    g.add_argument("--stacking", type=nonnegative, help="subtract so much from seen classes' scores (default: as in training)")
    g.add_argument("--out", type=Path, help="folder for results.json and results.csv (default: RUN/eval-SPLIT)")
    g = p.add_argument_group("classify your own texts")
    g.add_argument("--labels", help="class names with commas, or a labels.json: {class: {language: [label words]}}")
    g.add_argument("--text", action="append", help="a text; may be given again")
    g.add_argument("--input", type=Path, help="a UTF-8 file with one text a line")
    return p.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    join()
    device, dtype = pick_device(args.device, args.dtype)
    run = args.run or newest_run()
    paths = [run] if run.suffix == ".safetensors" else sorted(run.glob("*/prompt.safetensors"))
    if not paths:
        raise UserError(f"--run {run}: no prompt.safetensors in it")
    found = [(path, *read_settings(path)) for path in paths]
    settings = found[0][-1]  # one run, one set of settings
    settings |= {name: value for name, value in (("encoder", args.encoder), ("data", args.data),
                                                 ("calibration", args.calibration), ("stacking", args.stacking))
                 if value is not None}
    reader = Reader(settings, device, dtype)
    prompts = {}  # (method, seed) -> (P, D)
    for path, method, seed, _ in found:
        prompts[method, seed] = load_prompt(path, reader.encoder)[0].to(device)

    if args.labels and Path(args.labels).suffix == ".json":
        label_words = load_label_words(args.labels)
    else:
        path = data_folder(settings["data"]) / "labels.json"
        label_words = load_label_words(path, None if args.data else settings["classes"], settings["label_languages"]) \
            if path.exists() or not args.labels else {}
        if args.labels:  # a class's label words are those of the data set if it has the class, else its own name
            try:
                label_words = {name: label_words.get(name, [name]) for name in names(args.labels)}
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--labels: {error}") from None
    if args.show_neighbours:
        for label, word, pieces in reader.verbalizer(label_words).neighbours:
            print(f"{label}\t{word}\t" + " ".join(f"{piece} {weight:.2f}" for piece, weight in pieces))
    elif args.text or args.input:
        texts = args.text or []
        if args.input:
            try:
                lines = args.input.read_text(encoding="utf-8-sig")  # \r\n becomes \n
                texts = texts + (lines.removesuffix("\n").split("\n") if lines else [])
            except UnicodeDecodeError as error:
                raise UserError(f"--input {args.input}: not UTF-8 (byte {error.start}); convert it first") from None
        if not texts:
            raise UserError(f"{args.input}: no text in it")
        method, seed = max(prompts, key=lambda key: (key[0] == "soft-group-dro", -key[1]))
        probability = reader.classify(texts, label_words, prompts[method, seed]).softmax(1)
        write_row(sys.stdout, ["text", "class", *label_words])
        for text, row in zip(texts, probability.tolist()):
            write_row(sys.stdout, [clean(text), list(label_words)[int(np.argmax(row))], *(f"{p:.4f}" for p in row)])
    elif args.labels:
        raise UserError("--labels: give the texts to classify with --text or --input")
    else:
        examples = [e for e in load_split(settings["data"], args.split) if e.label in label_words]
        unknown = set(args.languages or ()) - {e.lang for e in examples}
        if unknown:
            raise UserError(f"--languages: {', '.join(sorted(unknown))} not in {settings['data']}")
        examples = [e for e in examples if args.languages is None or e.lang in args.languages]
        if not examples:
            raise UserError(f"{settings['data']}: the {args.split} split has no text of the classes {', '.join(label_words)}")
        texts = [e.text for e in examples]
        prompts = {("hard", 0): None} | prompts
        scores = {key: reader.classify(texts, label_words, prompt) for key, prompt in prompts.items()}
        if shard()[0] > 0:
            return  # process 0 reports
        folder = args.out or (run.parent if run.suffix else run) / f"eval-{args.split}"
        resource = load_resource(settings["encoder"])
        report_by_class(folder, report(folder, settings, examples, label_words, scores, resource, device), resource)


def read_settings(path):
    """-> (method, seed, settings) under which a prompt was trained, from its own file. Raises UserError if they are damaged."""
    metadata = load_prompt(path)[1]
    try:
        settings = json.loads(metadata["settings"])
        for name, kind in Reader.SETTINGS.items():
            value = settings[name]
            texts = kind is not list or value is None or all(isinstance(one, str) for one in value)
            if not texts or type(value) is not kind and (name, value) != ("label_languages", None):
                raise ValueError
        if settings["k"] < 1 or settings["combine"] not in ("max", "mean") or settings["calibration"] not in ("none", "contextual"):
            raise ValueError
        return metadata["method"], int(metadata["seed"]), {name: settings[name] for name in Reader.SETTINGS}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: its settings are damaged or from another version") from None


if __name__ == "__main__":
    run_script(main)
