"""Nonparametric verbalizer (NPPrompt, Zhao et al., ACL 2023): a class is what its name's
neighbours say.

For a piece of a label word with embedding b, over the embeddings E:

    s_j = cos(E_j, b)
    w = softmax(s over the K nearest)
    score = sum_j w_j logit_j,   logit_j = h . E_j + bias_j

The head is linear in its last step, so score = h . (sum_j w_j E_j) + sum_j w_j bias_j; so is the
weighted mean over a word's pieces. A label set is a W x D matrix, and the product over the whole
vocabulary is never needed. Nothing here is trained: any class can be named at test time.
"""
import torch
import torch.nn.functional as F

from . import UserError
from .io.label_words import check_apart, own_pieces, tokens_of


def nearest(b, E, k, tokenizer):
    """b: (M, D), E: (V, D) -> cosines and ids (M, K) of each b's k nearest ordinary tokens."""
    length = E.norm(dim=1).clamp(min=1e-12)                                         # (V,)
    similarity = []
    ids = []
    # (M, V) at once would take a gigabyte for 1,000 pieces in XLM-R's vocabulary
    for of_64 in F.normalize(b, dim=1).split(64):
        cosine = of_64 @ E.T / length                                               # (64, V)
        cosine[:, list(tokenizer.special)] = -torch.inf
        cosine[:, tokenizer.vocab_size:] = -torch.inf   # rows that no piece uses
        top = cosine.topk(k)
        similarity.append(top.values)
        ids.append(top.indices)
    return torch.cat(similarity), torch.cat(ids)


def mean_of(owner, weight=1):
    """owner (N,): the owner's number of each thing; weight (N,) -> (owners, N): each one's mean."""
    member = F.one_hot(owner).T * weight                                            # (owners, N)
    return member / member.sum(1, keepdim=True)


def best_word(scores, owner, C):
    """scores of words (B, W), owner (W,): a word's class -> (B, C), the best of a class's words.

    It speaks for the class, in whatever language; the gradient goes through it (equals share it).
    """
    empty = scores.new_full((len(scores), C), -torch.inf)                           # (B, C)
    return empty.scatter_reduce(1, owner.expand_as(scores), scores, "amax")


class Verbalizer:
    """Scores classes from the mask's state h.

    classes: the C names; neighbours: (class, word, [(piece, weight)]) of each piece, for people.
    """

    def __init__(self, encoder, tokenizer, label_words, k=1, combine="max"):
        """label_words: {class: [word, ...]}, in as many languages as one can write.

        A word's pieces count by the cubes of their lengths: the "s" of "politic", "s" fits any text
        (results/log.md; NPPrompt's code takes the first, "the"). Those of all classes are left out.
        combine: the best word, "max", as NPPrompt, or "mean". Raises as io/label_words.py does.
        """
        self.classes = list(label_words)
        self.combine = combine
        ordinary = tokenizer.vocab_size - len(tokenizer.special)
        if k > ordinary:
            raise UserError(f"--k {k}: the vocabulary has {ordinary} ordinary tokens")
        found = own_pieces(label_words, tokenizer)                                  # W words
        pieces = [i for _, _, ids in found for i in ids]                            # M ids
        word_of = [n for n, (_, _, ids) in enumerate(found) for _ in ids]           # M numbers
        owner = [self.classes.index(label) for label, _, _ in found]                # W numbers
        # Nothing below depends on a text or on the prompt, so it is done once for a label set.
        with torch.no_grad():
            E = encoder.word.weight.float()                                         # (V, D)
            similarity, ids = nearest(E[pieces], E, k, tokenizer)                   # (M, K)
            w = similarity.softmax(1)                                               # (M, K)
            # The weighted mean of logits is the logit of the weighted mean (see above) ...
            weight = torch.einsum("mk,mkd->md", w, E[ids])                          # (M, D)
            bias = (w * encoder.head.bias.float()[ids]).sum(1)                      # (M,)
            self.owner = torch.tensor(owner, device=E.device)                       # (W,) its class
            # ... and so it is for the mean of a word's pieces, of a class's words.
            length = torch.tensor([len(tokenizer.piece(i)) for i in pieces], device=E.device)
            mean = mean_of(torch.tensor(word_of, device=E.device), length ** 3)     # (W, M)
            if combine == "mean":
                mean = mean_of(self.owner) @ mean                                   # (C, M), W = C
            self.weight = mean @ weight                                             # (W, D)
            self.bias = mean @ bias                                                 # (W,)
        self.neighbours = []
        for n, js, ws in zip(word_of, ids.tolist(), w.tolist()):
            of_piece = [(tokenizer.piece(j), weight) for j, weight in zip(js, ws)]
            self.neighbours.append((*found[n][:2], of_piece))

    def read(self):
        """Nothing to do: label words are vectors of the embedding, whatever the prompt."""

    def scores(self, h):
        """h: (B, D) -> (B, C)."""
        scores = h @ self.weight.T + self.bias                          # (B, W), or (B, C) for mean
        if self.combine == "mean":
            return scores
        return best_word(scores, self.owner, len(self.classes))


class StateVerbalizer:
    """A class is the encoder's own answer to its label words, read under the texts' prompt.

        score = max over the class's words of cos(state(text), state(word)) / temperature

    or, for combine "mean", cos(state(text), r_c) / temperature with the class's vector
    r_c = normalise(mean over its words of normalise(state(word))). Nothing in it is trained, but
    gradients reach the prompt through both sides. It needs no masked-LM head. The form is that of
    contrastive zero-shot classifiers (CLIP, Radford et al., ICML 2021), one encoder for both sides.
    """

    def __init__(self, model, template, label_words, temperature=0.05, combine="max"):
        """model: PromptedEncoder; template: the texts'. The others, and errors, as Verbalizer's."""
        self.classes = list(label_words)
        self.model = model
        self.temperature = temperature
        self.combine = combine
        found = tokens_of(label_words, template.tokenizer)
        self.neighbours = [(label, word, []) for label, word, _ in found]  # the words themselves
        self.sequences = template.encode([word for _, word, _ in found], "label words")  # W lists
        owner = [self.classes.index(label) for label, _, _ in found]
        check_apart({label: [tuple(ids) for c, ids in zip(owner, self.sequences) if c == n]
                     for n, label in enumerate(self.classes)})
        self.owner = torch.tensor(owner, device=model.encoder.word.weight.device)   # (W,)
        self.mean = mean_of(self.owner)                                             # (C, W)

    def read(self):
        """Reads the label words under the prompt as it is now. Once a step; once for scoring."""
        weight = F.normalize(self.model.read(self.sequences), dim=1)                # (W, D)
        if self.combine == "mean":
            weight = F.normalize(self.mean @ weight, dim=1)                         # (C, D)
        self.weight = weight

    def scores(self, h):
        """h: (B, D) -> (B, C). read() comes before."""
        cosine = F.normalize(h, dim=1) @ self.weight.T                  # (B, W), or (B, C) for mean
        scores = cosine / self.temperature
        if self.combine == "mean":
            return scores
        return best_word(scores, self.owner, len(self.classes))
