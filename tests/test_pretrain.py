"""pretrain.py: its documents, its masking, and a short run that is interrupted and resumed."""
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

from data_scripts.pretraining import pretrain
from data_scripts.pretraining.world import LANGUAGES, Subwords, World
from minirosprompt.data import MINITOPICS, read_examples
from minirosprompt.io.safetensors import read_safetensors
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE
from minirosprompt.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def world():
    return World(MINITOPICS)


def test_documents_are_of_one_topic_and_parallel(world):
    rng = random.Random(0)
    named = 0
    for _ in range(300):
        document = world.document(rng, "sports")
        text = document("eng_Latn").casefold()
        german = document("deu_Latn").casefold()
        own = []
        for concept in world.concepts["sports"]:
            if re.search(rf"\b{concept['eng_Latn'].casefold()}\b", text):
                own.append(concept)
        assert len(own) >= 2
        # a translation, not another text
        assert all(concept["deu_Latn"].casefold() in german for concept in own)
        named += any(label["eng_Latn"] in text for label in world.labels["sports"])
    assert 0.2 < named / 300 < 0.4
    for lang in LANGUAGES * 50:
        assert "{" not in world.document(rng)(lang)


def test_only_train_sentences_are_read_and_never_their_topic(world):
    read = set()
    for sentence in world.sentences:
        read |= set(sentence.items())
    train = set()
    others = set()
    for e in read_examples(MINITOPICS / "sentences.tsv"):
        (train if e.columns["split"] == "train" else others).add((e.lang, e.text))
    assert read == train
    assert not read & others
    for seed in range(100):
        texts = world.texts(random.Random(seed), translation=0.5, sentences=1.0)
        # Alone: no frame beside it that could name its topic.
        assert set(texts) <= {text for _, text in train}


def test_language_shares(world):
    assert sum(world.share.values()) == pytest.approx(1)
    # rank 1 and rank 4 under 1 / sqrt(rank)
    assert world.share["eng_Latn"] / world.share["rus_Cyrl"] == pytest.approx(2)
    rng = random.Random(0)
    drawn = [world.language(rng) for _ in range(4000)]
    assert abs(drawn.count("eng_Latn") / 4000 - world.share["eng_Latn"]) < 0.03
    assert all(world.language(rng, other_than="eng_Latn") != "eng_Latn" for _ in range(100))


def test_subwords_are_drawn_with_their_probability_and_the_same_in_every_process():
    """Against all 2^(n - 1) ways to cut a word, one by one."""
    tokenizer = Tokenizer(POCKET / TOKENIZER_FILE)
    draw = Subwords(tokenizer, 0.3)
    rng = random.Random(0)
    text = "the marathon, in Nairobi Ω"
    word = "▁teams"
    weight = {}
    for cuts in itertools.product([0, 1], repeat=len(word) - 1):
        pieces = "".join(c + " " * cut for c, cut in zip(word, [*cuts, 0])).split(" ")
        if all(piece in draw.score for piece in pieces):
            weight[tuple(pieces)] = math.exp(0.3 * sum(draw.score[piece] for piece in pieces))
    drawn = Counter(tuple(map(tokenizer.piece, draw("teams", rng))) for _ in range(4000))
    assert set(drawn) <= set(weight)
    assert len(drawn) > 4
    for cut, w in weight.items():
        assert drawn[cut] / 4000 == pytest.approx(w / sum(weight.values()), abs=0.025), cut
    # so sharp that the best one is drawn
    assert Subwords(tokenizer, 99.0)(text, rng) == tokenizer.encode(text)
    code = f"""
import random
from data_scripts.pretraining.world import Subwords
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE
from minirosprompt.tokenizer import Tokenizer
draw = Subwords(Tokenizer(POCKET / TOKENIZER_FILE), 0.3)
rng = random.Random(0)
print([draw({text!r}, rng) for _ in range(50)])
"""
    rng = random.Random(0)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([draw(text, rng) for _ in range(50)])


def test_masking():
    """Ids 4-9 begin a word, 10-15 go on with one; words are masked whole, special tokens never."""
    starts = torch.tensor([True] * 10 + [False] * 6)
    ids = torch.tensor([[0, 4, 10, 11, 5, 6, 12, 2, 1, 1]] * 4000)
    rates = torch.full((17,), 0.4)
    rates[[5, 6]] = 0.1
    generator = torch.Generator().manual_seed(0)
    corrupted, chosen = pretrain.mask_tokens(ids, starts, rates, 16, generator)
    assert not chosen[:, [0, 7, 8, 9]].any()
    assert torch.equal(corrupted[~chosen], ids[~chosen])
    assert torch.equal(chosen[:, 1], chosen[:, 2])
    assert torch.equal(chosen[:, 1], chosen[:, 3])
    assert abs(chosen[:, 1].float().mean() - 0.4) < 0.03
    assert abs(chosen[:, 4].float().mean() - 0.1) < 0.02
    assert abs(chosen[:, 5].float().mean() - 0.4) < 0.03  # as often as its rarest piece
    at = corrupted[chosen]
    assert abs((at == 16).float().mean() - 0.8) < 0.03
    assert abs((at == ids[chosen]).float().mean() - 0.1) < 0.03
    assert at.min() >= 4  # a random token is an ordinary one


def test_common_words_are_masked_less():
    rates = pretrain.mask_rates([[4] * 900 + [5] * 99 + [6]], 8, rate=0.3, common=0.01)
    assert rates[4] == pytest.approx(0.3 * (0.01 / 0.9) ** 0.5)
    assert rates[6] == rates[7] == pytest.approx(0.3)
    assert rates[4] < rates[5] < rates[6]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(run_script, tmp_path):
    small = [
        "--vocab-size", 4000, "--width", 16, "--layers", 1, "--heads", 2, "--batch-tokens", 512,
        "--look-every", 6,
    ]
    small += ["--tokens", 8000]
    script = "data_scripts/pretraining/pretrain.py"
    assert run_script(script, "--out", "whole", *small).returncode == 0
    cut = run_script(script, "--out", "cut", "--minutes", 0.001, *small)
    assert cut.returncode == 0, cut.stderr
    done = run_script(script, "--out", "cut", "--resume", *small)
    assert done.returncode == 0, done.stderr
    assert "pretrain.pt" not in cut.stderr
    assert cut.stdout.count("step ") == 1  # it did stop early, at its first checkpoint
    whole, _ = read_safetensors(tmp_path / "whole/model.safetensors")
    cut, _ = read_safetensors(tmp_path / "cut/model.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    log = json.loads((tmp_path / "cut" / "pretrain.json").read_text())["log"]
    assert log[-1]["tokens"] >= 8000
    assert set(log[-1]["naming"]) == set(LANGUAGES)
