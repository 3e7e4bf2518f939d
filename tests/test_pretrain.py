"""data_scripts/pretrain.py: its documents, its masking, and a run of a few steps that is interrupted and resumed."""
import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
import torch

from conftest import ROOT
from minirosprompt.data import MINITOPICS
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.io.safetensors import read_safetensors
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE

sys.path.insert(0, str(ROOT / "data_scripts"))
import pretrain  # noqa: E402
import world as world_module  # noqa: E402


@pytest.fixture(scope="module")
def world():
    return world_module.World(MINITOPICS)


def test_documents_are_of_one_topic_and_parallel(world):
    rng, named = random.Random(0), 0
    for _ in range(300):
        document = world.document(rng, "sports")
        text = document("eng_Latn").casefold()
        own = [c for c in world.concepts["sports"] if re.search(rf"\b{c['eng_Latn'].casefold()}\b", text)]
        assert len(own) >= 2
        assert all(c["deu_Latn"].casefold() in document("deu_Latn").casefold() for c in own)  # a translation, not another text
        named += any(label["eng_Latn"] in text for label in world.labels["sports"])
    assert 0.2 < named / 300 < 0.4
    assert not any("{" in world.document(rng)(lang) for _ in range(50) for lang in world_module.LANGUAGES)


def test_only_train_sentences_are_read_and_never_their_topic(world):
    train = {(i, t) for s in world.sentences for i, t in s.items()}
    rows = [line.split("\t") for line in (MINITOPICS / "sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    assert train == {(row[3], row[1]) for row in rows if row[5] == "train"}
    assert not train & {(row[3], row[1]) for row in rows if row[5] != "train"}
    for _ in range(100):
        texts = world.texts(random.Random(_), translation=0.5, sentences=1.0)
        assert all(any(text == t for _, t in train) for text in texts)  # alone: no frame beside it that could name its topic


def test_language_shares(world):
    assert sum(world.share.values()) == pytest.approx(1)
    assert world.share["eng_Latn"] / world.share["rus_Cyrl"] == pytest.approx(2)  # rank 1 and rank 4 under 1 / sqrt(rank)
    rng = random.Random(0)
    drawn = [world.language(rng) for _ in range(4000)]
    assert abs(drawn.count("eng_Latn") / 4000 - world.share["eng_Latn"]) < 0.03
    assert all(world.language(rng, other_than="eng_Latn") != "eng_Latn" for _ in range(100))


def test_subwords_are_drawn_with_their_probability_and_the_same_in_every_process():
    """Against all 2^(n - 1) ways to cut a word, one by one."""
    tokenizer = Tokenizer(POCKET / TOKENIZER_FILE)
    draw, rng, text = world_module.Subwords(tokenizer, 0.3), random.Random(0), "the marathon, in Nairobi Ω"
    word, weight = "▁teams", {}
    for cuts in itertools.product([0, 1], repeat=len(word) - 1):
        pieces = "".join(c + " " * cut for c, cut in zip(word, [*cuts, 0])).split(" ")
        if all(piece in draw.score for piece in pieces):
            weight[tuple(pieces)] = math.exp(0.3 * sum(draw.score[piece] for piece in pieces))
    drawn = Counter(tuple(map(tokenizer.piece, draw("teams", rng))) for _ in range(4000))
    assert set(drawn) <= set(weight) and len(drawn) > 4
    assert all(drawn[cut] / 4000 == pytest.approx(w / sum(weight.values()), abs=0.025) for cut, w in weight.items())
    assert world_module.Subwords(tokenizer, 99.0)(text, rng) == tokenizer.encode(text)  # so sharp that the best one is drawn
    code = ("import sys, random; sys.path[:0] = ['.', 'data_scripts']; import world; from minirosprompt.tokenizer import Tokenizer; "
            "draw, rng = world.Subwords(Tokenizer('minirosprompt/pocket/sentencepiece.bpe.model'), 0.3), random.Random(0); "
            f"print([draw({text!r}, rng) for _ in range(50)])")
    rng = random.Random(0)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([draw(text, rng) for _ in range(50)])


def test_masking():
    """Ids 4-9 begin a word, 10-15 go on with one; words are masked whole, special tokens never."""
    starts = torch.tensor([True] * 10 + [False] * 6)
    ids = torch.tensor([[0, 4, 10, 11, 5, 6, 12, 2, 1, 1]] * 4000)
    rates = torch.full((17,), 0.4)
    rates[[5, 6]] = 0.1
    corrupted, chosen = pretrain.mask_tokens(ids, starts, rates, 16, torch.Generator().manual_seed(0))
    assert not chosen[:, [0, 7, 8, 9]].any() and torch.equal(corrupted[~chosen], ids[~chosen])
    assert torch.equal(chosen[:, 1], chosen[:, 2]) and torch.equal(chosen[:, 1], chosen[:, 3])
    assert abs(chosen[:, 1].float().mean() - 0.4) < 0.03 and abs(chosen[:, 4].float().mean() - 0.1) < 0.02
    assert abs(chosen[:, 5].float().mean() - 0.4) < 0.03        # as often as its rarest piece
    at = corrupted[chosen]
    assert abs((at == 16).float().mean() - 0.8) < 0.03 and abs((at == ids[chosen]).float().mean() - 0.1) < 0.03
    assert at.min() >= 4                                        # a random token is an ordinary one


def test_common_words_are_masked_less():
    rates = pretrain.mask_rates([[4] * 900 + [5] * 99 + [6]], 8, rate=0.3, common=0.01)
    assert rates[4] == pytest.approx(0.3 * (0.01 / 0.9) ** 0.5) and rates[6] == rates[7] == pytest.approx(0.3)
    assert rates[4] < rates[5] < rates[6]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(run_script, tmp_path):
    small = ["--vocab-size", 4000, "--width", 16, "--layers", 1, "--heads", 2, "--batch-tokens", 512, "--look-every", 6]
    assert run_script("data_scripts/pretrain.py", "--out", "whole", "--tokens", 8000, *small).returncode == 0
    cut = run_script("data_scripts/pretrain.py", "--out", "cut", "--tokens", 8000, "--minutes", 0.001, *small)
    assert cut.returncode == 0, cut.stderr
    done = run_script("data_scripts/pretrain.py", "--out", "cut", "--tokens", 8000, "--resume", *small)
    assert done.returncode == 0, done.stderr
    assert "pretrain.pt" not in cut.stderr and cut.stdout.count("step ") == 1  # it did stop early, at its first checkpoint
    whole, cut = (read_safetensors(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    log = json.loads((tmp_path / "cut" / "pretrain.json").read_text())["log"]
    assert log[-1]["tokens"] >= 8000 and set(log[-1]["naming"]) == set(world_module.LANGUAGES)
