"""Nonparametric verbalizer (NPPrompt, Zhao et al., ACL 2023): a class is what its name's neighbours say.

For a label word with vector b (its embedding; the mean over its pieces if it has several), over the embeddings E:

    s_j = cos(E_j, b)      w = softmax(s over the K nearest)      score = sum_j w_j logit_j,   logit_j = h . E_j + bias_j

The head is linear in its last step, so score = h . (sum_j w_j E_j) + sum_j w_j bias_j: a label set is a C x D matrix, and
the product over the whole vocabulary is never needed. Nothing here is trained, so any class can be named at test time.
"""
import torch
import torch.nn.functional as F

from . import UserError


def without_bare_space(ids, tokenizer):
    """Drops a lone "▁" in front: in scripts without spaces every word alone begins with it, and it says nothing."""
    return ids[1:] if len(ids) > 1 and tokenizer.piece(ids[0]) == "▁" else ids


def nearest(b, E, k, tokenizer):
    """b: (W, D), E: (V, D) -> cosines and ids (W, K) of each b's k nearest ordinary tokens."""
    length, found = E.norm(dim=1).clamp(min=1e-12), []                                   # (V,)
    for some in F.normalize(b, dim=1).split(64):  # (W, V) at once would take a gigabyte for 1,000 words in XLM-R's vocabulary
        cosine = some @ E.T / length                                                     # (64, V)
        cosine[:, list(tokenizer.special)] = -torch.inf
        cosine[:, tokenizer.vocab_size:] = -torch.inf                                    # rows that no piece uses
        found.append(cosine.topk(k))
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


class Verbalizer:
    """Scores classes from the mask's state h.

    classes: the C names, in order; neighbours: per label word (class, word, [(piece, weight)]), for people to read.
    """

    def __init__(self, encoder, tokenizer, label_words, k=12, combine="max"):
        """label_words: {class: [word, ...]}, in as many languages as one can write. W words in all.

        combine: how the words of a class make one score: "max" (NPPrompt's choice) or "mean".
        Raises UserError for a class without words or a word without tokens.
        """
        self.classes, self.combine, self.offset = list(label_words), combine, None
        words = [(c, word) for c, of_class in enumerate(label_words.values()) for word in dict.fromkeys(of_class)]
        pieces = [without_bare_space(ids, tokenizer) for ids in tokenizer.encode([word for _, word in words])]
        for (c, word), ids in zip(words, pieces):
            if not ids:
                raise UserError(f"class {self.classes[c]!r}: the label word {word!r} has no tokens")
        if len(set(c for c, _ in words)) < len(self.classes):
            raise UserError("every class needs at least one label word")
        if k > tokenizer.vocab_size - len(tokenizer.special):
            raise UserError(f"--k {k}: the vocabulary has {tokenizer.vocab_size - len(tokenizer.special)} ordinary tokens")
        with torch.no_grad():
            E = encoder.word.weight.float()                                              # (V, D)
            b = torch.stack([E[ids].mean(0) for ids in pieces])                          # (W, D)
            similarity, ids = nearest(b, E, k, tokenizer)                                # (W, K)
            weight = similarity.softmax(1)                                               # (W, K)
            self.rows = torch.einsum("wk,wkd->wd", weight, E[ids])                       # (W, D)
            self.bias = (weight * encoder.head.bias.float()[ids]).sum(1)                 # (W,)
            self.owner = torch.tensor([c for c, _ in words], device=E.device)            # (W,)
            if combine == "mean":  # linear, so it folds into the matrix: W = C
                of_class = F.one_hot(self.owner).T.float()                               # (C, W)
                of_class = of_class / of_class.sum(1, keepdim=True)
                self.rows, self.bias = of_class @ self.rows, of_class @ self.bias        # (C, D), (C,)
        self.neighbours = [(self.classes[c], word, [(tokenizer.piece(j), w) for j, w in zip(js, ws)])
                           for (c, word), js, ws in zip(words, ids.tolist(), weight.tolist())]

    def scores(self, h):
        """h: (B, D) -> (B, C), minus the offset if there is one."""
        scores = h @ self.rows.T + self.bias                                             # (B, W), or (B, C) for mean
        if self.combine == "max":
            empty = scores.new_full((len(h), len(self.classes)), -torch.inf)
            scores = empty.scatter_reduce(1, self.owner.expand_as(scores), scores, "amax")
        return scores if self.offset is None else scores - self.offset

    def calibrate(self, h):
        """Contextual calibration (Zhao et al., ICML 2021): from now on subtract the scores of h (1, D), the state for a
        text without content. What every text gets is no evidence for a class."""
        self.offset = None
        self.offset = self.scores(h)[0].detach()

    def stack(self, seen, gamma):
        """Calibrated stacking (Chao et al., ECCV 2016): from now on subtract gamma from the scores of the seen classes."""
        penalty = torch.tensor([gamma if c in seen else 0.0 for c in self.classes], device=self.rows.device)
        self.offset = penalty if self.offset is None else self.offset + penalty
