"""A tiny encoder and a tiny data set that the tests make themselves, laid out like real ones."""
import minirosprompt.io.start  # isort: skip (before torch: see there)
import contextlib
import importlib.util
import io
import json
import os
import random
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import torch

from minirosprompt.data import load_split
from minirosprompt.io.weights import TOKENIZER_FILE, save_encoder
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.xlmr import XLMR, Config

minirosprompt.io.start.heed_interrupts()  # as scripts do once they run
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
sys.path.append(str(ROOT / "benchmarks"))  # as Python does for a script: its neighbours
WORDS = {
    "red": "apple cherry rose blood brick",
    "blue": "sky sea jeans ink whale",
    "green": "grass leaf frog lime moss",
    "white": "snow milk salt paper cloud",
}


def random_encoder(config, seed=0):
    """An XLM-R with random weights, none of them trivial (biases and norms too)."""
    encoder = XLMR(config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in encoder.state_dict().items():
        weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2 + ("norm.weight" in name))
    return encoder.requires_grad_(False).eval()


def assert_agree(ours, theirs, ids):
    """Hidden states and logits of our encoder and transformers' agree to 1e-5.

    ids: (B, T); where they are padding nothing is compared.
    """
    real = ids != 1                                                     # (B, T)
    with torch.no_grad():
        want = theirs(input_ids=ids, attention_mask=real.long(), output_hidden_states=True)
        x = ours(ours.word(ids), real)                                  # (B, T, D)
    assert (x - want.hidden_states[-1])[real].abs().max() <= 1e-5
    assert (ours.logits(x) - want.logits)[real].abs().max() <= 1e-5


def load_script(path):
    """The module of a script that lies in no package, such as benchmarks/speed.py."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refused(done, words):
    """Exit status 2 and one line, after the progress bars if it took long enough for any."""
    lines = [line for line in done.stderr.split("\n") if line and not line.startswith("\r")]
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(lines) == 1 and words in lines[0], (done.stdout, done.stderr)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test reaches further than this machine, whatever its author forgot.

    Neither pip and the hub's code, nor a connection that the test's own process opens.
    """
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    # An empty PIP_FIND_LINKS would not do: pip then goes by its configuration file.
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    connect = socket.socket.connect

    def connect_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert address[0] in ("localhost", "127.0.0.1", "::1"), f"a test calls {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder of a tiny random encoder: 2 layers, width 32, its own SentencePiece model."""
    folder = tmp_path_factory.mktemp("tiny")
    rng = random.Random(0)
    words = [word for line in WORDS.values() for word in line.split()] + list(WORDS)
    lines = [" ".join(rng.choices(words, k=6)) for _ in range(500)]
    (folder / "text").write_text("\n".join([*lines, "topic: über 你好 abc!"]) + "\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"),
        model_prefix=str(folder / "spm"),
        vocab_size=90,
        hard_vocab_limit=False,
        model_type="unigram",
        character_coverage=1.0,
        minloglevel=2,
    )
    (folder / "spm.model").rename(folder / TOKENIZER_FILE)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    config = Config(tokenizer.vocab_size, width=32, layers=2, heads=4, ffn=64, positions=66)
    save_encoder(folder, random_encoder(config), torch.float32)
    return folder


@pytest.fixture(scope="session")
def headless(tiny, tmp_path_factory):
    """Folder of the tiny encoder without its masked-LM head."""
    folder = tmp_path_factory.mktemp("headless")
    encoder = XLMR.from_pretrained(tiny)
    without = XLMR(Config(**vars(encoder.config) | {"head": False}))
    without.load_state_dict(encoder.state_dict(), strict=False)
    save_encoder(folder, without, torch.float32)
    shutil.copy(tiny / TOKENIZER_FILE, folder)
    return folder


@pytest.fixture()
def encoder(tiny):
    return XLMR.from_pretrained(tiny)


@pytest.fixture()
def tokenizer(tiny):
    return Tokenizer(tiny / TOKENIZER_FILE)


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Data folder: 4 classes, 3 languages (aa, bb, cc), two domains.

    6 train, 4 dev and 4 test texts of each class and language.
    """
    folder = tmp_path_factory.mktemp("colours")
    rng = random.Random(1)
    for split, n in (("train", 6), ("dev", 4), ("test", 4)):
        lines = ["id\ttext\tlabel\tlang\tdomain"]
        for label, words in WORDS.items():
            for i in range(n):
                for lang in ("aa", "bb", "cc"):
                    text = " ".join(rng.sample(words.split(), 3))
                    lines.append(f"{split}-{label}-{i}\t{text}\t{label}\t{lang}\t{'ab'[i % 2]}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    labels = {label: {"aa": [label], "bb": [label]} for label in WORDS}
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


@pytest.fixture()
def run_script(tmp_path, monkeypatch):
    """run_script("train.py", "--lr", 1, ...) -> what the command ends with and prints.

    In an empty folder, and in this process, because importing torch takes longer than most of these
    commands. The script's path is below the repository's root, or absolute.
    """
    def run(script, *args):
        out = io.StringIO()
        err = io.StringIO()
        code = 0
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, args)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as end:
                code = end.code or 0
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture()
def patched(tmp_path):
    """patched("train.py", (pattern, replacement), ...) -> a changed copy of a script, its path.

    What somebody would do who forks it. Each pattern must be there, once; it matches whole lines.
    """
    def patch(script, *changes):
        text = (ROOT / script).read_text(encoding="utf-8")
        for pattern, replacement in changes:
            text, count = re.subn(f"^{pattern}$", replacement, text, flags=re.M)
            assert count == 1, f"{script} has {count} lines {pattern!r}"
        path = tmp_path / script
        path.write_text(text, encoding="utf-8")
        return path

    return patch


@pytest.fixture(scope="session")
def folder_of_texts(tmp_path_factory):
    """MiniTopics' train sentences as if they were sources of pretraining text.

    Four languages, row-aligned; two of them have single texts too.
    """
    folder = tmp_path_factory.mktemp("texts")
    examples = load_split("minitopics", "train")
    for lang in ("eng_Latn", "deu_Latn", "swh_Latn", "zho_Hans"):
        of_lang = sorted((e for e in examples if e.lang == lang), key=lambda e: e.id)
        lines = [e.text for e in of_lang]
        sources = {"ntrex": lines, "flores_nonsib": lines[:50]}
        if lang in ("eng_Latn", "swh_Latn"):
            sources["stories"] = lines[::-1] * 2
        for source, of_source in sources.items():
            (folder / source).mkdir(exist_ok=True)
            path = folder / source / f"{lang}.txt"
            path.write_text("\n".join(of_source) + "\n", encoding="utf-8")
    return folder
