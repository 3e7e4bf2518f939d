"""Encoder + prompt + verbalizer: texts and class names in, scores out.

    encoder, tokenizer = load_encoder("pocket")
    classifier = Classifier(encoder, tokenizer, {"sports": ["sports"], "food": ["food"]})
    classifier.score([Example("Der Torwart hielt den Ball.")])      # (1, 2): one score a class
"""
import argparse

import torch
import torch.nn as nn
from tqdm import tqdm

from . import UserError
from .data import length_buckets
from .io.cli import Parser, check_settings, names, nonnegative, positive
from .io.prompts import load_prompt
from .io.runtime import shard
from .io.weights import TOKENIZER_FILE, encoder_folder
from .prompt import TOKENS_AT_ONCE, PromptedEncoder, Template, pad
from .tokenizer import Tokenizer
from .verbalizer import Verbalizer
from .xlmr import XLMR

# ---- settings: what a prompt was trained for, and how it is used ---------------------------------

def add_settings(parser):
    """The flags that are saved with every prompt, because eval.py needs them again."""
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
    return argparse.Namespace(**check_settings(settings_parser(), about["settings"], path))


# ---- the classifier ------------------------------------------------------------------------------

def load_encoder(name, device="cpu", dtype=torch.float32):
    """-> (frozen XLMR, Tokenizer). Raises UserError for what io/weights.py cannot read."""
    folder = encoder_folder(name)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    encoder = XLMR.from_pretrained(folder, device, dtype)
    if tokenizer.vocab_size > encoder.config.vocab_size:
        raise UserError(f"{folder}: {TOKENIZER_FILE} has more ids than config.json's vocab_size: "
                        "not of one encoder")
    return encoder, tokenizer


class Classifier(nn.Module):
    """One prompt, soft or hard, in front of a frozen encoder; and the classes that compete."""

    def __init__(self, encoder, tokenizer, label_words, settings=None, prompt=None):
        """label_words: {class: [word, ...]}; settings: Namespace with what add_settings adds.

        prompt: (..., P, D), or None for the hard prompt of the settings.
        """
        super().__init__()
        self.settings = s = settings or default_settings()
        P_or_words = s.hard_prompt if prompt is None else prompt.shape[-2]
        self.template = Template(s.template, tokenizer, P_or_words, encoder.config.max_tokens)
        self.model = PromptedEncoder(encoder, tokenizer.mask, prompt)
        self.model.to(encoder.word.weight.device)
        self.verbalizer = Verbalizer(encoder, tokenizer, label_words, s.k, s.combine)
        self.classes = self.verbalizer.classes

    @property
    def prompt(self):
        """The parameter that is trained, (..., P, D); None for a hard prompt."""
        return self.model.prompt

    def encode(self, examples):
        """Examples -> sequences, lists of ids."""
        return self.template.encode(e.text for e in examples)

    def forward(self, sequences):
        """Sequences of encode -> scores (B, C), with gradients for the prompt."""
        h = self.model.read(sequences)                                                   # (B, D)
        return self.verbalizer.scores(h)                                            # (B, C)

    def score(self, examples, progress=None):
        """Scores of every class for every Example: (N, C) on the CPU, no gradients."""
        sequences = self.encode(examples)
        return score_sequences(self.model, self.verbalizer, sequences, progress)

    @torch.inference_mode()
    def calibrate(self):
        """From now on score as the settings ask for at test time. -> self"""
        if self.settings.calibration == "contextual":
            empty = self.template.encode([""])
            self.verbalizer.calibrate(self.model.read(empty))
        self.verbalizer.stack(self.settings.seen or (), self.settings.stacking)
        return self


@torch.inference_mode()
def score_sequences(model, verbalizer, sequences, progress=None):
    """Lists of ids -> (N, C) on the CPU. Those of like length go together.

    Under torchrun each of n processes takes every n-th bucket; all of them get all scores, the
    same as one would.
    """
    rank, ranks = shard()
    device = model.encoder.word.weight.device
    scores = torch.zeros(len(sequences), len(verbalizer.classes))                        # (N, C)
    buckets = length_buckets(sequences, TOKENS_AT_ONCE[device.type])
    bar = tqdm(total=len(sequences), desc=progress, unit="text", disable=progress is None, delay=1)
    with bar:
        for bucket in buckets[rank::ranks]:
            h = model(pad([sequences[i] for i in bucket], device))                  # (B, D)
            scores[bucket] = verbalizer.scores(h).cpu()                             # (B, C)
            bar.update(len(bucket))
    if ranks > 1:
        torch.distributed.all_reduce(scores)  # a sum in which all but one are 0
    if not torch.isfinite(scores).all():
        raise UserError("some scores are not finite numbers: the prompt or the encoder is damaged, "
                        "or overflows (try --dtype float32)")
    return scores
