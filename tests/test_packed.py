"""corpus.py and packed.py: what is packed is what is read, in whole examples.

And what is held out stays out.
"""
import json
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_scripts.pretraining import corpus, packed
from minirosprompt import UserError
from minirosprompt.io.safetensors import read_safetensors
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE

SIZES = {
    ("a", "news"): 200,
    ("b", "news"): 200,
    ("c", "news"): 200,
    ("a", "wiki"): 700,
    ("b", "lists"): 150,
    ("d", "lists"): 300,
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A corpus in which every token occurs once, so that each can be traced to its place.

    -> folder, {id: (lang, source, row)}
    """
    folder = tmp_path_factory.mktemp("packed")
    next_id = 10
    place = {}
    segments = {}
    rng = np.random.default_rng(0)
    for (lang, source), n in SIZES.items():
        segments[lang, source] = []
        for row in range(n):
            # one translation is missing
            length = 0 if (lang, source, row) == ("b", "news", 7) else int(rng.integers(2, 30))
            segments[lang, source].append(list(range(next_id, next_id + length)))
            place |= {i: (lang, source, row) for i in segments[lang, source][-1]}
            next_id += length
    shutil.copy(POCKET / TOKENIZER_FILE, folder)
    packed.write_packed(folder, segments, ["news"], SimpleNamespace(vocab_size=next_id))
    return folder, place


def read(folder, **settings):
    default = {"batch_tokens": 640, "max_tokens": 64, "alpha": 0.5, "translation": 0.5, "seed": 0}
    return packed.Packed(folder, **default | settings)


def places_in(batches, place):
    """-> the places of all tokens in a list of batches (rows, T), but the special ones'."""
    found = set()
    for ids in batches:
        found |= {place[i] for i in ids.flatten().tolist() if i in place}
    return found


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
    for spans in found:
        spans[:] = [span for span in spans if span]
    return found


def test_rows_are_whole_examples_of_neighbouring_sentences(text):
    folder, place = text
    pool = read(folder).pool(0, 40)
    pairs = 0
    singles = 0
    assert len(pool) == 40
    assert all(ids.shape == (10, 64) for ids in pool)
    for ids in pool:
        for row in ids.tolist():
            assert row[0] == 0   # <s> first
            assert 1 not in row  # and no padding
            found = split(row)
            for n, spans in enumerate(found):
                last = n == len(found) - 1  # may be cut
                for span in spans:
                    assert span == list(range(span[0], span[0] + len(span)))  # contiguous
                    # of one language and source
                    assert len({place[i][:2] for i in span}) == 1
                if len(spans) == 2:
                    lang, source, number = place[spans[0][0]]
                    their_lang, their_source, their_number = place[spans[1][0]]
                    assert source == their_source == "news"
                    assert lang != their_lang
                    assert number == their_number  # a sentence and its translation
                    if not last and len(spans[0]) < 30 and len(spans[1]) < 30:
                        assert place[spans[0][-1]][2] == place[spans[1][-1]][2]
                    pairs += 1
                elif spans and not last:
                    singles += 1
    # half, less what has no translation or drew itself
    assert 0.2 < pairs / (pairs + singles) < 0.5


def test_held_out_rows_are_never_trained_on(text):
    folder, place = text
    stream = read(folder)
    trained = set()
    for n in range(20):
        trained |= places_in(stream.pool(n, 16), place)
    assert len(trained) > 0.9 * sum(SIZES.values())
    by_name = {name: places_in(rows, place) for name, rows in stream.held_out.items()}
    assert set(by_name) == {"high", "low", "pairs"}
    held_out = set.union(*by_name.values())
    assert held_out
    assert not trained & held_out
    first_held_out = {key: n - n // packed.HELD_OUT for key, n in SIZES.items()}
    assert all(row < first_held_out[lang, source] for lang, source, row in trained)
    assert all(row >= first_held_out[lang, source] for lang, source, row in held_out)
    high = {lang for lang, _, _ in by_name["high"]}
    low = {lang for lang, _, _ in by_name["low"]}
    assert not high & low
    assert "a" in high


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_languages_are_drawn_by_their_size_to_the_alpha(text, alpha):
    folder, place = text
    stream = read(folder, alpha=alpha, translation=0.0)
    size = Counter(lang for lang, _, _ in place.values())
    total = sum(n**alpha for n in size.values())
    want = {lang: n**alpha / total for lang, n in size.items()}
    assert stream.share == pytest.approx(want)
    drawn = Counter()
    for ids in stream.pool(0, 200):
        for row in ids.tolist():
            lang, _, _ = place[row[1]]  # of the row's first example
            drawn[lang] += 1
    for lang, share in want.items():
        assert drawn[lang] / drawn.total() == pytest.approx(share, abs=0.04), lang


def test_a_pool_depends_on_seed_and_number_alone(text):
    folder, _ = text
    one = read(folder)
    two = read(folder)
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


@pytest.mark.parametrize(
    "sizes, budget, cap",
    [
        ([10, 20, 30], 100, 30),
        ([10, 20, 30], 60, 30),
        ([10, 20, 30], 40, 15),
        ([10, 20, 30], 6, 2),
        ([0, 0, 50], 20, 20),
        ([], 5, 0),
    ],
)
def test_budget_by_hand(sizes, budget, cap):
    assert corpus.within_budget(sizes, budget) == cap
    assert sum(min(size, cap) for size in sizes) <= budget


def test_from_texts_to_an_encoder_that_resumes(run_script, folder_of_texts, tmp_path):
    flags = ["--texts", folder_of_texts, "--vocab-size", 1600, "--tokens", 80000]
    done = run_script("data_scripts/pretraining/corpus.py", *flags)
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / "data/corpus/corpus.json").read_text())
    size = {(s["lang"], s["source"]): s for s in about["segments"]}
    assert about["parallel"] == ["flores_nonsib", "ntrex"]
    assert sum(s["tokens"] for s in size.values()) <= 80000
    for lang in ("eng_Latn", "deu_Latn", "swh_Latn", "zho_Hans"):
        assert size[lang, "flores_nonsib"]["rows"] == 50, lang
    tokens = sum(s["tokens"] for s in size.values())
    assert (tmp_path / "data/corpus/tokens.bin").stat().st_size == 2 * tokens
    small = [
        "--corpus", "data/corpus", "--width", 32, "--layers", 1, "--heads", 2, "--max-tokens", 32,
        "--batch-tokens", 512, "--look-every", 20,
    ]
    for out, more in (
        ("whole", ["--tokens", 40000]),
        ("cut", ["--tokens", 40000, "--minutes", 0.001]),
        ("cut", ["--tokens", 40000, "--resume"]),
    ):
        done = run_script("data_scripts/pretraining/pretrain.py", "--out", out, *small, *more)
        assert done.returncode == 0, done.stderr
    whole, _ = read_safetensors(tmp_path / "whole/model.safetensors")
    cut, _ = read_safetensors(tmp_path / "cut/model.safetensors")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    log = json.loads((tmp_path / "whole/pretrain.json").read_text())["log"]
    assert set(log[-1]["groups"]) == {"high", "low", "pairs"}
    assert log[-1]["valid_loss"] < log[0]["valid_loss"]
    flags = ["--encoder", "whole", "--steps", 2, "--seeds", 0, "--objective", "erm", "--name", "x"]
    flags += ["--template", "{prompt} {mask} {text}"]
    flags += ["--languages", "eng_Latn,deu_Latn", "--source", "eng_Latn"]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr
