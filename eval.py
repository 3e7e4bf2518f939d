"""Evaluate a trained prompt, or classify anybody's texts into anybody's classes.

    python eval.py                                        # the newest run, on its test split
    python eval.py --run runs/NAME --data FOLDER --split dev
    python eval.py --labels "sports,politics,health" --text "Der Torwart hielt den Ball."
    python eval.py --labels labels.json --input texts.txt > scores.tsv   # one text a line
    torchrun --nproc-per-node 4 -- eval.py --run runs/NAME               # four processes, or GPUs
"""
import sys
from os.path import getmtime
from pathlib import Path

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example, data_folder, load_label_words, load_split
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, names, nonnegative
from minirosprompt.io.files import clean, read_lines, write_row
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.runtime import join, pick_device, shard
from minirosprompt.io.settings import read_settings
from minirosprompt.report import report, report_by_kind


def arguments(argv):
    p = Parser(description=__doc__)
    p.add_argument("--run", type=Path,
                   help="folder of a run, or a prompt.safetensors (default: the newest run)")
    p.add_argument("--encoder", help="if it lies elsewhere than in training")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                   help="(default: cuda where there is one)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32",
                   help="of the encoder (default: float32)")
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
    g.add_argument("--labels", type=names_or_file, help="class names with commas, or a "
                   "labels.json: {class: {language: [label words]}}")
    g.add_argument("--text", action="append", help="a text; may be given again")
    g.add_argument("--input", type=Path, help="a UTF-8 file with one text a line")
    return p.parse_args(argv)


def names_or_file(text):
    return Path(text) if text.endswith(".json") else names(text)


def main(argv=None):
    args = arguments(argv)
    join()
    device, dtype = pick_device(args.device, args.dtype)
    run = args.run or newest_run()
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
        examples = [Example(text) for text in read_texts(args)]
        scores = classifier(prompt).score(examples, progress="scoring")             # (N, C)
        write_row(sys.stdout, ["text", "class", *label_words])
        for example, probability in zip(examples, scores.softmax(1)):
            label = list(label_words)[probability.argmax()]
            cells = [f"{p:.4f}" for p in probability.tolist()]
            write_row(sys.stdout, [clean(example.text), label, *cells])
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


def newest_run():
    """-> the folder under runs/ whose prompt was written last."""
    found = list(Path("runs").glob("*/*/prompt.safetensors"))
    if not found:
        raise UserError("runs: no trained prompt yet: run python train.py, or name one by --run")
    return max(found, key=getmtime).parent.parent


def choose_label_words(args, settings):
    """-> {class: [label words]}: of --labels, else those of the data set."""
    if isinstance(args.labels, Path):
        return load_label_words(args.labels)
    of_data = {}
    if args.labels is None or (data_folder(settings.data) / "labels.json").exists():
        classes = None if args.data else settings.classes
        of_data = load_label_words(settings.data, classes, settings.label_languages)
    # A class's label words are those of the data set if it has the class, else its own name.
    return {name: of_data.get(name, [name]) for name in args.labels or of_data}


def read_texts(args):
    """-> the texts of --text and --input."""
    texts = (args.text or []) + (read_lines(args.input) if args.input else [])
    if not texts:
        raise UserError(f"{args.input}: no text in it")
    return texts


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
