"""What must hold for all inputs, tried on many (hypothesis)."""
import csv
import io
import math

import pytest
import torch

from conftest import WORDS
from minirosprompt.data import load_split, read_examples
from minirosprompt.io.files import write_row
from minirosprompt.languages import load_languages
from minirosprompt.dro import group_losses, update_log_q
from minirosprompt.metrics import accuracies, bootstrap, harmonic_mean
from minirosprompt.prompt import SLOT, PromptedEncoder, Template, init_prompt, pad
from minirosprompt.io.files import clean
from minirosprompt.tokenizer import BOS, EOS
from minirosprompt.verbalizer import Verbalizer

hypothesis = pytest.importorskip("hypothesis")
import numpy as np  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

settings = hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck))
words = st.lists(st.sampled_from([w for line in WORDS.values() for w in line.split()] + ["über", "你好", "zzz", "!"]), max_size=25).map(" ".join)
texts = words | st.text(max_size=40)
unit = st.floats(0, 1)


@pytest.fixture(scope="module")
def reading(tiny):
    """read(texts, k, combine, label_words) -> scores (N, C), all texts in one padded batch; its parts."""
    from minirosprompt.tokenizer import Tokenizer
    from minirosprompt.io.weights import TOKENIZER_FILE
    from minirosprompt.xlmr import XLMR
    encoder, tokenizer = XLMR.from_pretrained(tiny), Tokenizer(tiny / TOKENIZER_FILE)
    model = PromptedEncoder(encoder, tokenizer.mask, init_prompt("vocab", 4, encoder, tokenizer, "", 0))
    template = Template("{prompt} {text} {mask}", tokenizer, 4, encoder.config.max_tokens)

    @torch.inference_mode()
    def read(texts, label_words, k=3, combine="max"):
        return Verbalizer(encoder, tokenizer, label_words, k, combine).scores(model(pad(template.encode(texts))))
    read.encoder, read.tokenizer, read.template = encoder, tokenizer, template
    return read


LABELS = {label: [label, *line.split()[:2]] for label, line in WORDS.items()}


@settings
@hypothesis.given(st.permutations(list(LABELS)), st.lists(texts, min_size=1, max_size=3), st.sampled_from(["max", "mean"]), st.integers(1, 8))
def test_permuting_labels_permutes_scores(reading, order, some, combine, k):
    plain, permuted = reading(some, LABELS, k, combine), reading(some, {label: LABELS[label][::-1] for label in order}, k, combine)
    torch.testing.assert_close(permuted, plain[:, [list(LABELS).index(label) for label in order]], atol=1e-5, rtol=1e-5)


@settings
@hypothesis.given(texts, st.lists(texts, min_size=1, max_size=4))
def test_neither_padding_nor_company_changes_a_prediction(reading, text, company):
    alone, among = reading([text], LABELS)[0], reading([*company, text], LABELS)[-1]
    assert (alone - among).abs().max() <= 1e-5
    top = alone.topk(2).values
    assert alone.argmax() == among.argmax() or top[0] - top[1] < 2e-5  # but for a tie


@settings
@hypothesis.given(texts, st.sampled_from(["{prompt} {text} {mask}", "{text} {prompt} {mask}", "{mask} about {prompt} : {text}", "{text} {mask} {prompt}"]),
                  st.integers(1, 20), st.text(max_size=8))
def test_template(reading, text, pattern, P, hard):
    """Never too long, nothing but the text ever cut, and the text comes back out of it."""
    tokenizer, room = reading.tokenizer, reading.encoder.config.max_tokens
    for prompt, slots in ((P, P), (hard or "x", 0)):
        template = Template(pattern, tokenizer, prompt, room)
        (ids,) = template.encode([text])
        inside = ids[len(template.before):len(ids) - len(template.after)]
        assert len(ids) <= room and ids[0] == BOS and ids[-1] == EOS and ids.count(tokenizer.mask) == 1 and ids.count(SLOT) == slots
        assert ids == template.before + inside + template.after and inside == tokenizer.encode(text)[:template.room]
        assert not set(inside) & {BOS, EOS, tokenizer.mask, SLOT}  # whatever a text says, it is text


@settings
@hypothesis.given(st.text(max_size=60))
def test_tokenizer_never_loses_what_is_left_after_normalisation(reading, text):
    tokenizer = reading.tokenizer
    ids = tokenizer.encode(text)
    assert all(3 <= i < tokenizer.mask for i in ids) and tokenizer.encode([text, ""]) == [ids, []]
    if 3 not in ids:  # <unk>
        assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert clean(clean(text)) == clean(text)


losses_and_groups = st.integers(1, 5).flatmap(lambda G: st.tuples(st.just(G), st.lists(
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, G - 1)), min_size=1, max_size=12), min_size=1, max_size=20)))


@settings
@hypothesis.given(losses_and_groups, st.floats(0, 10))
def test_q_stays_a_distribution_and_absent_groups_keep_their_ratio(case, eta):
    G, steps = case
    log_q = torch.full((G,), 1 / G).log()
    for step in steps:
        losses, group = torch.tensor([loss for loss, _ in step]), torch.tensor([g for _, g in step])
        loss_g, count = group_losses(losses, group, G)
        new = update_log_q(log_q, loss_g, count > 0, eta, torch.zeros(G))
        assert torch.isfinite(new.exp()).all() and abs(new.exp().sum().item() - 1) < 1e-4
        absent = (count == 0).nonzero()[:, 0]
        if len(absent) > 1:
            torch.testing.assert_close(new[absent] - new[absent[0]], log_q[absent] - log_q[absent[0]], atol=1e-3, rtol=1e-4)
        for g in range(G):
            members = losses[group == g]
            assert loss_g[g].item() == pytest.approx(members.mean().item() if len(members) else 0.0, abs=1e-4)
        log_q = new


@settings
@hypothesis.given(unit, unit)
def test_harmonic_mean_lies_between_its_parts(a, b):
    mean = harmonic_mean(a, b)
    assert mean == harmonic_mean(b, a) and min(a, b) - 1e-12 <= mean <= max(a, b) + 1e-12 and mean <= (a + b) / 2 + 1e-12


@settings
@hypothesis.given(st.integers(1, 6).flatmap(lambda C: st.tuples(st.just(C), st.lists(st.tuples(st.integers(0, C - 1), st.integers(0, C - 1)), min_size=1,
                                                                                       max_size=30), st.lists(st.booleans(), min_size=C, max_size=C))))
def test_accuracies(case):
    C, pairs, seen = case
    gold, predicted = np.array(pairs).T
    row = accuracies(gold, predicted, np.array(seen), C)
    n_seen = sum(seen[g] for g in gold)
    assert row["all"] == pytest.approx(((row["seen"] or 0) * n_seen + (row["unseen"] or 0) * (len(gold) - n_seen)) / len(gold))
    assert 0 <= row["macro_f1"] <= 1 and (row["macro_f1"] == 1) == bool((gold == predicted).all())
    low, high = bootstrap((gold == predicted).astype(float), np.arange(len(gold)), repeats=200)
    assert 0 <= low <= row["all"] + 1e-12 and row["all"] - 1e-12 <= high <= 1


@settings
@hypothesis.example([("ends in a carriage return\r", "eng_Latn"), ("x\r\n\t\"", "swh_Latn")])
@hypothesis.given(st.lists(st.tuples(st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), min_size=1).filter(str.strip),
                                     st.sampled_from(sorted(load_languages()))), min_size=1, max_size=8))
def test_rows_survive_writing_and_reading(tmp_path_factory, rows):
    path, out = tmp_path_factory.mktemp("tsv") / "x.tsv", io.StringIO(newline="")
    for row in [["id", "text", "label", "lang"]] + [[i, text, "x", lang] for i, (text, lang) in enumerate(rows)]:
        write_row(out, row)
    path.write_bytes(out.getvalue().encode())
    assert [(e.text, e.lang) for e in read_examples(path)] == rows


def test_every_language_of_minitopics_survives_writing_and_reading(tmp_path):
    examples = [e for split in ("train", "dev", "test") for e in load_split("minitopics", split)]
    with open(tmp_path / "train.tsv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([["id", "text", "label", "lang"]] + [[e.id, e.text, e.label, e.lang] for e in examples])
    assert [(e.id, e.text, e.label, e.lang) for e in read_examples(tmp_path / "train.tsv")] == [(e.id, e.text, e.label, e.lang) for e in examples]
    assert len({e.lang for e in examples}) == 12 and math.isclose(len(examples) / 12, 240)
