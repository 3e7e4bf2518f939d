"""XLM-R (Conneau et al. 2020), block by block: a post-LN Transformer encoder, a masked-LM head.

Its kin, too: encoders without the head, and BERT's layout with XLM-R's vocabulary, which differs in
nothing but its numbers (multilingual-e5-small, say; io/weights.py brings them into this shape).

Two shortcuts that a prompt-tuner can afford, both exact: `forward(..., at=positions)` computes the
last layer's query, output projection and FFN for one position a text only, and `head_hidden` stops
before the product with V word vectors.
"""
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from .io.linear import Embedding, Linear
from .io.weights import read_encoder
from .tokenizer import PAD


@dataclass(frozen=True)
class Config:
    """Sizes of an XLM-R. positions: rows of that table; no real token reads the first two."""
    vocab_size: int = 250002    # V
    width: int = 768            # D
    layers: int = 12
    heads: int = 12             # H
    ffn: int = 3072
    positions: int = 514
    eps: float = 1e-5
    token_types: int = 1
    head: bool = True           # has it a masked-LM head?

    @property
    def max_tokens(self):
        """The longest sequence, prompt vectors included: positions start at PAD + 1 = 2."""
        return self.positions - PAD - 1


class Layer(nn.Module):
    """Self-attention, then a feed-forward network. Each is added to its input, and normalised."""

    def __init__(self, c: Config):
        super().__init__()
        self.heads = c.heads
        self.query = Linear(c.width, c.width)
        self.key = Linear(c.width, c.width)
        self.value = Linear(c.width, c.width)
        self.out = Linear(c.width, c.width)
        self.attn_norm = nn.LayerNorm(c.width, c.eps)
        self.up = Linear(c.width, c.ffn)
        self.down = Linear(c.ffn, c.width)
        self.ffn_norm = nn.LayerNorm(c.width, c.eps)

    def split(self, x):
        # (B, T, D) -> (B, H, T, D/H)
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x, mask, at=None):
        """x: (B, T, D); mask: (B, 1, 1, T) True where a real token is, or None.

        at: (B,) positions, or None. -> (B, T, D), or (B, 1, D) with at.
        """
        # Every position offers a key and a value to all others.
        k = self.key(x)                                                 # (B, T, D)
        v = self.value(x)                                               # (B, T, D)
        if at is not None:
            # Only one position is asked for: only it has to query, and to go through the rest.
            x = x[torch.arange(len(x), device=x.device), at][:, None]   # (B, 1, D)
        q = self.query(x)                                               # (B, T, D), or (B, 1, D)
        # H heads attend on their own, each in its slice of D / H numbers; padding gets no weight.
        a = F.scaled_dot_product_attention(self.split(q), self.split(k), self.split(v), mask)
        a = a.transpose(1, 2).flatten(2)                # (B, H, T, D/H) -> (B, T, D)
        # Post-LN: the norm stands after the sum. Newer models have it before the block.
        x = self.attn_norm(x + self.out(a))
        # GELU is the exact one, with erf: the tanh approximation differs in the fourth digit.
        return self.ffn_norm(x + self.down(F.gelu(self.up(x))))


class Head(nn.Module):
    """Masked-LM head. Its last step is a product with the word embeddings E, tied: h E^T + bias."""

    def __init__(self, c: Config):
        super().__init__()
        self.dense = Linear(c.width, c.width)
        self.norm = nn.LayerNorm(c.width, c.eps)
        self.bias = nn.Parameter(torch.zeros(c.vocab_size))


class XLMR(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = c = config
        self.word = Embedding(c.vocab_size, c.width)
        self.position = Embedding(c.positions, c.width)
        # BERT tells two sentences apart by their token type. XLM-R has one, and a single text is
        # of type 0 in BERT as well: in effect a bias.
        self.token_type = Embedding(c.token_types, c.width)
        self.embed_norm = nn.LayerNorm(c.width, c.eps)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.layers))
        self.head = Head(c) if c.head else None

    @staticmethod
    def from_pretrained(name_or_path, device="cpu", dtype=torch.float32):
        """"pocket", a folder in Hugging Face's layout, or a name on the hub.

        The encoder is frozen and in eval mode. Raises UserError (io/weights.py).
        """
        sizes, state = read_encoder(name_or_path)
        # "meta": neither memory nor time for random weights that are thrown away at once.
        with torch.device("meta"):
            encoder = XLMR(Config(**sizes))
        encoder.load_state_dict(state, assign=True)
        # Frozen, for good: only prompts are trained here.
        return encoder.to(device=device, dtype=dtype).requires_grad_(False).eval()

    def forward(self, inputs_embeds, attention_mask=None, at=None, before_layer=None):
        """inputs_embeds: (B, T, D) word and prompt vectors.

        attention_mask: (B, T) bool, False at padding, or None for no padding.
        before_layer: (x (B, T, D), n) -> what layer n reads instead; at n = 0 x has its positions.
        -> the last hidden states (B, T, D); with at, (B,) positions, only theirs, (B, D).
        """
        B, T, _ = inputs_embeds.shape
        if T > self.config.max_tokens:
            raise ValueError(f"{T} tokens; this encoder has room for {self.config.max_tokens}")
        # Positions count real tokens from 2, as fairseq does; padding stays at 1, its own id.
        if attention_mask is None:
            positions = torch.arange(PAD + 1, PAD + 1 + T, device=inputs_embeds.device)     # (T,)
            mask = None
        else:
            positions = attention_mask.cumsum(1) * attention_mask + PAD                     # (B, T)
            mask = attention_mask[:, None, None, :]                     # (B, 1, 1, T)
        # What a token is, plus where it stands.
        x = inputs_embeds + self.position(positions) + self.token_type.weight[0]
        x = self.embed_norm(x)                                                      # (B, T, D)
        last = len(self.layers) - 1
        for n, layer in enumerate(self.layers):
            x = x if before_layer is None else before_layer(x, n)
            # Of the last layer's answers only those at `at` will be used.
            x = layer(x, mask, at if n == last else None)
        return x if at is None else x[:, 0]

    def head_hidden(self, x):
        """Last hidden states (..., D) -> h (..., D): the head up to its product with E."""
        return self.head.norm(F.gelu(self.head.dense(x)))

    def logits(self, x):
        """Last hidden states (..., D) -> logits over the whole vocabulary (..., V).

        Pretraining and tutorials only: 250,002 products a position.
        """
        return F.linear(self.head_hidden(x), self.word.weight, self.head.bias)
