"""A tiny encoder and a tiny data set that the tests make themselves, in Hugging Face's and the project's own layouts."""
import contextlib
import io
import json
import random
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

from minirosprompt.data import load_split  # noqa: E402
from minirosprompt.tokenizer import Tokenizer  # noqa: E402
from minirosprompt.io.weights import TOKENIZER_FILE, save_encoder  # noqa: E402
from minirosprompt.xlmr import Config, XLMR  # noqa: E402

WORDS = {"red": "apple cherry rose blood brick", "blue": "sky sea jeans ink whale", "green": "grass leaf frog lime moss",
         "white": "snow milk salt paper cloud"}


def random_encoder(config, seed=0):
    """An XLM-R with random weights, none of them trivial (biases and norms too)."""
    encoder, generator = XLMR(config), torch.Generator().manual_seed(seed)
    for name, weight in encoder.state_dict().items():
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + ("norm.weight" in name))
    return encoder.requires_grad_(False).eval()


def assert_agree(ours, theirs, ids):
    """Hidden states and logits of our encoder and transformers' for ids (B, T), to 1e-5 wherever there is no padding."""
    real = ids != 1
    with torch.no_grad():
        want = theirs(input_ids=ids, attention_mask=real.long(), output_hidden_states=True)
        x = ours(ours.word(ids), real)
    assert (x - want.hidden_states[-1])[real].abs().max() <= 1e-5
    assert (ours.logits(x) - want.logits)[real].abs().max() <= 1e-5


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny random encoder: 2 layers, width 32, its own SentencePiece model."""
    folder = tmp_path_factory.mktemp("tiny")
    rng, words = random.Random(0), [w for line in WORDS.values() for w in line.split()] + list(WORDS)
    (folder / "text").write_text("\n".join(" ".join(rng.choices(words, k=6)) for _ in range(500)) + "\ntopic: über 你好 abc!\n")
    sentencepiece.SentencePieceTrainer.train(input=str(folder / "text"), model_prefix=str(folder / "spm"), vocab_size=90, hard_vocab_limit=False,
                                             model_type="unigram", character_coverage=1.0, minloglevel=2)
    (folder / "spm.model").rename(folder / TOKENIZER_FILE)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    save_encoder(folder, random_encoder(Config(tokenizer.vocab_size, 32, 2, 4, 64, 66)), torch.float32)
    return folder


@pytest.fixture()
def encoder(tiny):
    return XLMR.from_pretrained(tiny)


@pytest.fixture()
def tokenizer(tiny):
    return Tokenizer(tiny / TOKENIZER_FILE)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Data folder: 4 classes, 3 languages (aa, bb, cc), 6 train, 4 dev and 4 test texts of each, two domains."""
    folder, rng = tmp_path_factory.mktemp("colours"), random.Random(1)
    for split, n in (("train", 6), ("dev", 4), ("test", 4)):
        lines = ["id\ttext\tlabel\tlang\tdomain"]
        for label, words in WORDS.items():
            for i in range(n):
                for lang in ("aa", "bb", "cc"):
                    text = " ".join(rng.sample(words.split(), 3))
                    lines.append(f"{split}-{label}-{i}\t{text}\t{label}\t{lang}\t{'ab'[i % 2]}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    (folder / "labels.json").write_text(json.dumps({label: {"aa": [label], "bb": [label]} for label in WORDS}))
    return folder


@pytest.fixture()
def run_script(tmp_path, monkeypatch):
    """run_script("train.py", "--lr", 1, ...) -> what the command ends with and prints, run in an empty folder.

    In this process, because importing torch takes longer than most of these commands.
    """
    def run(script, *args):
        out, err, code = io.StringIO(), io.StringIO(), 0
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())
    monkeypatch.chdir(tmp_path)
    for folder in (ROOT, ROOT / "data_scripts"):
        monkeypatch.syspath_prepend(str(folder))
    return run


@pytest.fixture(scope="session")
def folder_of_texts(tmp_path_factory):
    """MiniTopics' train sentences as if they were sources: four languages row-aligned, two of them with single texts too."""
    folder, rows = tmp_path_factory.mktemp("texts"), load_split("minitopics", "train")
    for lang in ("eng_Latn", "deu_Latn", "swh_Latn", "zho_Hans"):
        lines = [e.text for e in sorted((e for e in rows if e.lang == lang), key=lambda e: e.id)]
        for source, of in (("ntrex", lines), ("flores_nonsib", lines[:50])) + (
                (("stories", lines[::-1] * 2),) if lang in ("eng_Latn", "swh_Latn") else ()):
            (folder / source).mkdir(exist_ok=True)
            (folder / source / f"{lang}.txt").write_text("\n".join(of) + "\n", encoding="utf-8")
    return folder
