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

from conftest import ROOT
from minirosprompt.io.files import load_state
from minirosprompt.io.prompts import load_prompt, save_prompt
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.xlmr import XLMR
from test_scripts import refused

FLAGS = ["--source", "aa,bb", "--seen", "red,blue,green", "--shots", "4", "--seeds", "0", "--objective", "group-dro", "--eta", "0.5"]
LONG = [*FLAGS, "--steps", "120", "--select-every", "3"]
SHORT = [*FLAGS, "--steps", "20"]
PROMPT, LOG, LAST = (f"soft-group-dro-0/{name}" for name in ("prompt.safetensors", "log.csv", "last.pt"))


@pytest.fixture()
def train(run_script, tiny, colours):
    return lambda *args: run_script("train.py", "--encoder", tiny, "--data", colours, *args)


def start(tiny, colours, cwd, *flags):
    return subprocess.Popen([sys.executable, ROOT / "train.py", "--encoder", tiny, "--data", colours, *flags], cwd=cwd, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def same_run(one, two):
    """Prompt and log (with q's trajectory) to the byte, the last checkpoint to the bit."""
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in (PROMPT, LOG))
    states = [load_state(run / LAST) for run in (one, two)]
    assert states[0]["step"] == states[1]["step"] and states[0]["log"] == states[1]["log"]
    assert all(torch.equal(states[0][name], states[1][name]) for name in ("prompt", "log_q"))


def killed_at(process, run, moment):
    """moment: seconds from the start, or ("saving", n): while a temporary file lies there, after n checkpoints or more."""
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
    """At random moments, and while a file is being written: the prompt is that of an uninterrupted run."""
    began = time.time()
    assert start(tiny, colours, tmp_path, *LONG, "--name", "whole").wait() == 0
    whole, rng, middle = time.time() - began, random.Random(0), 0
    moments = [rng.uniform(0.3, 1) * whole for _ in range(kills)] + [("saving", rng.randint(0, 20)) for _ in range(saving)]
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


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(train, run_script, tiny, colours, tmp_path):
    assert train(*LONG, "--name", "whole").returncode == 0
    process = start(tiny, colours, tmp_path, *LONG, "--name", "cut")
    while not (tmp_path / "runs/cut" / LAST).exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    step = load_state(tmp_path / "runs/cut" / LAST)["step"]
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == f"interrupted: step {step} is saved; go on with python train.py --resume runs/cut"
    assert run_script("train.py", "--resume", "runs/cut").returncode == 0
    same_run(tmp_path / "runs/cut", tmp_path / "runs/whole")


def test_second_ctrl_c_ends_at_once():
    from minirosprompt.io.runtime import interrupts
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupts() as seen:
        signal.raise_signal(signal.SIGINT)
        assert seen == [signal.SIGINT]
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---- disks ------------------------------------------------------------------------------------------------------------

@pytest.fixture()
def small_disk(tmp_path):
    """small_disk(options): mounts, or mounts anew, a tmpfs on the folder it returns. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        remount = ["-o", f"remount,{options}"] if os.path.ismount(folder) else ["-o", options]
        if subprocess.run(["mount", "-t", "tmpfs", *remount, "tmpfs", folder], stderr=subprocess.DEVNULL).returncode:
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
    again = run_script("train.py", "--resume", "runs/full") if (disk / "runs/full/config.json").exists() else train(*SHORT, "--name", "full")
    assert again.returncode == 0, again.stderr
    same_run(disk / "runs/full", tmp_path / "runs/whole")


def test_read_only_disk(small_disk, train, run_script, monkeypatch):
    disk = small_disk("size=1m")
    monkeypatch.chdir(disk)
    assert train(*SHORT, "--name", "one").returncode == 0
    small_disk("ro")
    refused(train(*SHORT, "--name", "two"), "runs/two/config.json: Read-only file system")
    refused(run_script("eval.py"), "Read-only file system")
    whole_files(disk)


def test_every_write_may_fail(train, run_script, tmp_path, monkeypatch):
    """The disk fills up at the first, second, ... file: one line, nothing half-written, and the run can be gone on with."""
    assert train(*SHORT, "--name", "whole").returncode == 0
    real, failed = os.fsync, 0
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
    assert failed == 8  # config, env, last.pt twice, log, prompt, results.json, results.csv


# ---- numbers ----------------------------------------------------------------------------------------------------------

def test_a_loss_that_is_not_a_number_names_the_last_good_checkpoint(train, tmp_path):
    refused(train(*SHORT, "--lr", "1e30", "--name", "bad"), "the loss is nan at step 2 (no checkpoint yet); start again with a smaller --lr (now 1e+30)")
    done = train(*SHORT, "--select-every", 1, "--lr", "1e30", "--name", "worse")  # the dev scores are the first to go
    refused(done, "not finite numbers")


def test_nan_after_some_good_steps(train, run_script, tmp_path, monkeypatch):
    import minirosprompt.dro as dro
    real, calls = dro.group_losses, [0]

    def group_losses(losses, group, G):
        calls[0] += losses.requires_grad
        return real(losses * (float("nan") if calls[0] == 14 and losses.requires_grad else 1), group, G)
    monkeypatch.setattr(dro, "group_losses", group_losses)
    refused(train(*SHORT, "--name", "bad"), f"the loss is nan at step 14 (runs/bad/{LAST} is good, of step 10)")
    assert load_state(tmp_path / "runs/bad" / LAST)["step"] == 10
    monkeypatch.setattr(dro, "group_losses", real)
    assert run_script("train.py", "--resume", "runs/bad").returncode == 0
    assert train(*SHORT, "--name", "whole").returncode == 0
    same_run(tmp_path / "runs/bad", tmp_path / "runs/whole")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_overflow_does_not_pass_silently(train, run_script, tiny, tmp_path, dtype):
    """An encoder whose weights overflow, and a prompt with a NaN in it."""
    huge = shutil.copytree(tiny, tmp_path / "huge")
    tensors = {name: tensor * 1e30 if "dense.weight" in name else tensor for name, tensor in read_safetensors(tiny / "model.safetensors")[0].items()}
    write_safetensors(huge / "model.safetensors", tensors)
    refused(train(*SHORT, "--encoder", huge, "--dtype", dtype, "--name", "bad"), "not finite numbers")
    assert train(*SHORT, "--dtype", dtype, "--name", "good").returncode == 0
    path = tmp_path / "runs/good" / PROMPT
    prompt, settings = load_prompt(path)
    prompt[0, 0] = float("nan")
    settings.pop("fingerprint")
    save_prompt(path, prompt, XLMR.from_pretrained(tiny), settings)
    refused(run_script("eval.py", "--dtype", dtype), "not finite numbers")


@pytest.mark.parametrize("flags, keep", [
    (["--group-by", "label"], lambda row: row["label"] != "red" or row["id"].endswith("red-0") and row["lang"] == "aa"),   # a group of one example
    ([], lambda row: row["lang"] != "aa" or int(row["id"][-1]) < 2),                                                      # fewer sentences than shots
    (["--source", "aa"], lambda row: row["lang"] == "aa"),                                                                # one language
    (["--seen", "red", "--classes", "red"], lambda row: row["label"] == "red"),                                           # one class
    (["--group-by", "lang,label", "--batch-size", "2"], lambda row: True),                                                # fewer places than groups
    (["--adjustment", "3"], lambda row: row["lang"] != "bb" or row["id"].endswith("-0"))])
def test_thin_data(train, colours, tmp_path, flags, keep):
    thin = shutil.copytree(colours, tmp_path / "thin")
    for split in ("train", "dev", "test"):
        header, *lines = (thin / f"{split}.tsv").read_text().splitlines()
        rows = [dict(zip(header.split("\t"), line.split("\t"))) for line in lines]
        (thin / f"{split}.tsv").write_text("\n".join([header] + [line for line, row in zip(lines, rows) if split != "train" or keep(row)]) + "\n")
    done = train(*SHORT, "--data", thin, "--name", "thin", *flags)
    assert done.returncode == 0, done.stderr
    assert torch.isfinite(load_prompt(tmp_path / "runs/thin" / PROMPT)[0]).all() and "nan" not in done.stdout


# ---- determinism ------------------------------------------------------------------------------------------------------

def test_the_order_of_the_files_rows_changes_nothing(train, colours, tmp_path):
    shuffled = shutil.copytree(colours, tmp_path / "shuffled")
    for split in ("train", "dev", "test"):
        header, *lines = (shuffled / f"{split}.tsv").read_text().splitlines()
        random.Random(split).shuffle(lines)
        (shuffled / f"{split}.tsv").write_text("\n".join([header, *lines]) + "\n")
    assert train(*SHORT, "--name", "one").returncode == 0 and train(*SHORT, "--data", shuffled, "--name", "two").returncode == 0
    one, two = ((tmp_path / "runs" / name / "soft-group-dro-0" / "prompt.safetensors").read_bytes() for name in ("one", "two"))
    assert one[-8 * 32 * 4:] == two[-8 * 32 * 4:]  # the vectors; the settings name the data folder


def test_thread_counts(train, tmp_path):
    """Sums in another order: the prompts of one and two threads agree to 1e-3 after 20 steps, with entries of order 1."""
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        assert train(*SHORT, "--name", f"threads{n}").returncode == 0
    torch.set_num_threads(threads)
    one, two = (load_prompt(tmp_path / f"runs/threads{n}" / PROMPT)[0] for n in (1, 2))
    assert (one - two).abs().max() <= 1e-3
