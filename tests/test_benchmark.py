"""benchmarks/speed.py: its counts against PyTorch's own.

And that it runs, and compares like with like.
"""
import json

import pytest
import torch
from conftest import load_script
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minirosprompt.io import linear
from minirosprompt.prompt import TOKENS_AT_ONCE
from minirosprompt.xlmr import XLMR, Config

pytest.importorskip("transformers")
pytest.importorskip("peft")
speed = load_script("benchmarks/speed.py")


def counted(c, rows, C, train):
    """FLOPs that PyTorch counts in our code, in the products and in attention.

    Text by text, so without padding.
    """
    encoder = XLMR(c).requires_grad_(False).eval()
    ours = speed.Ours(encoder, encoder.word.weight[4:4 + speed.P])
    labels = speed.Labels(C, encoder)
    total = 0
    for row in rows:
        # attention as plain products: the counter does not know the CPU's fused one
        with (
            FlopCounterMode(display=False) as counter,
            torch.set_grad_enabled(train),
            sdpa_kernel(SDPBackend.MATH),
        ):
            scores = ours.train_scores([row], labels)
            if train:
                scores.sum().backward()
        total += counter.get_total_flops()
    return total


def test_flops_are_those_that_pytorch_counts(monkeypatch):
    monkeypatch.setattr(linear, "AS_CONVOLUTION", False)
    c = Config(vocab_size=100, width=32, layers=3, heads=4, ffn=48, positions=60)
    lengths = [7, 20, 41]
    rows = speed.random_rows(lengths, c)
    assert [len(row) for row in rows] == lengths
    D = c.width
    assert counted(c, rows, 5, False) == speed.flops(c, lengths, 5)
    # In training autograd goes back to every position of the first layer's queries, keys and
    # values; the P of the prompt would do.
    more = sum(2 * n * 3 * D * D for n in lengths)
    assert counted(c, rows, 5, True) == speed.flops(c, lengths, 5, train=True) + more


def test_lengths_are_sib200s():
    """Their mean, 45.1 pieces and three tokens, was counted over all 41,820 texts."""
    lengths = speed.sib_lengths(1000, Config())
    assert len(lengths) == 1000
    assert min(lengths) >= 7
    assert max(lengths) <= 428
    assert abs(sum(lengths) / 1000 - 48.1) < 1
    assert max(speed.sib_lengths(1000, speed.CONFIGS["pocket"])) == 128 - speed.P


def test_it_runs_and_the_scores_agree(run_script, tmp_path):
    flags = ["--encoder", "pocket", "--repeats", 1, "--texts", 4]
    flags += ["--only", "train", "score", "tokenise", "scale"]
    flags += ["--out", tmp_path / "speed.json", "--work", tmp_path]
    done = run_script("benchmarks/speed.py", *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "speed.json").read_text())
    rows = {row["case"]: row for row in found["rows"]}
    for case in (
        "train, 8 texts, SIB-200 lengths",
        "train, 32 texts, SIB-200 lengths",
        "score, 60 labels, SIB-200 lengths",
        "score, 14 labels, 32 tokens",
    ):
        row = rows[case]
        assert row["ours"]["median"] > 0
        assert row["peft"]["ratio"] > 0
        assert 0 < row["share"]
        assert all(0 <= d < 1e-4 for d in row["max abs difference"].values())
    assert rows["tokenise 1440 texts, in one call"]["transformers"]["ratio"] > 0
    assert rows["forecast: SIB-200's test split"]["seconds"] > 0
    assert found["about"]["encoder"] == "pocket"
    assert "score, 60 labels" in done.stdout
    assert "differ by" in done.stdout


def test_sweep_compiler_and_ours_alone(run_script, tmp_path):
    """Without the other libraries; every number of tokens is tried, and the default put back."""
    usual = dict(TOKENS_AT_ONCE)
    flags = ["--encoder", "pocket", "--repeats", 1, "--texts", 4, "--alone", "--dtype", "bfloat16"]
    flags += ["--only", "score", "sweep", "compile"]
    flags += ["--out", tmp_path / "speed.json", "--work", tmp_path]
    done = run_script("benchmarks/speed.py", *flags)
    assert done.returncode == 0, done.stderr
    assert TOKENS_AT_ONCE == usual
    found = json.loads((tmp_path / "speed.json").read_text())["rows"]
    rows = {row["case"]: row for row in found}
    assert not {"peft", "transformers"} & set(rows["score, 14 labels, 32 tokens"])
    for case in ("sweep, score 32 texts", "sweep, train, 4 texts", "sweep, train, 32 texts"):
        row = rows[case]
        tried = {name for name in row if name.replace(",", "").isdigit()}
        assert tried == {f"{tokens:,}" for tokens in speed.SWEEP["cpu"]}
        assert row["fastest"] in tried
        assert min(tried, key=lambda name: row[name]["median"]) == row["fastest"]
    assert rows["compiled, 4 texts of 16 tokens"]["difference"] < 0.1


def test_a_wrong_tokenizer_is_refused_before_anything_runs(run_script, tmp_path):
    done = run_script("benchmarks/speed.py", "--tokenizer", tmp_path, "--work", tmp_path / "work")
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert "sentencepiece.bpe.model: no such file" in done.stderr
    assert done.stderr.count("\n") == 1
