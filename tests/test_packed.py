"""data_scripts/corpus.py and packed.py: what is packed is what is read, in whole examples, and what is held out stays out."""
import json
import shutil
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import ROOT
from minirosprompt import UserError
from minirosprompt.io.safetensors import read_safetensors
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE

sys.path.insert(0, str(ROOT / "data_scripts"))
import corpus  # noqa: E402
import packed  # noqa: E402

SIZES = {("a", "news"): 200, ("b", "news"): 200, ("c", "news"): 200, ("a", "wiki"): 700, ("b", "lists"): 150, ("d", "lists"): 300}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A corpus in which every token occurs once, so that each can be traced to its place. -> folder, {id: (lang, source, row)}"""
    folder, next_id, place, segments, rng = tmp_path_factory.mktemp("packed"), 10, {}, {}, np.random.default_rng(0)
    for (lang, source), n in SIZES.items():
        segments[lang, source] = []
        for row in range(n):
            length = 0 if (lang, source, row) == ("b", "news", 7) else int(rng.integers(2, 30))  # one translation is missing
            segments[lang, source].append(list(range(next_id, next_id + length)))
            place |= {i: (lang, source, row) for i in segments[lang, source][-1]}
            next_id += length
    shutil.copy(POCKET / TOKENIZER_FILE, folder)
    packed.write_packed(folder, segments, ["news"], SimpleNamespace(vocab_size=next_id))
    return folder, place


def read(folder, **settings):
    return packed.Packed(folder, **{"batch_tokens": 640, "max_tokens": 64, "alpha": 0.5, "translation": 0.5, "seed": 0} | settings)


def split(row):
    """[0 a a 2 2 b 2 0 c 2] -> [[[a, a], [b]], [[c]]]; the last example may be cut anywhere."""
    found = []
    for i in row:
        if i == 0:
            found.append([[]])
        elif i != 2:
            found[-1][-1].append(i)
        elif found[-1][-1]:
            found[-1].append([])
    return [[span for span in spans if span] for spans in found]


def test_rows_are_whole_examples_of_neighbouring_sentences(text):
    folder, place = text
    pool, pairs, singles = read(folder).pool(0, 40), 0, 0
    assert len(pool) == 40 and all(ids.shape == (10, 64) for ids in pool)
    for ids in pool:
        for row in ids.tolist():
            assert row[0] == 0 and 1 not in row                                # <s> first, and no padding
            found = split(row)
            for n, spans in enumerate(found):
                last = n == len(found) - 1                                     # may be cut
                for span in spans:
                    assert span == list(range(span[0], span[0] + len(span)))   # contiguous
                    assert len({place[i][:2] for i in span}) == 1              # of one language and source
                if len(spans) == 2:
                    (l1, s1, r1), (l2, s2, r2) = place[spans[0][0]], place[spans[1][0]]
                    assert s1 == s2 == "news" and l1 != l2 and r1 == r2        # a sentence and its translation
                    if not last and len(spans[0]) < 30 and len(spans[1]) < 30:
                        assert place[spans[0][-1]][2] == place[spans[1][-1]][2]
                    pairs += 1
                elif spans and not last:
                    singles += 1
    assert 0.2 < pairs / (pairs + singles) < 0.5   # half, less what has no translation or drew itself


def test_held_out_rows_are_never_trained_on(text):
    folder, place = text
    stream = read(folder)
    trained = {place[i] for n in range(20) for ids in stream.pool(n, 16) for i in ids.flatten().tolist() if i in place}
    assert len(trained) > 0.9 * sum(SIZES.values())
    held_out = {place[i] for rows in stream.held_out.values() for ids in rows for i in ids.flatten().tolist() if i in place}
    assert held_out and not trained & held_out
    for (lang, source), n in SIZES.items():
        assert all(row < n - n // packed.HELD_OUT for of, s, row in trained if (of, s) == (lang, source))
        assert all(row >= n - n // packed.HELD_OUT for of, s, row in held_out if (of, s) == (lang, source))
    assert set(stream.held_out) == {"high", "low", "pairs"}
    langs = {name: {place[i][0] for ids in stream.held_out[name] for i in ids.flatten().tolist() if i in place} for name in stream.held_out}
    assert not langs["high"] & langs["low"] and "a" in langs["high"]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_languages_are_drawn_by_their_size_to_the_alpha(text, alpha):
    folder, place = text
    stream = read(folder, alpha=alpha, translation=0.0)
    size = Counter(lang for lang, _, _ in place.values())
    want = {lang: size[lang] ** alpha / sum(n ** alpha for n in size.values()) for lang in size}
    assert stream.share == pytest.approx(want)
    drawn = Counter(place[row[1]][0] for ids in stream.pool(0, 200) for row in ids.tolist())  # first example of each row
    assert all(drawn[lang] / sum(drawn.values()) == pytest.approx(want[lang], abs=0.04) for lang in want)


def test_a_pool_depends_on_seed_and_number_alone(text):
    folder, _ = text
    one, two = read(folder), read(folder)
    two.pool(5, 4)
    assert all(torch.equal(a, b) for a, b in zip(one.pool(3, 4), two.pool(3, 4)))
    assert not torch.equal(one.pool(3, 1)[0], one.pool(4, 1)[0])
    assert not torch.equal(one.pool(3, 1)[0], read(folder, seed=1).pool(3, 1)[0])


def test_damage_is_refused(text, tmp_path):
    folder, _ = text
    for name in ("tokens.bin", "rows.bin", TOKENIZER_FILE):
        copy = shutil.copytree(folder, tmp_path / name)
        data = bytearray((copy / name).read_bytes())
        data[100] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: damaged"):
            read(copy)
    about = json.loads((folder / "corpus.json").read_text())
    for damage in ({"segments": 3}, {"segments": [{"lang": "a"}]}, {"vocab_size": "x"}):
        copy = shutil.copytree(folder, tmp_path / f"about {damage}")
        (copy / "corpus.json").write_text(json.dumps(about | damage))
        with pytest.raises(UserError, match="not written by corpus.py"):
            read(copy)


@pytest.mark.parametrize("sizes, budget, cap", [([10, 20, 30], 100, 30), ([10, 20, 30], 60, 30), ([10, 20, 30], 40, 15),
                                                ([10, 20, 30], 6, 2), ([0, 0, 50], 20, 20), ([], 5, 0)])
def test_budget_by_hand(sizes, budget, cap):
    assert corpus.within_budget(sizes, budget) == cap
    assert sum(min(size, cap) for size in sizes) <= budget


def test_from_texts_to_an_encoder_that_resumes(run_script, folder_of_texts, tmp_path):
    done = run_script("data_scripts/corpus.py", "--texts", folder_of_texts, "--vocab-size", 1600, "--tokens", 80000)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "data/corpus/corpus.json").read_text())
    size = {(s["lang"], s["source"]): s for s in about["segments"]}
    assert about["parallel"] == ["flores_nonsib", "ntrex"] and sum(s["tokens"] for s in size.values()) <= 80000
    assert all(size[lang, "flores_nonsib"]["rows"] == 50 for lang in ("eng_Latn", "deu_Latn", "swh_Latn", "zho_Hans"))
    assert (tmp_path / "data/corpus/tokens.bin").stat().st_size == 2 * sum(s["tokens"] for s in size.values())
    small = ["--corpus", "data/corpus", "--width", 32, "--layers", 1, "--heads", 2, "--max-tokens", 32, "--batch-tokens", 512, "--look-every", 20]
    for out, more in (("whole", ["--tokens", 40000]), ("cut", ["--tokens", 40000, "--minutes", 0.001]), ("cut", ["--tokens", 40000, "--resume"])):
        done = run_script("data_scripts/pretrain.py", "--out", out, *small, *more)
        assert done.returncode == 0, done.stderr
    whole, cut = (read_safetensors(tmp_path / name / "model.safetensors")[0] for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    log = json.loads((tmp_path / "whole/pretrain.json").read_text())["log"]
    assert set(log[-1]["groups"]) == {"high", "low", "pairs"} and log[-1]["valid_loss"] < log[0]["valid_loss"]
    done = run_script("train.py", "--encoder", "whole", "--steps", 2, "--seeds", 0, "--objective", "erm", "--name", "x",
                      "--template", "{prompt} {mask} {text}", "--languages", "eng_Latn,deu_Latn", "--source", "eng_Latn")
    assert done.returncode == 0, done.stderr
