"""Template, soft prompt, and the prompt-prepending wrapper around a frozen XLM-R.

    "{prompt} {mask} {text}"  ->  <s> [P1 ... Pm] <mask> text </s>

The m vectors P1 ... Pm are the only thing that is ever trained (Lester et al. 2021). A hard prompt is the same template
with words in their place.
"""
import hashlib
import re

import torch
import torch.nn as nn

from . import UserError
from .data import length_buckets
from .tokenizer import BOS, EOS, PAD
from .weights import read_safetensors, write_safetensors

SLOT = -1  # stands in a list of ids where a soft prompt vector goes
TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}  # in one pass, padding included; cpu: the fastest measured (RESULTS.md), cuda: a guess


class Template:
    """Where prompt, text, literal words and mask go. Parsed once: only the text varies, so all else is two id lists.

    Each span between {placeholders} is tokenised on its own, as XLM-R does around special tokens.
    """

    def __init__(self, pattern, tokenizer, prompt, max_tokens):
        """prompt: number of soft prompt vectors P (int), or the words of a hard prompt (str).

        Raises UserError if a placeholder is missing, doubled or unknown, or if nothing is left for the text.
        """
        parts = re.split(r"(\{[^{}]*\})", pattern)
        for name in parts[1::2]:
            if name not in ("{prompt}", "{text}", "{mask}"):
                raise UserError(f"--template {pattern!r}: unknown placeholder {name}; use {{prompt}}, {{text}}, {{mask}}")
        for name, least in (("{text}", 1), ("{mask}", 1), ("{prompt}", bool(prompt))):
            if not least <= parts.count(name) <= 1:
                raise UserError(f"--template {pattern!r}: {name} must occur once")
        self.tokenizer = tokenizer
        if isinstance(prompt, int) and prompt > max_tokens:
            raise UserError(f"--prompt-length {prompt}: this encoder has room for {max_tokens} tokens in all")
        fill = {"{prompt}": [SLOT] * prompt if isinstance(prompt, int) else tokenizer.encode(prompt),
                "{mask}": [tokenizer.mask]}
        around = [[BOS], [EOS]]  # ids before and after the text
        side = 0
        for part in parts:
            if part == "{text}":
                side = 1
                around[1] = []
            else:
                around[side] += fill[part] if part in fill else tokenizer.encode(part.strip())
        self.before, self.after = around[0], around[1] + [EOS]
        self.room = max_tokens - len(self.before) - len(self.after)
        if self.room < 1:
            raise UserError(f"--template and prompt take {len(self.before) + len(self.after)} of {max_tokens} tokens: "
                            "no room for a text")

    def encode(self, texts):
        """Texts -> lists of ids, SLOT where prompt vectors go. A long text is cut; mask, prompt and words never are."""
        return [self.before + ids[:self.room] + self.after for ids in self.tokenizer.encode(list(texts))]


def pad(rows, device="cpu"):
    """Lists of ids -> (B, T), padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], device=device)


class PromptedEncoder(nn.Module):
    """A frozen encoder that reads prompt vectors as if they were words, and answers with its state at the mask."""

    def __init__(self, encoder, mask_id, prompt=None):
        """prompt: (P, D) or None (a hard prompt needs no vectors)."""
        super().__init__()
        self.encoder, self.mask_id = encoder.requires_grad_(False).eval(), mask_id
        self.prompt = None if prompt is None else nn.Parameter(prompt.clone().float())

    def forward(self, ids):
        """ids: (B, T) from Template.encode and pad -> h (B, D), float32: what the verbalizer reads."""
        words = self.encoder.word(ids.clamp(min=0))                                 # (B, T, D)
        if self.prompt is not None:
            vectors = self.prompt.to(words.dtype).repeat(len(ids), 1)               # (B * P, D)
            words = words.masked_scatter((ids == SLOT)[..., None], vectors)         # row by row, in order
        at = (ids == self.mask_id).int().argmax(1)                                  # (B,)
        x = self.encoder(words, ids != PAD, at)                                     # (B, D)
        return self.encoder.head_hidden(x).float()

    def read(self, rows):
        """Lists of ids, from Template.encode -> h (N, D), in their order. Rows of like length go together, so little is padding."""
        device = self.encoder.word.weight.device
        buckets = length_buckets(rows, TOKENS_AT_ONCE[device.type])
        h = torch.cat([self(pad([rows[i] for i in bucket], device)) for bucket in buckets])    # (N, D), by length
        return h[torch.tensor(sum(buckets, [])).argsort().to(device)]


def init_prompt(mode, length, encoder, tokenizer, words, seed):
    """-> (P, D) float32, the prompt before training.

    words: embeddings of the phrase `words` (repeated or cut to length); vocab: of random ordinary tokens;
    normal: random, with the mean and the spread of the word embeddings.
    """
    generator = torch.Generator().manual_seed(seed)
    E = encoder.word.weight.float().cpu()                                           # (V, D)
    if mode == "words":
        ids = tokenizer.encode(words)
        if not ids:
            raise UserError("--init words needs a phrase with at least one token in --hard-prompt")
        ids = (ids * length)[:length]
    elif mode == "vocab":
        ids = torch.randint(EOS + 2, tokenizer.mask, (length,), generator=generator)
    else:
        return E.mean(0) + E.std(0) * torch.randn(length, E.shape[1], generator=generator)
    return E[ids].clone()


def fingerprint(encoder):
    """A short name for these very weights, from both ends of every tensor: tells encoders apart, is no checksum."""
    digest = hashlib.sha256(repr(encoder.config).encode())
    for name, weight in encoder.state_dict().items():
        ends = torch.cat([weight.flatten()[:512], weight.flatten()[-512:]])
        digest.update(name.encode() + ends.bfloat16().cpu().view(torch.int16).numpy().tobytes())  # the same for any --dtype
    return digest.hexdigest()[:16]


def save_prompt(path, prompt, encoder, settings):
    """The prompt alone (kilobytes), with its encoder's fingerprint and `settings`, a {name: text} that eval.py needs."""
    write_safetensors(path, {"prompt": prompt.detach().float().cpu()}, {"fingerprint": fingerprint(encoder), **settings})


def load_prompt(path, encoder=None):
    """-> (prompt (P, D), settings). Raises UserError if it is damaged, or was trained for another encoder."""
    tensors, settings = read_safetensors(path)
    if set(tensors) != {"prompt"} or tensors["prompt"].ndim != 2 or tensors["prompt"].dtype != torch.float32 \
            or "fingerprint" not in settings:
        raise UserError(f"{path}: not a prompt that train.py saved")
    if encoder is not None and (settings["fingerprint"] != fingerprint(encoder)
                                or tensors["prompt"].shape[1] != encoder.config.width):
        raise UserError(f"{path}: trained for another encoder ({settings.get('encoder', 'unknown')}); "
                        "pass that one with --encoder, or train a prompt for this one")
    return tensors["prompt"], settings
