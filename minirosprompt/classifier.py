"""Encoder + prompt + verbalizer: texts and class names in, scores out.

    encoder, tokenizer = load_encoder("pocket")
    classifier = Classifier(encoder, tokenizer, {"sports": ["sports"], "food": ["food"]})
    classifier.score([Example("Der Torwart hielt den Ball.")])      # (1, 2): one score a class
"""
import copy

import torch
import torch.nn as nn
from tqdm import tqdm

from . import UserError
from .data import Example, length_buckets
from .io.runtime import shard
from .io.settings import complete, default_settings
from .io.weights import TOKENIZER_FILE, check_pair, encoder_folder
from .prompt import TOKENS_AT_ONCE, PromptedEncoder, Template, pad, to_device
from .tokenizer import Tokenizer
from .verbalizer import StateVerbalizer, Verbalizer
from .xlmr import XLMR


def load_encoder(name, device="cpu", dtype=torch.float32):
    """-> (frozen XLMR, Tokenizer). Raises UserError for what io/weights.py cannot read."""
    folder = encoder_folder(name)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    encoder = XLMR.from_pretrained(folder, device, dtype)
    check_pair(folder, tokenizer.vocab_size, encoder.config.vocab_size)
    return encoder, tokenizer


class Classifier(nn.Module):
    """One prompt, soft or hard, in front of a frozen encoder; and the classes that compete."""

    def __init__(self, encoder, tokenizer, label_words, settings=None, prompt=None):
        """label_words: {class: [word, ...]}; settings: Namespace of io/settings.py.

        prompt: (P, D), or None for the hard prompt of the settings. Raises UserError.
        """
        super().__init__()
        self.settings = s = copy.copy(settings or default_settings())
        complete(s, encoder)
        pooling = "head" if s.verbalizer == "words" else s.pooling
        # A hard prompt is words, a soft one so many vectors; the template is the same.
        words_or_P = s.hard_prompt if prompt is None else prompt.shape[-2]
        self.template = Template(s.template, tokenizer, words_or_P, encoder.config.max_tokens,
                                 needs_mask=pooling != "mean")
        self.model = PromptedEncoder(encoder, tokenizer.mask, prompt, pooling)
        self.model.to(encoder.word.weight.device)
        # Only here do class names come in. Other names, another Classifier; the prompt stays.
        if s.verbalizer == "words":
            self.verbalizer = Verbalizer(encoder, tokenizer, label_words, s.k, s.combine)
        else:
            self.verbalizer = StateVerbalizer(self.model, self.template, label_words,
                                              s.temperature, s.combine)
        self.classes = list(label_words)
        assert self.verbalizer.classes == self.classes  # whoever reads scores goes by this order
        self.offset = torch.zeros(len(self.classes))                                # (C,)

    @property
    def prompt(self):
        """The parameter that is trained, (P, D); None for a hard prompt."""
        return self.model.prompt

    def encode(self, examples):
        """Examples -> sequences, lists of ids."""
        return self.template.encode(e.text for e in examples)

    def forward(self, sequences):
        """Sequences of encode -> scores (B, C), with gradients for the prompt."""
        self.verbalizer.read()
        h = self.model.read(sequences)                                              # (B, D)
        return self.verbalizer.scores(h)                                            # (B, C)

    def score(self, examples, progress=None):
        """Scores of every class for every Example: (N, C) on the CPU, no gradients."""
        # Training goes through forward, which keeps what the gradient needs; this does not.
        sequences = self.encode(examples)
        scores = score_sequences(self.model, self.verbalizer, sequences, progress)
        return scores - self.offset

    @torch.inference_mode()
    def calibrate(self):
        """From now on `score` subtracts what the settings ask for at test time. -> self

        Contextual calibration (Zhao et al., ICML 2021): the scores of a text without content, for
        what every text gets is no evidence. Calibrated stacking (Chao et al., ECCV 2016): a
        constant, from seen classes alone; they are favoured, because they have been trained on.
        """
        # A prompt is selected without either: they are the test's alone.
        self.offset = torch.zeros(len(self.classes))                                # (C,)
        if self.settings.calibration == "contextual":
            empty = self.encode([Example("")])
            self.offset += self(empty)[0].cpu()
        for c, label in enumerate(self.classes):
            if label in (self.settings.seen or ()):
                self.offset[c] += self.settings.stacking
        return self


def decide(scores, classes):
    """scores: (..., N, C), classes: C names -> (..., N) the number of each text's class.

    Of equals it is the first by name: the order of the classes decides nothing.
    """
    by_name = sorted(range(len(classes)), key=lambda c: classes[c])
    return torch.tensor(by_name)[scores[..., by_name].argmax(-1)]


@torch.inference_mode()
def score_sequences(model, verbalizer, sequences, progress=None):
    """Lists of ids -> (N, C) on the CPU. Those of like length go together.

    Under torchrun each of n processes takes every n-th bucket; all of them get all scores, the
    same as one would.
    """
    rank, ranks = shard()
    device = model.encoder.word.weight.device
    scores = torch.zeros(len(sequences), len(verbalizer.classes), device=device)    # (N, C)
    # By length, or half of what is computed would be padding.
    verbalizer.read()
    buckets = length_buckets(sequences, TOKENS_AT_ONCE[device.type])
    bar = tqdm(total=len(sequences), desc=progress, unit="text", disable=progress is None, delay=1)
    with bar:
        for bucket in buckets[rank::ranks]:
            h = model(pad([sequences[i] for i in bucket], device))                  # (B, D)
            scores[to_device(torch.tensor(bucket), device)] = verbalizer.scores(h)  # (B, C)
            bar.update(len(bucket))
    scores = scores.cpu()  # not batch by batch: each would wait for the one before
    if ranks > 1:
        # A sum over the processes, of which all but one have left a text's row at 0.
        torch.distributed.all_reduce(scores)
    # argmax would make a class of a NaN without a word.
    if not torch.isfinite(scores).all():
        raise UserError("some scores are not finite numbers: the prompt or the encoder is damaged, "
                        "or overflows (try --dtype float32)")
    return scores
