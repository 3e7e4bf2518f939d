"""What must hold for all inputs, tried on many (hypothesis)."""
import csv
import io
import math

import pytest
import torch
from conftest import WORDS

from minirosprompt.classifier import load_encoder
from minirosprompt.data import load_split, read_examples
from minirosprompt.dro import group_losses, update_log_q
from minirosprompt.io.files import clean, write_row
from minirosprompt.io.languages import load_languages
from minirosprompt.metrics import accuracies, bootstrap, harmonic_mean
from minirosprompt.prompt import PromptedEncoder, Template, init_prompt, pad
from minirosprompt.tokenizer import BOS, EOS
from minirosprompt.verbalizer import Verbalizer

hypothesis = pytest.importorskip("hypothesis")
import numpy as np  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

settings = hypothesis.settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
known = [word for line in WORDS.values() for word in line.split()]
word = st.sampled_from([*known, "über", "你好", "zzz", "!"])
words = st.lists(word, max_size=25).map(" ".join)
texts = words | st.text(max_size=40)
unit = st.floats(0, 1)


@pytest.fixture(scope="module")
def reading(tiny):
    """read(texts, label_words, k, combine) -> scores (N, C), all texts in one padded batch.

    Its parts are its attributes.
    """
    encoder, tokenizer = load_encoder(tiny)
    prompt = init_prompt("vocab", 4, encoder, tokenizer, "", 0)
    model = PromptedEncoder(encoder, tokenizer.mask, prompt)
    template = Template("{prompt} {text} {mask}", tokenizer, 4, encoder.config.max_tokens)

    @torch.inference_mode()
    def read(texts, label_words, k=3, combine="max"):
        verbalizer = Verbalizer(encoder, tokenizer, label_words, k, combine)
        return verbalizer.scores(model(pad(template.encode(texts))))

    read.encoder = encoder
    read.tokenizer = tokenizer
    read.template = template
    return read


LABELS = {label: [label, *line.split()[:2]] for label, line in WORDS.items()}


@settings
@hypothesis.given(
    st.permutations(list(LABELS)),
    st.lists(texts, min_size=1, max_size=3),
    st.sampled_from(["max", "mean"]),
    st.integers(1, 8),
)
def test_permuting_labels_permutes_scores(reading, order, some, combine, k):
    plain = reading(some, LABELS, k, combine)
    permuted = reading(some, {label: LABELS[label][::-1] for label in order}, k, combine)
    want = plain[:, [list(LABELS).index(label) for label in order]]
    torch.testing.assert_close(permuted, want, atol=1e-5, rtol=1e-5)


@settings
@hypothesis.given(texts, st.lists(texts, min_size=1, max_size=4))
def test_neither_padding_nor_company_changes_a_prediction(reading, text, company):
    alone = reading([text], LABELS)[0]
    among = reading([*company, text], LABELS)[-1]
    assert (alone - among).abs().max() <= 1e-5
    top = alone.topk(2).values
    assert alone.argmax() == among.argmax() or top[0] - top[1] < 2e-5  # but for a tie


PATTERNS = [
    "{prompt} {text} {mask}",
    "{text} {prompt} {mask}",
    "{mask} about {prompt} : {text}",
    "{text} {mask} {prompt}",
]


@settings
@hypothesis.given(texts, st.sampled_from(PATTERNS), st.integers(1, 20), st.text(max_size=8))
def test_template(reading, text, pattern, P, hard):
    """Never too long, nothing but the text ever cut, and the text comes back out of it."""
    tokenizer = reading.tokenizer
    room = reading.encoder.config.max_tokens
    first = tokenizer.mask + 1  # the virtual id of the first prompt vector
    for prompt, vectors in ((P, range(first, first + P)), (hard or "x", ())):
        template = Template(pattern, tokenizer, prompt, room)
        (ids,) = template.encode([text])
        inside = ids[len(template.before):len(ids) - len(template.after)]
        assert len(ids) <= room
        assert ids[0] == BOS
        assert ids[-1] == EOS
        assert ids.count(tokenizer.mask) == 1
        assert [i for i in ids if i > tokenizer.mask] == list(vectors)
        assert ids == template.before + inside + template.after
        assert inside == tokenizer.encode(text)[:template.room]
        # whatever a text says, it is text
        assert not set(inside) & {BOS, EOS}
        assert all(i < tokenizer.mask for i in inside)


@settings
@hypothesis.given(st.text(max_size=60))
def test_tokenizer_never_loses_what_is_left_after_normalisation(reading, text):
    tokenizer = reading.tokenizer
    ids = tokenizer.encode(text)
    assert all(3 <= i < tokenizer.mask for i in ids)
    assert tokenizer.encode([text, ""]) == [ids, []]
    if 3 not in ids:  # <unk>
        assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert clean(clean(text)) == clean(text)


@st.composite
def losses_and_groups(draw):
    """-> G, [[(loss, group) of a text] of a step]"""
    G = draw(st.integers(1, 5))
    text = st.tuples(st.floats(0, 50), st.integers(0, G - 1))
    step = st.lists(text, min_size=1, max_size=12)
    return G, draw(st.lists(step, min_size=1, max_size=20))


@settings
@hypothesis.given(losses_and_groups(), st.floats(0, 10))
def test_q_stays_a_distribution_and_absent_groups_keep_their_ratio(case, eta):
    G, steps = case
    log_q = torch.full((G,), 1 / G).log()
    for step in steps:
        losses = torch.tensor([loss for loss, _ in step])
        group = torch.tensor([g for _, g in step])
        loss_g, count = group_losses(losses, group, G)
        new = update_log_q(log_q, loss_g, count > 0, eta, torch.zeros(G))
        assert torch.isfinite(new.exp()).all()
        assert abs(new.exp().sum().item() - 1) < 1e-4
        absent = (count == 0).nonzero()[:, 0]
        if len(absent) > 1:
            ratio = new[absent] - new[absent[0]]
            before = log_q[absent] - log_q[absent[0]]
            torch.testing.assert_close(ratio, before, atol=1e-3, rtol=1e-4)
        for g in range(G):
            members = losses[group == g]
            mean = members.mean().item() if len(members) else 0.0
            assert loss_g[g].item() == pytest.approx(mean, abs=1e-4)
        log_q = new


@settings
@hypothesis.given(unit, unit)
def test_harmonic_mean_lies_between_its_parts(a, b):
    mean = harmonic_mean(a, b)
    assert mean == harmonic_mean(b, a)
    assert min(a, b) - 1e-12 <= mean <= max(a, b) + 1e-12
    assert mean <= (a + b) / 2 + 1e-12


@st.composite
def predictions(draw):
    """-> C, [(label, predicted) of a text], [is this class seen?]"""
    C = draw(st.integers(1, 6))
    one = st.integers(0, C - 1)
    pairs = draw(st.lists(st.tuples(one, one), min_size=1, max_size=30))
    return C, pairs, draw(st.lists(st.booleans(), min_size=C, max_size=C))


@settings
@hypothesis.given(predictions())
def test_accuracies(case):
    C, pairs, seen = case
    labels, predicted = np.array(pairs).T
    row = accuracies(labels, predicted, np.array(seen), C)
    n_seen = sum(seen[label] for label in labels)
    right = (row["seen"] or 0) * n_seen + (row["unseen"] or 0) * (len(labels) - n_seen)
    assert row["all"] == pytest.approx(right / len(labels))
    assert 0 <= row["macro_f1"] <= 1
    assert (row["macro_f1"] == 1) == bool((labels == predicted).all())
    low, high = bootstrap((labels == predicted).astype(float), np.arange(len(labels)), repeats=200)
    assert 0 <= low <= row["all"] + 1e-12
    assert row["all"] - 1e-12 <= high <= 1


letters = st.characters(blacklist_categories=("Cs",), blacklist_characters="\0")
nonempty = st.text(letters, min_size=1).filter(str.strip)
languages = st.sampled_from(sorted(load_languages()))


@settings
@hypothesis.example([("ends in a carriage return\r", "eng_Latn"), ('x\r\n\t"', "swh_Latn")])
@hypothesis.given(st.lists(st.tuples(nonempty, languages), min_size=1, max_size=8))
def test_rows_survive_writing_and_reading(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tsv") / "x.tsv"
    out = io.StringIO(newline="")
    write_row(out, ["id", "text", "label", "lang"])
    for i, (text, lang) in enumerate(rows):
        write_row(out, [i, text, "x", lang])
    path.write_bytes(out.getvalue().encode())
    assert [(e.text, e.lang) for e in read_examples(path)] == rows


def test_every_language_of_minitopics_survives_writing_and_reading(tmp_path):
    examples = []
    for split in ("train", "dev", "test"):
        examples += load_split("minitopics", split)
    rows = [[e.id, e.text, e.label, e.lang] for e in examples]
    path = tmp_path / "train.tsv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["id", "text", "label", "lang"])
        table.writerows(rows)
    assert [[e.id, e.text, e.label, e.lang] for e in read_examples(path)] == rows
    assert len({e.lang for e in examples}) == 12
    assert math.isclose(len(examples) / 12, 240)
