"""Settings: what a prompt was trained for, and how it is used. They are saved with every prompt."""
import argparse

from .. import UserError
from .cli import Parser, check_settings, names, nonnegative, positive
from .prompts import load_prompt


def add_settings(parser):
    """Adds the flags to train.py's parser. A new one is saved, checked and read with the rest."""
    g = parser.add_argument_group("what is read")
    g.add_argument("--encoder", default="pocket", help='"pocket", a folder, or a name on the hub: '
                   "xlm-roberta-base, org/name[@revision] (default: pocket)")
    g.add_argument("--data", default="minitopics",
                   help='"minitopics" or a data folder (default: minitopics)')
    g.add_argument("--seen", type=names, help="classes to train on, with commas "
                   "(default: MiniTopics' seven; else all)")
    g.add_argument("--source", type=names, help="languages to train on, with commas "
                   "(default: MiniTopics' four; else all)")
    g.add_argument("--classes", type=names, help="classes that compete and are tested "
                   "(default: all in the data)")
    g.add_argument("--label-languages", type=names, help="languages of the label words "
                   "(default: all in labels.json)")
    g = parser.add_argument_group("prompt and verbalizer")
    g.add_argument("--template", default="{prompt} {mask} {text}",
                   help="where prompt, text and mask go (default: %(default)s)")
    g.add_argument("--hard-prompt", default="Topic:", help="the baseline's words, and what "
                   "--init words starts from (default: %(default)s)")
    g.add_argument("--k", type=positive, default=1,
                   help="neighbours K of a label word, itself among them (default: 1)")
    g.add_argument("--combine", choices=["max", "mean"], default="max",
                   help="over a class's label words (default: max)")
    g.add_argument("--calibration", choices=["none", "contextual"], default="none",
                   help="subtract the scores of an empty text at test time (default: none)")
    g.add_argument("--stacking", type=nonnegative, default=0.0, help="calibrated stacking: "
                   "subtract so much from seen classes' scores at test time (default: 0)")


def settings_parser():
    parser = Parser(add_help=False)
    add_settings(parser)
    return parser


def default_settings(**changed):
    """-> argparse.Namespace: the flags' defaults, but for what is `changed`."""
    settings = settings_parser().parse_args([])
    return argparse.Namespace(**vars(settings) | changed)


def settings_of(args):
    """-> {flag: value}: of all flags of a script, those of add_settings."""
    return {name: getattr(args, name) for name in vars(default_settings())}


def read_settings(path):
    """A prompt's file -> the settings it was trained with, argparse.Namespace. Raises UserError."""
    _, about = load_prompt(path)
    settings = check_settings(settings_parser(), about["settings"], path)
    if settings["seen"] is None or settings["source"] is None:  # train.py fills them in
        raise UserError(f"{path}: it does not say what it was trained on; train anew")
    return argparse.Namespace(**settings)
