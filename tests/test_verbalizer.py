"""The verbalizer against NPPrompt as its paper says it."""
import math

import pytest
import torch

from minirosprompt import UserError
from minirosprompt.verbalizer import Verbalizer, without_bare_space

LABELS = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf", "moss"]}


def by_the_book(encoder, tokenizer, label_words, h, k, combine):
    """NPPrompt as its paper says it, one word at a time, from logits over the whole vocabulary."""
    E = encoder.word.weight                                             # (V, D)
    logits = h @ E.T + encoder.head.bias                                # (B, V)
    classes = []
    for words in label_words.values():
        of_words = []
        for word in words:
            b = E[without_bare_space(tokenizer.encode(word), tokenizer)].mean(0)        # (D,)
            s = [float(E[j] @ b / E[j].norm() / b.norm()) for j in range(len(E))]
            for j in tokenizer.special:
                s[j] = -math.inf
            nearest = sorted(range(len(E)), key=lambda j: -s[j])[:k]
            z = sum(math.exp(s[j]) for j in nearest)
            of_words.append(sum(math.exp(s[j]) / z * logits[:, j] for j in nearest))
        of_words = torch.stack(of_words)
        classes.append(of_words.amax(0) if combine == "max" else of_words.mean(0))
    return torch.stack(classes, 1)


@pytest.mark.parametrize("combine", ["max", "mean"])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_matrix_form_equals_gathering_from_the_full_vocabulary(encoder, tokenizer, k, combine):
    h = torch.randn(5, 32, generator=torch.Generator().manual_seed(k))
    verbalizer = Verbalizer(encoder, tokenizer, LABELS, k, combine)
    assert verbalizer.weight.shape == ((6, 32) if combine == "max" else (3, 32))
    want = by_the_book(encoder, tokenizer, LABELS, h, k, combine)
    torch.testing.assert_close(verbalizer.scores(h), want, atol=1e-4, rtol=0)


def test_neighbours(encoder, tokenizer):
    for label, word, pieces in Verbalizer(encoder, tokenizer, LABELS, k=5).neighbours:
        assert word in LABELS[label]
        assert len(pieces) == 5
        assert abs(sum(w for _, w in pieces) - 1) < 1e-5
        ids = tokenizer.encode(word)
        if len(ids) == 1:
            assert pieces[0][0] == tokenizer.piece(ids[0])  # a word is its own nearest neighbour
        assert not {"<s>", "</s>", "<pad>", "<unk>", "<mask>"} & {piece for piece, _ in pieces}


def test_permuting_labels_permutes_scores(encoder, tokenizer):
    h = torch.randn(4, 32)
    order = ["green", "red", "blue"]
    scores = Verbalizer(encoder, tokenizer, LABELS).scores(h)
    again = Verbalizer(encoder, tokenizer, {c: LABELS[c] for c in order}).scores(h)
    torch.testing.assert_close(again, scores[:, [2, 0, 1]])


def test_bad_label_words(encoder, tokenizer):
    with pytest.raises(UserError, match="'' has no tokens"):
        Verbalizer(encoder, tokenizer, {"red": [""]})
    with pytest.raises(UserError, match="at least one label word"):
        Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": []})
