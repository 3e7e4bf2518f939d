"""Settings: what a prompt was trained for, and how it is used. They are saved with every prompt."""
import argparse
from pathlib import Path

from .. import UserError
from .cli import Parser, above_zero, check_settings, names, nonnegative, positive, whole_path
from .prompts import load_prompt

PROMPTS = Path(__file__).parent.parent / "prompts"  # trained prompts that ship, by encoder

# What serves one verbalizer does not serve the other: defaults that follow from --verbalizer.
# Both were chosen on seen classes in source languages (results/log.md): those of words with pocket
# on MiniTopics, those of states with multilingual-e5-small on SIB-200.
RECIPES = {
    "words": {"template": "{prompt} {mask} {text}", "hard_prompt": "Topic:", "combine": "max",
              "label_languages": ["all"], "label_words": None, "steps": 100, "lr": 0.01,
              "seeds": [0, 1, 2]},
    "states": {"template": "{prompt} {text}", "hard_prompt": "query: news:", "combine": "max",
               "label_languages": ["eng_Latn"], "label_words": 2, "steps": 20, "lr": 0.01,
               "seeds": [0]},
}
# Flags that only one of the two reads: {flag: (which, default)}
ONLY_OF = {"k": ("words", 1), "pooling": ("states", "mean"), "temperature": ("states", 0.05)}


def default_of(flag):
    """For a flag's help text."""
    of = []
    for name, recipe in RECIPES.items():
        value = recipe[flag]
        if isinstance(value, list):
            value = " ".join(map(str, value))
        of.append(f"{'all' if value is None else value} for {name}")
    return f"(default: {', '.join(of)})"


def complete(settings, encoder):
    """Fills in what is None, by the verbalizer; and the verbalizer by the encoder.

    Raises UserError for words at the mask of an encoder that has no masked-LM head, and for a flag
    that the verbalizer does not read.
    """
    if settings.verbalizer is None:
        settings.verbalizer = "words" if encoder.head else "states"
    if settings.verbalizer == "words" and not encoder.head:
        raise UserError(f"--verbalizer words: {settings.encoder} has no masked-LM head, so nothing "
                        "can be read off the mask; use --verbalizer states")
    for flag, (which, default) in ONLY_OF.items():
        if which != settings.verbalizer and getattr(settings, flag) != default:
            raise UserError(f"--{flag}: only of --verbalizer {which}, and this is "
                            f"{settings.verbalizer}")
    for flag, value in RECIPES[settings.verbalizer].items():
        if flag in settings and getattr(settings, flag) is None:
            setattr(settings, flag, value)


def add_settings(parser):
    """Adds the flags to train.py's parser. A new one is saved, checked and read with the rest."""
    g = parser.add_argument_group("what is read")
    g.add_argument("--encoder", type=whole_path, default="multilingual-e5-small",
                   help='"pocket", which needs no network, a folder, or a name: '
                   "multilingual-e5-small, xlm-roberta-base, org/name[@revision] "
                   "(default: multilingual-e5-small)")
    g.add_argument("--data", type=whole_path, default="minitopics",
                   help='"minitopics" or a data folder (default: minitopics)')
    g.add_argument("--seen", type=names, help="classes to train on, with commas "
                   "(default: MiniTopics' seven; else all)")
    g.add_argument("--source", type=names, help="languages to train on, with commas "
                   "(default: MiniTopics' four; else all)")
    g.add_argument("--classes", type=names, help="classes that compete and are tested "
                   "(default: all in the data)")
    g.add_argument("--label-languages", type=names, help='languages of the label words, or "all" '
                   + default_of("label_languages"))
    g.add_argument("--label-words", type=positive, metavar="N", help="take the first N label words "
                   "of a class and language " + default_of("label_words"))
    g = parser.add_argument_group("prompt and verbalizer")
    g.add_argument("--verbalizer", choices=list(RECIPES), help="a class is words at the mask, or "
                   "the encoder's states for its name (default: words if the encoder has a "
                   "masked-LM head, else states)")
    g.add_argument("--template", help="where prompt, text and mask go " + default_of("template"))
    g.add_argument("--hard-prompt", help="the baseline's words, and what --init words starts from "
                   + default_of("hard_prompt"))
    g.add_argument("--combine", choices=["max", "mean"],
                   help="over a class's label words " + default_of("combine"))
    g.add_argument("--k", type=positive, default=ONLY_OF["k"][1],
                   help="words: neighbours K of a label word's piece, itself too (default: 1)")
    g.add_argument("--pooling", choices=["mean", "mask"], default=ONLY_OF["pooling"][1],
                   help="states: the mean over all tokens, or the one at the mask (default: mean)")
    g.add_argument("--temperature", type=above_zero, default=ONLY_OF["temperature"][1],
                   help="states: score = cosine / temperature (default: 0.05)")
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
