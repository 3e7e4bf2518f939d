"""Pulled plugs, full disks, numbers that go wrong: what a run survives, and how it says so."""
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, refused

from minirosprompt import dro
from minirosprompt.classifier import Classifier
from minirosprompt.io.files import load_state
from minirosprompt.io.prompts import load_prompt, save_prompt
from minirosprompt.io.runtime import interrupts
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.xlmr import XLMR

FLAGS = [
    "--source", "aa,bb", "--seen", "red,blue,green", "--shots", "4", "--seeds", "0",
    "--objective", "group-dro", "--eta", "0.5",
]
LONG = [*FLAGS, "--steps", "120", "--select-every", "3"]
SHORT = [*FLAGS, "--steps", "20"]
PROMPT = "soft-group-dro-0/prompt.safetensors"
LOG = "soft-group-dro-0/log.csv"
LAST = "soft-group-dro-0/last.pt"


@pytest.fixture()
def train(run_script, tiny, colours):
    return lambda *args: run_script("train.py", "--encoder", tiny, "--data", colours, *args)


def start(tiny, colours, cwd, *flags):
    command = [sys.executable, ROOT / "train.py", "--encoder", tiny, "--data", colours, *flags]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE)


def same_run(one, two):
    """Prompt and log (with q's trajectory) to the byte, the last checkpoint to the bit."""
    for name in (PROMPT, LOG):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    ours = load_state(one / LAST)
    theirs = load_state(two / LAST)
    assert ours["step"] == theirs["step"]
    assert ours["log"] == theirs["log"]
    assert torch.equal(ours["prompt"], theirs["prompt"])
    assert torch.equal(ours["log_q"], theirs["log_q"])


def killed_at(process, run, moment):
    """moment: seconds from the start, or ("saving", n).

    That is: while a temporary file lies there, after n checkpoints or more.
    """
    if isinstance(moment, tuple):
        seen = set()
        while process.poll() is None and len(seen) <= moment[1]:
            if list(run.glob("soft-group-dro-0/.*.tmp")) and (run / LAST).exists():
                seen.add((run / LAST).stat().st_mtime_ns)
    else:
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    process.communicate()


@pytest.mark.parametrize("kills, saving", [(0, 1), pytest.param(17, 8, marks=pytest.mark.slow)])
def test_killed_and_resumed(train, run_script, tiny, colours, tmp_path, kills, saving):
    """At random moments, and while a file is being written.

    The prompt is that of an uninterrupted run.
    """
    began = time.time()
    assert start(tiny, colours, tmp_path, *LONG, "--name", "whole").wait() == 0
    whole = time.time() - began
    rng = random.Random(0)
    middle = 0
    moments = [rng.uniform(0.3, 1) * whole for _ in range(kills)]
    moments += [("saving", rng.randint(0, 20)) for _ in range(saving)]
    for i, moment in enumerate(moments):
        run = tmp_path / "runs" / f"cut{i}"
        for _ in range(5):  # on a busy machine the moment may be missed
            killed_at(start(tiny, colours, tmp_path, *LONG, "--name", run.name), run, moment)
            if not isinstance(moment, tuple) or not (run / PROMPT).exists():
                break
            shutil.rmtree(run)
        middle += (run / LAST).exists() and not (run / PROMPT).exists()
        if (run / "config.json").exists():
            again = run_script("train.py", "--resume", f"runs/{run.name}")
        else:  # killed before anything was written: the name is still free
            again = train(*LONG, "--name", run.name)
        assert again.returncode == 0, (moment, again.stderr)
        same_run(run, tmp_path / "runs" / "whole")
    print(f"{len(moments)} kills survived, {middle} of them in the middle of training")
    assert middle >= saving


def test_ctrl_c_saves_and_says_how_to_go_on(train, run_script, tiny, colours, tmp_path):
    """It finishes the step first."""
    assert train(*LONG, "--name", "whole").returncode == 0
    process = start(tiny, colours, tmp_path, *LONG, "--name", "cut")
    while not (tmp_path / "runs/cut" / LAST).exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    step = load_state(tmp_path / "runs/cut" / LAST)["step"]
    assert process.returncode == 130
    assert "Traceback" not in errors
    go_on = f"interrupted: step {step} is saved; go on with python train.py --resume runs/cut"
    assert errors.splitlines()[-1] == go_on
    assert run_script("train.py", "--resume", "runs/cut").returncode == 0
    same_run(tmp_path / "runs/cut", tmp_path / "runs/whole")


def test_resume_scores_nothing_twice(train, run_script, tmp_path, monkeypatch):
    """A pass over 205 languages takes minutes: what was scored before an interruption is kept."""
    assert train(*SHORT, "--name", "whole").returncode == 0
    real = Classifier.score
    scored = []

    def score(self, examples, progress=None):
        if progress is None:  # a selection on dev, in training
            return real(self, examples)
        scored.append(progress)
        if interrupt_at == len(scored):
            raise KeyboardInterrupt
        return real(self, examples, progress)

    monkeypatch.setattr(Classifier, "score", score)
    interrupt_at = 2
    assert train(*SHORT, "--name", "cut").returncode == 130
    assert scored == ["hard prompt", "scoring"]
    scored.clear()
    assert run_script("train.py", "--resume", "runs/cut").returncode == 0
    assert scored == ["scoring"]
    name = "results.csv"
    assert (tmp_path / "runs/cut" / name).read_text() == (
        tmp_path / "runs/whole" / name).read_text()


@pytest.fixture()
def no_background():
    """In a job that a shell script has put into the background SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_second_ctrl_c_ends_at_once(no_background):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts() as seen:
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---- disks ---------------------------------------------------------------------------------------


@pytest.fixture()
def small_disk(tmp_path):
    """small_disk(options): mounts, or mounts anew, a tmpfs on the folder it returns.

    Needs the right to mount.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        remount = ["-o", f"remount,{options}"] if os.path.ismount(folder) else ["-o", options]
        command = ["mount", "-t", "tmpfs", *remount, "tmpfs", folder]
        if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("no right to mount")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", folder], check=True)


def whole_files(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".pt":
            load_state(path)
        if path.suffix == ".safetensors":
            read_safetensors(path)


@pytest.mark.parametrize("kilobytes", [4, 8, 12, 16, 20, 24])
def test_full_disk(kilobytes, small_disk, train, run_script, tmp_path, monkeypatch):
    assert train(*SHORT, "--name", "whole").returncode == 0
    disk = small_disk(f"size={kilobytes}k")
    monkeypatch.chdir(disk)
    done = train(*SHORT, "--name", "full")
    refused(done, "No space left on device; what was there before is unharmed")
    assert "runs/full" in done.stderr
    whole_files(disk)
    small_disk("size=1m")
    if (disk / "runs/full/config.json").exists():
        again = run_script("train.py", "--resume", "runs/full")
    else:
        again = train(*SHORT, "--name", "full")
    assert again.returncode == 0, again.stderr
    same_run(disk / "runs/full", tmp_path / "runs/whole")


def test_read_only_disk(small_disk, train, run_script, monkeypatch):
    disk = small_disk("size=1m")
    monkeypatch.chdir(disk)
    assert train(*SHORT, "--name", "one").returncode == 0
    small_disk("ro")
    refused(train(*SHORT, "--name", "two"), "runs/two: Read-only file system")
    refused(run_script("eval.py"), "Read-only file system")
    whole_files(disk)


def test_every_write_may_fail(train, run_script, tmp_path, monkeypatch):
    """The disk fills up at the first, second, ... file.

    One line, nothing half-written, and the run can be gone on with.
    """
    assert train(*SHORT, "--name", "whole").returncode == 0
    real = os.fsync
    failed = 0
    for n in range(20):
        left = [n]

        def full(descriptor):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        done = train(*SHORT, "--name", f"full{n}")
        monkeypatch.setattr(os, "fsync", real)
        if done.returncode == 0:
            break
        failed += 1
        refused(done, "No space left on device")
        whole_files(tmp_path / "runs")
        if n:  # config.json is there
            assert run_script("train.py", "--resume", f"runs/full{n}").returncode == 0
            same_run(tmp_path / f"runs/full{n}", tmp_path / "runs/whole")
    # config, env, inputs, hard.pt, last.pt twice, log, prompt, scores.pt, results.json and .csv,
    # figure.svg
    assert failed == 13


# ---- numbers -------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_names_the_last_good_checkpoint(train, tmp_path):
    done = train(*SHORT, "--lr", "1e30", "--name", "bad")
    refused(done, "the loss is nan at step 10 (no checkpoint yet); "
                  "start again with a smaller --lr (now 1e+30)")
    # the dev scores are the first to go
    done = train(*SHORT, "--select-every", 1, "--lr", "1e30", "--name", "worse")
    refused(done, "not finite numbers")


def test_nan_after_some_good_steps(train, run_script, tmp_path, monkeypatch):
    real = dro.group_losses
    calls = [0]

    def group_losses(losses, group, G):
        if losses.requires_grad:  # a step of training, not a selection
            calls[0] += 1
            if calls[0] == 14:
                losses = losses * float("nan")
        return real(losses, group, G)

    monkeypatch.setattr(dro, "group_losses", group_losses)
    done = train(*SHORT, "--name", "bad")
    refused(done, f"the loss is nan at step 20 (runs/bad/{LAST} is good, of step 10)")
    assert load_state(tmp_path / "runs/bad" / LAST)["step"] == 10
    monkeypatch.setattr(dro, "group_losses", real)
    assert run_script("train.py", "--resume", "runs/bad").returncode == 0
    assert train(*SHORT, "--name", "whole").returncode == 0
    same_run(tmp_path / "runs/bad", tmp_path / "runs/whole")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_overflow_does_not_pass_silently(train, run_script, tiny, tmp_path, dtype):
    """An encoder whose weights overflow, and a prompt with a NaN in it."""
    huge = shutil.copytree(tiny, tmp_path / "huge")
    tensors, _ = read_safetensors(tiny / "model.safetensors")
    for name in tensors:
        if "dense.weight" in name:
            tensors[name] = tensors[name] * 1e30
    write_safetensors(huge / "model.safetensors", tensors)
    done = train(*SHORT, "--encoder", huge, "--dtype", dtype, "--name", "bad")
    refused(done, "not finite numbers")
    assert train(*SHORT, "--dtype", dtype, "--name", "good").returncode == 0
    path = tmp_path / "runs/good" / PROMPT
    prompt, about = load_prompt(path)
    prompt[0, 0] = float("nan")
    save_prompt(path, prompt, XLMR.from_pretrained(tiny), **about)
    refused(run_script("eval.py", "--dtype", dtype), "not finite numbers")


def is_first_of_aa(row):
    return row["id"].endswith("-0") and row["lang"] == "aa"


@pytest.mark.parametrize(
    "flags, keep",
    [
        # a group of one example
        (["--group-by", "label"], lambda row: row["label"] != "red" or is_first_of_aa(row)),
        # fewer sentences than shots
        ([], lambda row: row["lang"] != "aa" or int(row["id"][-1]) < 2),
        # one language
        (["--source", "aa"], lambda row: row["lang"] == "aa"),
        # fewer places than groups
        (["--group-by", "lang,label", "--batch-size", "2"], lambda row: True),
        (["--adjustment", "3"], lambda row: row["lang"] != "bb" or row["id"].endswith("-0")),
    ],
)
def test_thin_data(train, colours, tmp_path, flags, keep):
    thin = shutil.copytree(colours, tmp_path / "thin")
    header, *lines = (thin / "train.tsv").read_text().splitlines()
    kept = [header]
    for line in lines:
        if keep(dict(zip(header.split("\t"), line.split("\t")))):
            kept.append(line)
    (thin / "train.tsv").write_text("\n".join(kept) + "\n")
    done = train(*SHORT, "--data", thin, "--name", "thin", *flags)
    assert done.returncode == 0, done.stderr
    assert torch.isfinite(load_prompt(tmp_path / "runs/thin" / PROMPT)[0]).all()
    assert "nan" not in done.stdout


# ---- determinism ---------------------------------------------------------------------------------


def test_the_order_of_the_files_rows_changes_nothing(train, colours, tmp_path):
    shuffled = shutil.copytree(colours, tmp_path / "shuffled")
    for split in ("train", "dev", "test"):
        header, *lines = (shuffled / f"{split}.tsv").read_text().splitlines()
        random.Random(split).shuffle(lines)
        (shuffled / f"{split}.tsv").write_text("\n".join([header, *lines]) + "\n")
    assert train(*SHORT, "--name", "one").returncode == 0
    assert train(*SHORT, "--data", shuffled, "--name", "two").returncode == 0
    one = (tmp_path / "runs/one" / PROMPT).read_bytes()
    two = (tmp_path / "runs/two" / PROMPT).read_bytes()
    vectors = 8 * 32 * 4  # bytes at the end; before them the settings name the data folder
    assert one[-vectors:] == two[-vectors:]


def test_thread_counts(train, tmp_path):
    """Sums in another order.

    The prompts of one and two threads agree to 1e-3 after 20 steps, with entries of order 1.
    """
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        assert train(*SHORT, "--name", f"threads{n}").returncode == 0
    torch.set_num_threads(threads)
    one, _ = load_prompt(tmp_path / "runs/threads1" / PROMPT)
    two, _ = load_prompt(tmp_path / "runs/threads2" / PROMPT)
    assert (one - two).abs().max() <= 1e-3
