"""add_head.py: its sampled softmax against the full one, what is trained, and a short run."""
import json
import math

import pytest
import torch
import torch.nn.functional as F

from data_scripts.pretraining import add_head
from data_scripts.pretraining.pretrain import new_optimizer, trained
from minirosprompt.io.safetensors import read_safetensors
from minirosprompt.io.weights import read_encoder, save_encoder
from minirosprompt.xlmr import XLMR
from tests.conftest import refused

SCRIPT = "data_scripts/pretraining/add_head.py"


# ---- sampled softmax -----------------------------------------------------------------------------

@pytest.fixture()
def logits():
    """-> h (5, 8), targets (5,), E (40, 8), bias and frequencies (40,); two pieces never occur"""
    torch.manual_seed(0)
    frequencies = torch.rand(40) ** 3 + 1e-3
    frequencies[[7, 11]] = 0
    return (torch.randn(5, 8), torch.tensor([0, 3, 3, 20, 39]), torch.randn(40, 8),
            torch.randn(40), frequencies / frequencies.sum())


def by_hand(h, target, E, bias, drawn, q):
    """One text's sampled loss, term by term."""
    def logit(j):
        return float(sum(a * b for a, b in zip(h.tolist(), E[j].tolist()))) + float(bias[j])

    Z = math.exp(logit(target))
    for j in drawn:
        if j != target:
            Z += math.exp(logit(j)) / (len(drawn) * float(q[j]))
    return math.log(Z) - logit(target)


def test_sampled_softmax_by_hand(logits):
    h, targets, E, bias, frequencies = logits
    softmax = add_head.SampledSoftmax(frequencies, 30, "cpu")
    loss = softmax(h, targets, E, bias, seed=1)
    generator = torch.Generator().manual_seed(1)
    q = frequencies.double() ** 0.75
    q = q / q.sum()
    drawn = torch.multinomial(q, 30, replacement=True, generator=generator).tolist()
    assert set(drawn) & set(targets.tolist())  # a target among the drawn is not counted twice
    expected = [by_hand(h[i], t, E, bias, drawn, q) for i, t in enumerate(targets.tolist())]
    assert loss.item() == pytest.approx(sum(expected) / 5, abs=1e-5)


def test_sampled_softmax_approaches_the_full_one(logits):
    """Where every piece can be drawn: as the number of draws grows, loss and gradient agree."""
    h, targets, E, bias, _ = logits
    frequencies = torch.rand(40) + 0.1
    full = add_head.full_softmax(h.requires_grad_(), targets, E, bias)
    assert full.item() == pytest.approx(F.cross_entropy(h @ E.T + bias, targets).item(), abs=1e-6)
    gradient, = torch.autograd.grad(full, h)
    errors = []
    for S in (20, 2_000, 200_000):
        softmax = add_head.SampledSoftmax(frequencies, S, "cpu")
        loss = softmax(h, targets, E, bias, seed=0)
        of_loss, = torch.autograd.grad(loss, h)
        errors.append((of_loss - gradient).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.01
    assert loss.item() == pytest.approx(full.item(), abs=0.01)


def test_what_never_occurs_is_never_drawn(logits):
    h, targets, E, bias, frequencies = logits
    E[[7, 11]] = torch.inf
    softmax = add_head.SampledSoftmax(frequencies, 500, "cpu")
    assert torch.isfinite(softmax(h, targets, E, bias, seed=0))


# ---- the model -----------------------------------------------------------------------------------

def with_head(folder, layers=1):
    sizes, state = read_encoder(folder)
    frequencies = torch.full((sizes["vocab_size"],), 1 / sizes["vocab_size"])
    return add_head.with_head(sizes, state, frequencies, layers)


def test_the_body_is_the_encoder_and_its_upper_layers_are_trained(headless):
    model = with_head(headless)
    before = XLMR.from_pretrained(headless)
    x = before.word(torch.tensor([[0, 5, 9, 2]]))
    torch.testing.assert_close(model(x), before(x))
    free = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert free == {name for name in model.state_dict() if name.startswith(("head.", "layers.1."))}


def test_transformers_reads_it(headless, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = with_head(headless)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    save_encoder(tmp_path, model, torch.float32)
    theirs = transformers.XLMRobertaForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.tensor([[0, 5, 9, 12, 2]])
    expected = theirs.eval()(ids).logits
    torch.testing.assert_close(model.logits(model(model.word(ids))), expected, atol=1e-4, rtol=0)


# ---- a run ---------------------------------------------------------------------------------------

@pytest.fixture()
def corpus(run_script, folder_of_texts, headless, tmp_path):
    done = run_script("data_scripts/pretraining/corpus.py", "--texts", folder_of_texts,
                      "--tokenizer", headless, "--without", "flores_nonsib")
    assert done.returncode == 0, done.stderr
    return tmp_path / "data/corpus"


def run(run_script, headless, out, *flags):
    small = {"--encoder": headless, "--corpus": "data/corpus", "--batch-tokens": 256,
             "--max-tokens": 32, "--train-layers": 1, "--negatives": 40, "--look-every": 10,
             "--tokens": 10000}
    for name, value in small.items():
        if name not in flags:
            flags = [*flags, name, value]
    return run_script(SCRIPT, "--out", out, *flags)


def test_a_run(corpus, run_script, headless, tmp_path):
    """It learns, resumes to the bit, and what it writes is read with --verbalizer words."""
    assert json.loads((corpus / "corpus.json").read_text())["parallel"] == ["ntrex"]
    done = run(run_script, headless, "whole")
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "whole/pretrain.json").read_text())["log"]
    assert {"high", "low", "pairs", "english"} == set(log[-1]["groups"])
    assert log[-1]["valid_loss"] < log[0]["valid_loss"]
    for more in (["--minutes", 0.001], ["--resume"]):
        done = run(run_script, headless, "cut", *more)
        assert done.returncode == 0, done.stderr
    whole, _ = read_safetensors(tmp_path / "whole/model.safetensors")
    cut, _ = read_safetensors(tmp_path / "cut/model.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    before, _ = read_safetensors(headless / "model.safetensors")
    kept = {name for name, weight in before.items()
            if torch.equal(weight.half(), whole[f"roberta.{name}"])}
    assert "embeddings.word_embeddings.weight" in kept
    assert {name for name in before if ".layer.0." in name} <= kept
    assert not any(".layer.1." in name and name.endswith("weight") for name in kept)
    flags = ["--encoder", "whole", "--verbalizer", "words", "--steps", 2, "--seeds", 0,
             "--objective", "erm", "--languages", "eng_Latn,deu_Latn", "--source", "eng_Latn"]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr


def test_the_dev_split_of_sib200_along_the_way(corpus, run_script, headless, colours, tmp_path):
    folder = tmp_path / "sib200"
    folder.mkdir()
    text = (colours / "dev.tsv").read_text().replace("\taa\t", "\teng_Latn\t")
    (folder / "dev.tsv").write_text(text)
    labels = json.loads((colours / "labels.json").read_text())
    labels = {label: {"eng_Latn": words["aa"]} for label, words in labels.items()}
    (folder / "labels.json").write_text(json.dumps(labels))
    done = run(run_script, headless, "out", "--sib200", folder, "--tokens", 2000)
    assert done.returncode == 0, done.stderr
    assert "hard prompt" in done.stdout
    log = json.loads((tmp_path / "out/pretrain.json").read_text())["log"]
    assert set(log[-1]["sib200"]) == {"eng_Latn"} and 0 <= log[-1]["sib200"]["eng_Latn"] <= 1


def test_dropped_layers(corpus, run_script, headless, tmp_path):
    done = run(run_script, headless, "out", "--keep-layers", 1, "--tokens", 1000)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/config.json").read_text())["num_hidden_layers"] == 1


@pytest.mark.parametrize("flags, words", [
    (["--encoder", "pocket"], "--encoder pocket: it has a masked-LM head already"),
    (["--keep-layers", 9], "the encoder has 2 layers"),
    (["--train-layers", 3], "the encoder has 2 layers"),
    (["--max-tokens", 65], "--max-tokens 65: this encoder has room for 64"),
    (["--resume"], "there is nothing to resume"),
    (["--sib200", "nowhere"], "nowhere/dev.tsv: No such file"),
])
def test_bad_flags(corpus, run_script, headless, flags, words):
    refused(run(run_script, headless, "out", *flags), words)


def test_a_corpus_of_another_tokenizer(run_script, folder_of_texts, headless):
    done = run_script("data_scripts/pretraining/corpus.py", "--texts", folder_of_texts,
                      "--vocab-size", 1600)
    assert done.returncode == 0, done.stderr
    refused(run(run_script, headless, "out"), "--corpus data/corpus: tokenised otherwise")


def test_layers_have_a_rate_of_their_own(headless):
    """They know what texts mean, and a large rate makes them forget it."""
    model = with_head(headless)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    optimizer = new_optimizer(model, 1e-3, layers_lr=1e-5)
    for weight in trained(model).values():
        weight.grad = torch.ones_like(weight)
    optimizer.step()  # AdamW's first step is as large as the rate, but for the decay
    for name, weight in trained(model).items():
        rate = 1e-5 if name.startswith("layers.") else 1e-3
        step = (weight - before[name]).abs()
        assert step.min() > 0.8 * rate and step.max() < 1.2 * rate, name
    assert len(new_optimizer(model, 1e-3).param_groups) == 2  # one rate: as of pretrain.py
