import math

import pytest
import torch

from minirosprompt import UserError
from minirosprompt.verbalizer import Verbalizer, without_bare_space

LABELS = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf", "moss"]}


def by_the_book(encoder, tokenizer, label_words, h, k, combine):
    """NPPrompt as its paper says it, one word at a time, from logits over the whole vocabulary."""
    E, logits = encoder.word.weight, h @ encoder.word.weight.T + encoder.head.bias        # (V, D), (B, V)
    classes = []
    for words in label_words.values():
        of_words = []
        for word in words:
            b = E[without_bare_space(tokenizer.encode(word), tokenizer)].mean(0)
            s = [(-math.inf if j in tokenizer.special else float(E[j] @ b / E[j].norm() / b.norm())) for j in range(len(E))]
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
    assert verbalizer.rows.shape == ((6, 32) if combine == "max" else (3, 32))
    torch.testing.assert_close(verbalizer.scores(h), by_the_book(encoder, tokenizer, LABELS, h, k, combine), atol=1e-4, rtol=0)


def test_neighbours(encoder, tokenizer):
    for label, word, pieces in Verbalizer(encoder, tokenizer, LABELS, k=5).neighbours:
        assert word in LABELS[label] and len(pieces) == 5 and abs(sum(w for _, w in pieces) - 1) < 1e-5
        ids = tokenizer.encode(word)
        if len(ids) == 1:
            assert pieces[0][0] == tokenizer.piece(ids[0])  # a word is its own nearest neighbour
        assert not {"<s>", "</s>", "<pad>", "<unk>", "<mask>"} & {piece for piece, _ in pieces}


def test_permuting_labels_permutes_scores(encoder, tokenizer):
    h, order = torch.randn(4, 32), ["green", "red", "blue"]
    scores = Verbalizer(encoder, tokenizer, LABELS).scores(h)
    again = Verbalizer(encoder, tokenizer, {c: LABELS[c] for c in order}).scores(h)
    torch.testing.assert_close(again, scores[:, [2, 0, 1]])


def test_contextual_calibration(encoder, tokenizer):
    verbalizer, h = Verbalizer(encoder, tokenizer, LABELS), torch.randn(4, 32)
    plain = verbalizer.scores(h)
    verbalizer.calibrate(h[:1])
    torch.testing.assert_close(verbalizer.scores(h), plain - plain[0])
    assert verbalizer.scores(h)[0].abs().max() < 1e-5  # a text without content favours nothing


def test_calibrated_stacking(encoder, tokenizer):
    verbalizer, h = Verbalizer(encoder, tokenizer, LABELS), torch.randn(4, 32)
    plain = verbalizer.scores(h)
    verbalizer.stack(["blue"], 2.5)
    torch.testing.assert_close(verbalizer.scores(h), plain - torch.tensor([0, 2.5, 0]))


def test_bad_label_words(encoder, tokenizer):
    with pytest.raises(UserError, match="'' has no tokens"):
        Verbalizer(encoder, tokenizer, {"red": [""]})
    with pytest.raises(UserError, match="at least one label word"):
        Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": []})
