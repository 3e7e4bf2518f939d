"""Evaluate a trained prompt, or classify anybody's texts into anybody's classes.

    python eval.py                                        # the newest run, on its test split
    python eval.py --run runs/NAME --data FOLDER --split dev
    python eval.py --labels "sports,politics,health" --text "Der Torwart hielt den Ball."
    python eval.py --labels classes.txt --input texts.txt > scores.tsv   # one text a line
    torchrun --nproc-per-node 4 -- eval.py --run runs/NAME               # four processes, or GPUs
"""
import sys
import time
from os.path import getmtime
from pathlib import Path

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example, data_folder, load_label_words, load_split
from minirosprompt.io import cli, texts
from minirosprompt.io.cli import Parser, names, nonnegative
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.runtime import join, pick_device, shard
from minirosprompt.io.settings import PROMPTS, read_settings
from minirosprompt.report import report, report_by_kind


def arguments(argv):
    p = Parser(description=__doc__)
    p.add_argument("--run", type=Path, help="folder of a run, or a prompt.safetensors (default: "
                   "the newest run; with --labels the prompt that ships)")
    p.add_argument("--encoder", help="if it lies elsewhere than in training")
    cli.add_device(p)
    p.add_argument("--show-neighbours", action="store_true", help="print what label words become")
    g = p.add_argument_group("evaluate on labelled data")
    g.add_argument("--data", help="data folder (default: the one trained on)")
    g.add_argument("--languages", type=names,
                   help="languages that are tested (default: all in the data)")
    splits = ["test", "dev", "train"]
    g.add_argument("--split", choices=splits, default="test", help="(default: test)")
    g.add_argument("--calibration", choices=["none", "contextual"],
                   help="(default: as in training)")
    g.add_argument("--stacking", type=nonnegative, help="(default: as in training)")
    g.add_argument("--out", type=Path, help="folder for the results (default: RUN/eval-SPLIT)")
    g = p.add_argument_group("classify your own texts")
    g.add_argument("--labels", type=texts.labels, help="class names with commas; or a file: a "
                   "class a line, perhaps with a colon and label words or a description, with "
                   "semicolons between them; or a labels.json: {class: {language: [label words]}}")
    g.add_argument("--text", action="append", help="a text; may be given again")
    g.add_argument("--input", help='a UTF-8 file with one text a line, or "-"')
    g.add_argument("--format", choices=texts.FORMATS, default="tsv", help="(default: tsv)")
    return p.parse_args(argv)


def main(argv=None):
    args = arguments(argv)
    join()
    device, dtype = pick_device(args.device, args.dtype)
    run = args.run or (shipped_prompt(args.encoder) if args.labels else newest_run())
    paths = [run] if run.suffix == ".safetensors" else sorted(run.glob("*/prompt.safetensors"))
    if not paths:
        raise UserError(f"--run {run}: no prompt.safetensors in it")

    # A run has one set of settings, in each of its prompts; flags here may overrule some.
    settings = read_settings(paths[0])
    for flag in ("encoder", "data", "calibration", "stacking"):
        if getattr(args, flag) is not None:
            setattr(settings, flag, getattr(args, flag))
    label_words = choose_label_words(args, settings)
    encoder, tokenizer = load_encoder(settings.encoder, device, dtype)
    prompts = {("hard", 0): None}  # (method, seed) -> prompt
    for path in paths:
        prompt, about = load_prompt(path, encoder)
        prompts[about["method"], about["seed"]] = prompt

    def classifier(prompt):
        return Classifier(encoder, tokenizer, label_words, settings, prompt).calibrate()

    if args.show_neighbours:
        for label, word, pieces in classifier(None).verbalizer.neighbours:
            weighted = [f"{piece} {weight:.2f}" for piece, weight in pieces]
            print(f"{label}\t{word}\t{' '.join(weighted)}")
    elif args.text or args.input:
        prompt, _ = load_prompt(max(paths, key=getmtime), encoder)  # the newest of several
        read = texts.read_texts(args.text, args.input)
        start = time.perf_counter()
        scores = classifier(prompt).score([Example(text) for text in read], progress="scoring")
        rate = len(read) / (time.perf_counter() - start)
        texts.write_scores(sys.stdout, args.format, read, list(label_words), scores.softmax(1))
        if shard()[0] == 0:
            print(f"{len(read):,} texts, {rate:,.0f} a second", file=sys.stderr)
    elif args.labels:
        raise UserError("--labels: give the texts to classify with --text or --input")
    else:
        examples = labelled(args, settings, label_words)
        scores = {}
        for (method, seed), prompt in prompts.items():
            scores[method, seed] = classifier(prompt).score(examples, progress=method)
        if shard()[0] == 0:  # of several processes the first one reports
            folder = args.out or (run.parent if run in paths else run) / f"eval-{args.split}"
            rows = report(folder, settings, examples, list(label_words), scores, device)
            report_by_kind(folder, rows, settings.encoder)


def shipped_prompt(encoder):
    """-> the prompt that comes with this repository for an encoder. Raises UserError."""
    name = encoder or "multilingual-e5-small"
    shipped = {path.stem: path for path in PROMPTS.glob("*.safetensors")}
    if name not in shipped:
        raise UserError(f"--run: no prompt ships for {name}; name one that train.py made")
    return shipped[name]


def newest_run():
    """-> the folder under runs/ whose prompt was written last."""
    found = list(Path("runs").glob("*/*/prompt.safetensors"))
    if not found:
        raise UserError("runs: no trained prompt yet: run python train.py, or name one by --run")
    return max(found, key=getmtime).parent.parent


def choose_label_words(args, settings):
    """-> {class: [label words]}: of --labels, else those of the data set."""
    if isinstance(args.labels, Path):
        if args.labels.suffix == ".json":
            return load_label_words(args.labels)
        return texts.read_label_list(args.labels)
    of_data = {}
    if args.labels is None or (data_folder(settings.data) / "labels.json").exists():
        classes = None if args.data else settings.classes
        first = None if args.data else settings.label_words
        of_data = load_label_words(settings.data, classes, settings.label_languages, first)
    # A class's label words are those of the data set if it has the class, else its own name.
    return {name: of_data.get(name, [name]) for name in args.labels or of_data}


def labelled(args, settings, label_words):
    """-> the Examples of --data, --split, --languages whose classes compete."""
    examples = [e for e in load_split(settings.data, args.split) if e.label in label_words]
    unknown = set(args.languages or ()) - {e.lang for e in examples}
    if unknown:
        raise UserError(f"--languages: {', '.join(sorted(unknown))} not in {settings.data}")
    examples = [e for e in examples if args.languages is None or e.lang in args.languages]
    if not examples:
        raise UserError(f"{settings.data}: the {args.split} split has no text of the classes "
                        f"{', '.join(label_words)}")
    return examples


if __name__ == "__main__":
    cli.run(main)
