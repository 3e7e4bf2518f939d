"""Evaluate a trained prompt, or classify anybody's texts into anybody's classes.

    python eval.py                                        # the newest run, on its test split
    python eval.py --run runs/NAME --data FOLDER --split dev
    python eval.py --labels "sports,politics,health" --text "Der Torwart hielt den Ball."
    python eval.py --labels classes.txt --input texts.txt > scores.tsv   # one text a line
    torchrun --nproc-per-node 4 -- eval.py --run runs/NAME               # four processes, or GPUs
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import sys
import time
import warnings
from pathlib import Path

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, decide, load_encoder
from minirosprompt.data import Example, data_folder, load_label_words, load_split
from minirosprompt.io import cli, runs, texts
from minirosprompt.io.cli import Parser, names, nonnegative, some, whole_path
from minirosprompt.io.label_words import classes_with_texts, same_names, tested, words_or_names
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.runtime import join, pick_device, shard
from minirosprompt.io.settings import read_settings
from minirosprompt.report import report, report_by_kind


def arguments(argv):
    p = Parser(description=__doc__)
    p.add_argument("--run", type=cli.some_path, action=cli.Once, help="folder of a run, or a "
                   "prompt (of several, --text and --input take the first by name; default: the "
                   "newest run; with --labels the prompt that ships)")
    p.add_argument("--encoder", type=whole_path, help="if it lies elsewhere than in training")
    cli.add_device(p)
    p.add_argument("--show-neighbours", action="store_true", help="print what label words become")
    g = p.add_argument_group("evaluate on labelled data")
    g.add_argument("--data", type=whole_path, action=cli.Once,
                   help="data folder (default: the one trained on)")
    g.add_argument("--languages", type=names,
                   help="languages that are tested (default: all in the data)")
    splits = ["test", "dev", "train"]
    g.add_argument("--split", choices=splits, default="test", help="(default: test)")
    g.add_argument("--label-languages", type=names, help="of label words (default: as in training)")
    g.add_argument("--calibration", choices=["none", "contextual"],
                   help="(default: as in training)")
    g.add_argument("--stacking", type=nonnegative, help="(default: as in training)")
    g.add_argument("--out", type=runs.free_of_results,
                   help="for the results (default: RUN/eval-SPLIT or -2, -3 …)")
    g = p.add_argument_group("classify your own texts")
    g.add_argument("--labels", type=texts.labels, action=cli.Once, help="class names with commas; "
                   "or a file, a class a line (class: label word; description), or a labels.json")
    g.add_argument("--text", action="append", help="a text; may be given again")
    g.add_argument("--input", type=some, action=cli.Once,
                   help='a UTF-8 file with one text a line, or "-"')
    g.add_argument("--format", choices=texts.FORMATS, default="tsv", help="(default: tsv)")
    args = p.parse_args(argv)
    of_data = ["languages", "split", "out"]
    if args.show_neighbours:
        of_scores = ["text", "input", "format", "calibration", "stacking"]
        cli.refuse(p, argv, of_data + of_scores, "with --show-neighbours")
    elif args.text or args.input:
        cli.refuse(p, argv, of_data, "where texts of your own are classified")
    else:
        cli.refuse(p, argv, ["labels", "format"], "without --text or --input")
    if isinstance(args.labels, Path):
        cli.refuse(p, argv, ["data"], "with a file of --labels")
    return args


def main(argv=None):
    args = arguments(argv)
    join()
    device, dtype = pick_device(args.device, args.dtype)
    run = args.run or (runs.shipped_prompt(args.encoder) if args.labels else runs.newest_run())
    paths = runs.prompts_of(run)

    # A run has one set of settings, in each of its prompts; flags here may overrule some.
    settings = read_settings(paths[0])
    if args.data not in (None, settings.data):
        settings.classes = None  # all that the other data have
    for flag in ("encoder", "data", "label_languages", "calibration", "stacking"):
        if getattr(args, flag) is not None:
            setattr(settings, flag, getattr(args, flag))
    own = texts.read_texts(args.text, args.input)
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
    elif own:
        prompt, _ = load_prompt(paths[0], encoder)
        start = time.perf_counter()
        scores = classifier(prompt).score([Example(text) for text in own], progress="scoring")
        rate = len(own) / (time.perf_counter() - start)
        classes = list(label_words)
        chosen = decide(scores, classes).tolist()
        texts.write_scores(sys.stdout, args.format, own, classes, scores.softmax(1), chosen)
        texts.warn_of_ties(scores, "scoring")
        if shard()[0] == 0:
            print(f"{len(own):,} texts, {rate:,.0f} a second; prompt: {paths[0]}", file=sys.stderr)
    else:
        examples = load_split(settings.data, args.split)
        data = data_folder(settings.data)
        examples = tested(examples, list(label_words), args.languages, data, args.split)
        with runs.alone_with_results(args.out):
            scores = {key: classifier(prompt).score(examples, progress=key[0])
                      for key, prompt in prompts.items()}
            if shard()[0] == 0:  # of several processes the first one reports
                home = run.parent if run in paths else run
                folder = args.out or runs.free_folder(home / f"eval-{args.split}")
                rows = report(folder, settings, examples, list(label_words), scores, device)
                report_by_kind(folder, rows, settings.encoder)


def choose_label_words(args, settings):
    """-> {class: [label words]}: of --labels or the data set; of a class it lacks, its name."""
    if isinstance(args.labels, Path):
        if args.labels.suffix.lower() == ".json":
            return load_label_words(args.labels, None, args.label_languages)
        return texts.read_label_list(args.labels, args.label_languages)
    folder = data_folder(settings.data)
    which = settings.label_languages, settings.label_words
    if not args.labels:
        settings.classes = settings.classes or classes_with_texts(folder)
        return load_label_words(settings.data, settings.classes, *which)
    if not args.data and not (folder / "labels.json").exists():
        warnings.warn(f"{settings.data}, which the prompt was trained on, is not there: the label "
                      "words of every class are its name alone")
        return {name: [name] for name in args.labels}
    named = same_names(args.labels, folder / "labels.json")  # {name: the data's name for it}
    if args.label_languages and not named:
        raise UserError(f"--label-languages does nothing: {folder / 'labels.json'} has none of the "
                        "classes of --labels; leave it out")
    of_data = load_label_words(settings.data, named.values(), *which)
    settings.seen += [name for name in named if named[name] in settings.seen]  # for stacking
    return words_or_names(args.labels, named, of_data)


if __name__ == "__main__":
    cli.run(main)
