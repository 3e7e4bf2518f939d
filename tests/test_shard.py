"""eval.py on several processes (torchrun): the same as on one, to the last digit."""
import os
import socket
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from minirosprompt import classifier
from minirosprompt.classifier import score_sequences
from minirosprompt.prompt import TOKENS_AT_ONCE, PromptedEncoder, Template
from minirosprompt.verbalizer import Verbalizer

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="torch without gloo",
)


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def test_two_processes_find_what_one_finds(run_script, tiny, colours, tmp_path):
    def one(*args):
        done = run_script(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def two(script, *args):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--master-port", port(), "--", str(ROOT / script), *args]
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | threads, text=True,
                              capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    flags = ["--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen", "red,blue,green"]
    flags += ["--steps", 2, "--seeds", 0, 1, "--objective", "erm", "--name", "x"]
    one("train.py", *flags)
    evaluate = ["eval.py", "--run", "runs/x", "--split", "train"]
    one(*evaluate, "--out", "one")
    two(*evaluate, "--out", "two")
    for name in ("results.json", "results.csv", "averages.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (tmp_path / "texts.txt").write_text("apple\nsky sea\ngrass moss leaf lime\nsnow\n" * 9)
    classify = ["eval.py", "--run", "runs/x", "--labels", "red,blue,white", "--input", "texts.txt"]
    assert two(*classify) == one(*classify)


# What is registered first is called last: after join's own.
JOIN = """
import atexit
import pathlib
import torch
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example
from minirosprompt.io.runtime import join

def look():
    print("joined" if torch.distributed.is_initialized() else "parted")
    threads = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    print([name for name in threads if "gloo" in name])

atexit.register(look)
join()
Classifier(*load_encoder("pocket"), {"a": ["sky"], "b": ["sea"]}).score([Example("blue")])
torch.distributed.all_reduce(torch.ones(2))
"""


def test_processes_part_before_python_ends():
    """A thread of gloo that still holds a tensor while Python shuts down aborts the process.

    Less than one time in a hundred. They end with the group, if nothing else holds on to it, as
    PyTorch modules do that are imported later.
    """
    alone = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1"}
    alone |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port()}
    done = subprocess.run([sys.executable, "-c", JOIN], cwd=ROOT, env=os.environ | alone, text=True,
                          capture_output=True)
    assert (done.returncode, done.stdout) == (0, "parted\n[]\n"), done.stderr


def test_every_process_takes_its_share(encoder, tokenizer, monkeypatch):
    """Buckets are dealt out: none twice, none left.

    The sum of the processes' scores is the score of one.
    """
    template = Template("{mask} {text}", tokenizer, 0, encoder.config.max_tokens)
    verbalizer = Verbalizer(encoder, tokenizer, {"a": ["apple"], "b": ["sky"]}, k=2)
    model = PromptedEncoder(encoder, tokenizer.mask)
    texts = ["sky " * (n % 7 + 1) for n in range(40)]
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 32)
    sequences = template.encode(texts)
    whole = score_sequences(model, verbalizer, sequences)               # (40, 2)
    parts = []
    seen = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda scores: seen.append(scores.clone()))
    for rank in range(3):
        monkeypatch.setattr(classifier, "shard", lambda rank=rank: (rank, 3))
        parts.append(score_sequences(model, verbalizer, sequences))
    assert torch.equal(sum(parts), whole)
    assert len(seen) == 3
    for part in parts:
        left_out = (part == 0).all(1)                                   # (40,)
        assert (left_out | (part == whole).all(1)).all()
        assert 0 < (~left_out).sum() < 40
