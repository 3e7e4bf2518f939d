"""Template, soft prompt, and the prompt-prepending wrapper around a frozen XLM-R.

    "{prompt} {mask} {text}"  ->  <s> [P1 ... Pm] <mask> text </s>

The m vectors P1 ... Pm are the only thing that is ever trained (Lester et al. 2021). A hard prompt
is the same template with words in their place.
"""
import re

import torch
import torch.nn as nn
import torch.nn.functional as F

from . import UserError
from .data import length_buckets
from .io.runtime import to_device
from .io.texts import warn_of_losses
from .tokenizer import BOS, EOS, PAD, UNK

# In one pass, padding included. cpu: the fastest measured (benchmarks/README.md); cuda: a guess.
TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}
PLACEHOLDERS = ("{prompt}", "{text}", "{mask}")


class Template:
    """Where prompt, text, literal words and mask go.

    Parsed once: only the text varies, so all else is two lists of ids. Each span between
    {placeholders} is tokenised on its own, as XLM-R does around special tokens.
    """

    def __init__(self, pattern, tokenizer, prompt, max_tokens, needs_mask=True):
        """prompt: number of soft prompt vectors P (int), or the words of a hard prompt (str).

        Raises UserError if a placeholder is missing, doubled or unknown, or if nothing is left for
        the text.
        """
        parts = re.split(r"(\{[^{}]*\})", pattern)  # literal, placeholder, literal, ...
        for name in parts[1::2]:
            if name not in PLACEHOLDERS:
                raise UserError(f"--template {pattern!r}: unknown placeholder {name}; "
                                "use {prompt}, {text}, {mask}")
        for name in PLACEHOLDERS:
            optional = name == "{prompt}" and not prompt or name == "{mask}" and not needs_mask
            if parts.count(name) > 1 or parts.count(name) == 0 and not optional:
                raise UserError(f"--template {pattern!r}: {name} must occur once")
        if isinstance(prompt, int) and prompt > max_tokens:
            raise UserError(f"--prompt-length {prompt}: "
                            f"this encoder has room for {max_tokens} tokens in all")
        self.tokenizer = tokenizer
        # A soft prompt has no words. Its vectors still need a place among the ids, so they get
        # virtual ones, after <mask>, which is the last real id.
        if isinstance(prompt, int):
            prompt_ids = list(range(tokenizer.mask + 1, tokenizer.mask + 1 + prompt))
        else:
            prompt_ids = tokenizer.encode(prompt)
        self.before = [BOS]  # ids in front of the text
        self.after = []      # ids behind it
        side = self.before
        for part in parts:
            if part == "{text}":
                side = self.after
            elif part == "{prompt}":
                side += prompt_ids
            elif part == "{mask}":
                side.append(tokenizer.mask)
            else:
                side += tokenizer.encode(part.strip())
        self.after.append(EOS)
        # What is left of the encoder's room belongs to the text.
        used = len(self.before) + len(self.after)
        self.room = max_tokens - used
        if self.room < 1:
            raise UserError(f"--template and prompt take {used} of {max_tokens} tokens: "
                            "no room for a text")

    def encode(self, texts, what="texts"):
        """Texts -> sequences, lists of ids. A long text is cut; all else never is."""
        # All texts in one call, because SentencePiece is much faster so.
        texts = list(texts)
        texts_ids = self.tokenizer.encode(texts)
        warn_of_losses(texts, texts_ids, self.room, self.tokenizer, what)
        return [self.before + ids[:self.room] + self.after for ids in texts_ids]


def pad(sequences, device="cpu"):
    """Lists of ids -> input_ids (B, T), padded on the right."""
    longest = max(map(len, sequences))
    padded = [ids + [PAD] * (longest - len(ids)) for ids in sequences]
    return to_device(torch.tensor(padded), device)


class PromptedEncoder(nn.Module):
    """A frozen encoder that reads prompt vectors as if they were words, and answers with a state.

    Which state, says `pooling`: "head", the masked-LM head's at the mask; "mask", the encoder's at
    the mask; "mean", the mean of the encoder's over all tokens, which is what e5 was trained for.
    """

    def __init__(self, encoder, mask_id, prompt=None, pooling="head"):
        """prompt: (P, D), or None (a hard prompt needs no vectors). Raises UserError."""
        super().__init__()
        # Of a prompt with more dimensions `embed` would read the first P vectors and no more. A
        # fork that uses them all (virtual ids count from first to last) begins with this line.
        if prompt is not None and prompt.ndim != 2:
            raise UserError(f"the prompt has the shape {tuple(prompt.shape)}; this code knows no "
                            "other than (P, D)")
        self.pooling = pooling
        # Frozen once more, here where it matters: whoever made the encoder may have forgotten.
        self.encoder = encoder.requires_grad_(False).eval()
        self.mask_id = mask_id
        self.prompt = None if prompt is None else nn.Parameter(prompt.clone().float())

    def embed(self, input_ids):
        """(B, T) ids -> inputs_embeds (B, T, D): of a word its embedding, else a prompt vector."""
        # Virtual ids lie outside the embedding table: any row will do there, it is not used.
        words = self.encoder.word(input_ids.clamp(max=self.mask_id))                # (B, T, D)
        return words if self.prompt is None else self.place(words, input_ids, self.prompt)

    def place(self, x, input_ids, prompt):
        """x: (B, T, D), prompt: (..., D) -> x with the prompt's vectors where their ids stand."""
        slot = input_ids - (self.mask_id + 1)  # (B, T) which prompt vector; below 0: a word
        # The parameter itself stays float32, also where the encoder computes in bfloat16: small
        # steps would be lost in eight bits.
        prompt = prompt.flatten(0, -2).to(x.dtype)                                  # (P, D)
        vectors = F.embedding(slot.clamp(min=0), prompt)                            # (B, T, D)
        return torch.where((slot >= 0)[..., None], vectors, x)

    def forward(self, input_ids):
        """input_ids: (B, T) from Template.encode and pad -> h (B, D), float32.

        h is the state that the verbalizer reads.
        """
        inputs_embeds = self.embed(input_ids)                                       # (B, T, D)
        attention_mask = input_ids != PAD                                           # (B, T)
        if self.pooling == "mean":
            x = self.encoder(inputs_embeds, attention_mask)                         # (B, T, D)
            x = x.float() * attention_mask[..., None]  # bfloat16 would lose the sum's last bits
            h = x.sum(1) / attention_mask.sum(1, keepdim=True)                      # (B, D)
        else:
            mask_position = (input_ids == self.mask_id).int().argmax(1)             # (B,)
            h = self.encoder(inputs_embeds, attention_mask, at=mask_position)       # (B, D)
            if self.pooling == "head":
                h = self.encoder.head_hidden(h)
        # Scores are computed in float32, whatever the encoder's dtype.
        return h.float()

    def read(self, sequences):
        """Lists of ids, from Template.encode -> h (N, D), in their order.

        Those of like length go together, so that little is padding.
        """
        device = self.encoder.word.weight.device
        buckets = length_buckets(sequences, TOKENS_AT_ONCE[device.type])
        h = [self(pad([sequences[i] for i in bucket], device)) for bucket in buckets]
        # Row n of what was read belongs to sequence order[n]; argsort is the way back.
        order = torch.tensor(sum(buckets, []))                                      # (N,)
        return torch.cat(h)[to_device(order.argsort(), device)]                     # (N, D)


def init_prompt(mode, length, encoder, tokenizer, words, seed):
    """-> (P, D) float32, the prompt before training.

    words: embeddings of the phrase `words` (repeated or cut to length); vocab: of random ordinary
    tokens; normal: random, with the mean and the spread of the word embeddings.
    """
    # A generator of its own: the same prompt whatever else has drawn random numbers before.
    generator = torch.Generator().manual_seed(seed)
    E = encoder.word.weight.float().cpu()                                           # (V, D)
    if mode == "normal":
        return E.mean(0) + E.std(0) * torch.randn(length, E.shape[1], generator=generator)
    if mode == "vocab":
        # Special tokens are no words: a prompt of <pad> and <unk> would start from nowhere.
        ids = torch.randint(UNK + 1, tokenizer.mask, (length,), generator=generator)
        return E[ids].clone()
    ids = tokenizer.encode(words)
    if not ids:
        raise UserError("--init words needs a phrase with at least one token in --hard-prompt")
    return E[(ids * length)[:length]].clone()
