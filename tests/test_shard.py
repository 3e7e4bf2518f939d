"""eval.py on several processes (torchrun): the same as on one, to the last digit."""
import os
import socket
import subprocess
import sys

import pytest
import torch

from conftest import ROOT


pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch without gloo")


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
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port(), "--"]
        done = subprocess.run(command + [str(ROOT / script), *args], cwd=tmp_path, text=True, capture_output=True,
                              env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
        assert done.returncode == 0, done.stderr
        return done.stdout
    one("train.py", "--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen", "red,blue,green", "--steps", 2, "--seeds", 0, 1,
        "--objective", "erm", "--name", "x")
    evaluate = ["eval.py", "--run", "runs/x", "--split", "train"]
    one(*evaluate, "--out", "one"), two(*evaluate, "--out", "two")
    for name in ("results.json", "results.csv", "average_by.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    (tmp_path / "texts.txt").write_text("apple\nsky sea\ngrass moss leaf lime\nsnow\n" * 9)
    classify = ["eval.py", "--run", "runs/x", "--labels", "red,blue,white", "--input", "texts.txt"]
    assert two(*classify) == one(*classify)


def test_processes_part_before_python_ends():
    """A thread of gloo that still holds a tensor while Python shuts down aborts the process: less than one time in a hundred."""
    code = ("import atexit, torch; from minirosprompt.checkpoint import join; "
            "atexit.register(lambda: print('joined' if torch.distributed.is_initialized() else 'parted')); "  # called after join's own
            "join(); torch.distributed.all_reduce(torch.ones(2))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, env=os.environ | {
        "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": port()})
    assert (done.returncode, done.stdout) == (0, "parted\n"), done.stderr


def test_every_process_takes_its_share(tiny, colours, encoder, tokenizer, monkeypatch):
    """Buckets are dealt out: none twice, none left, and the sum of the processes' scores is the score of one."""
    import eval as evaluation
    from minirosprompt.prompt import TOKENS_AT_ONCE, PromptedEncoder, Template
    from minirosprompt.verbalizer import Verbalizer
    template = Template("{mask} {text}", tokenizer, 0, encoder.config.max_tokens)
    verbalizer = Verbalizer(encoder, tokenizer, {"a": ["apple"], "b": ["sky"]}, k=2)
    model, texts = PromptedEncoder(encoder, tokenizer.mask), ["sky " * (n % 7 + 1) for n in range(40)]
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 32)
    whole, parts, seen = evaluation.score(model, verbalizer, template, texts), [], []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda scores: seen.append(scores.clone()))
    for rank in range(3):
        monkeypatch.setattr(evaluation, "shard", lambda rank=rank: (rank, 3))
        parts.append(evaluation.score(model, verbalizer, template, texts))
    assert torch.equal(sum(parts), whole) and all(((p == 0).all(1) | (p == whole).all(1)).all() for p in parts)
    assert len(seen) == 3 and all(0 < (p != 0).any(1).sum() < 40 for p in parts)
