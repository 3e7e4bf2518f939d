"""The verbalizer against NPPrompt as its paper says it."""
import math
import warnings

import pytest
import torch

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io.label_words import words_or_names
from minirosprompt.verbalizer import Verbalizer

LABELS = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf", "moss"]}


def by_the_book(encoder, tokenizer, label_words, h, k, combine):
    """NPPrompt as its paper says it, one token at a time, from logits over the whole vocabulary."""
    E = encoder.word.weight                                             # (V, D)
    logits = h @ E.T + encoder.head.bias                                # (B, V)
    classes = []
    for words in label_words.values():
        of_words = []
        for word in words:
            of_pieces = []
            cubes = [len(tokenizer.piece(i)) ** 3 for i in tokenizer.encode(word)]
            for piece in tokenizer.encode(word):
                b = E[piece]                                            # (D,)
                s = [float(E[j] @ b / E[j].norm() / b.norm()) for j in range(len(E))]
                for j in tokenizer.special:
                    s[j] = -math.inf
                nearest = sorted(range(len(E)), key=lambda j: -s[j])[:k]
                z = sum(math.exp(s[j]) for j in nearest)
                of_pieces.append(sum(math.exp(s[j]) / z * logits[:, j] for j in nearest))
            of_words.append(sum(c * s for c, s in zip(cubes, of_pieces)) / sum(cubes))
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
        of_word = [tokenizer.piece(i) for i in tokenizer.encode(word)]
        assert pieces[0][0] in of_word  # a token is its own nearest neighbour
        assert not {"<s>", "</s>", "<pad>", "<unk>", "<mask>"} & {piece for piece, _ in pieces}


def test_permuting_labels_permutes_scores(encoder, tokenizer):
    h = torch.randn(4, 32)
    order = ["green", "red", "blue"]
    scores = Verbalizer(encoder, tokenizer, LABELS).scores(h)
    again = Verbalizer(encoder, tokenizer, {c: LABELS[c] for c in order}).scores(h)
    torch.testing.assert_close(again, scores[:, [2, 0, 1]])


def test_bad_label_words(encoder, tokenizer):
    # The vocabulary has nothing of an emoji; punctuation says nothing.
    for word in ("", " ", "⚽", "☂☂", "⚽ ☂", "⚽!", "-"):
        with pytest.raises(UserError, match=f"class 'red': the label word '{word}' has no tokens"):
            Verbalizer(encoder, tokenizer, {"red": [word], "blue": ["blue"]})
    with pytest.raises(UserError, match="at least one label word"):
        Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": []})


# ---- words of several pieces ---------------------------------------------------------------------

def pieces_used(encoder, tokenizer, label_words):
    """-> {class: pieces that stand for it}"""
    used = {label: set() for label in label_words}
    for label, _, found in Verbalizer(encoder, tokenizer, label_words).neighbours:
        used[label].add(found[0][0])
    return used


def test_every_piece_of_a_label_word_stands_for_it(encoder, tokenizer):
    """Before, a word of several pieces became the one token nearest to their mean."""
    used = pieces_used(encoder, tokenizer, {"red": ["cherry rose"], "blue": ["sky sea whale"]})
    assert used == {"red": {"▁cherry", "▁rose"}, "blue": {"▁sky", "▁sea", "▁whale"}}


def test_a_piece_of_all_classes_says_nothing(encoder, tokenizer):
    used = pieces_used(encoder, tokenizer, {"red": ["red cloud"], "white": ["cloud white"]})
    assert used == {"red": {"▁red"}, "white": {"▁white"}}


def test_a_piece_of_some_classes_tells_them_from_the_others(encoder, tokenizer):
    """Found by a user: of "world politics", "local politics", "sports" politics was left out."""
    labels = {"one": ["sky sea"], "two": ["leaf sea"], "three": ["red"]}
    used = pieces_used(encoder, tokenizer, labels)
    assert used == {"one": {"▁sky", "▁sea"}, "two": {"▁leaf", "▁sea"}, "three": {"▁red"}}


def test_long_pieces_speak_for_a_word_not_a_frequent_short_one(encoder, tokenizer):
    """XLM-R's "politics" is "▁politic" and "s". With the best piece a frequent "s" won always."""
    encoder.head.bias.data[tokenizer.encode("sea")] = 20.0  # as frequent as that "s"
    h = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    logits = h @ encoder.word.weight.T + encoder.head.bias                          # (B, V)
    whale, sea = logits[:, tokenizer.encode("whale sea")].T                         # (B,), (B,)
    scores = Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": ["whale sea"]}).scores(h)
    by_hand = (6 ** 3 * whale + 4 ** 3 * sea) / (6 ** 3 + 4 ** 3)  # "▁whale", "▁sea"
    torch.testing.assert_close(scores[:, 1], by_hand)


def test_a_class_keeps_its_only_piece(encoder, tokenizer):
    labels = {"white": ["cloud"], "red": ["red cloud"], "blue": ["cloud sea"]}
    used = pieces_used(encoder, tokenizer, labels)
    assert used == {"white": {"▁cloud"}, "red": {"▁red", "▁cloud"}, "blue": {"▁cloud", "▁sea"}}


def test_a_mixture_of_other_classes_is_warned_of_in_one_line(encoder, tokenizer):
    """It is a mean of theirs, so one of them fits every text better."""
    labels = {"white": ["cloud"], "red": ["red"], "sea": ["sea"], "both": ["red cloud"],
              "more": ["red sea"], "fine": ["red leaf"]}
    with pytest.warns(UserWarning) as warned:
        pieces_used(encoder, tokenizer, labels)
    (said,) = [str(warning.message) for warning in warned]
    assert "'both' (of white, red), 'more' (of red, sea); use other words" in said
    intents = {"a": ["red sky"], "b": ["red sea"], "c": ["leaf sky"], "d": ["leaf sea"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pieces_used(encoder, tokenizer, intents)  # each piece is shared, each pair is one class's


def test_a_name_beside_classes_with_many_words_is_warned_of():
    of_data = {"sports": [f"word {n}" for n in range(24)]}
    with pytest.warns(UserWarning, match="'sports' has 24 label words, .* world politics a name"):
        words = words_or_names(["sports", "world politics"], {"sports": "sports"}, of_data)
    assert words == of_data | {"world politics": ["world politics"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words_or_names(["a", "b"], {"a": "a"}, {"a": ["a", "one more"]})
        words_or_names(["sports"], {"sports": "sports"}, of_data)


def test_a_class_that_is_only_spelt_is_warned_of():
    encoder, tokenizer = load_encoder("pocket")
    with pytest.warns(UserWarning, match="scraps alone: 'football' .*; use other words"):
        Verbalizer(encoder, tokenizer, {"football": ["football"], "sports": ["sports"]})


def test_some_unknown_label_words_are_left_out(encoder, tokenizer):
    """Of many languages an encoder may not know all scripts."""
    with pytest.warns(UserWarning, match="2 label words have no tokens .*: ⚽ .red., ☂ .red."):
        used = pieces_used(encoder, tokenizer, {"red": ["⚽", "red", "☂"], "blue": ["blue"]})
    assert used["red"] == {"▁red"}


@pytest.mark.parametrize(
    "names",
    [("red cloud", "cloud red"), ("moss", "moss"), ("moss", "moss⚽"), ("moss", "moss moss")])
def test_classes_that_always_tie_are_refused(encoder, tokenizer, names):
    labels = {"one": [names[0]], "two": [names[1]], "three": ["blue"]}
    with pytest.raises(UserError, match="'one' and 'two' cannot be told apart"):
        Verbalizer(encoder, tokenizer, labels)
