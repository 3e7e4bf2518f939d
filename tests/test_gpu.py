"""benchmarks/gpu.py: its steps and their limits; what is cut off, fails or is skipped.

.ci/run rehearses the steps themselves: python benchmarks/gpu.py --device cpu --quick
"""
import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, load_script

gpu = load_script("benchmarks/gpu.py")
# A process that starts another one, as speed.py does; that one would never end.
HANGS = """
import subprocess, sys
print("begun", flush=True)
tick = "import time\\nwhile True: print('tick', flush=True); time.sleep(0.1)"
subprocess.run([sys.executable, "-c", tick])
"""


def arguments(tmp_path, quick):
    (tmp_path / "test.tsv").touch()
    return argparse.Namespace(device="cpu", quick=quick, encoder="pocket", data=tmp_path,
                              corpus=tmp_path, out=tmp_path, work=tmp_path)


def test_the_table_of_steps(tmp_path):
    """The same names everywhere, no more than eight minutes in all, and every script is there."""
    in_text = re.findall(r"^    ([a-z0-9-]+)  +\S", gpu.__doc__, re.M)
    assert list(gpu.STEPS) == list(gpu.LIMITS) == in_text
    assert sum(gpu.LIMITS.values()) <= 8 * 60
    for name, step in gpu.STEPS.items():
        for quick in (True, False):
            command = step(arguments(tmp_path, quick), 60)
            scripts = [Path(word) for word in command if str(word).endswith(".py")]
            assert len(scripts) == 1 and scripts[0].exists(), name
            assert name == "tests" or command[command.index("--device") + 1] == "cpu"
            assert quick is not ("base" in command) or not name.startswith(("speed", "sweep"))


def test_what_is_cut_off_fails_or_is_skipped(tmp_path, monkeypatch, capsys):
    """The next step runs, the report has what was printed, and the status is 1."""
    def skipped(args, seconds):
        gpu.need("no_package_of_this_name")

    steps = {"tests": ["-c", HANGS],
             "train": ["-c", "print('10 %\\r20 %\\r30 %'); raise SystemExit(3)"],
             "compile": ["-c", "import os; print(os.environ['HF_HUB_OFFLINE'], "
                               "os.environ['PYTHONPATH'].split(os.pathsep)[1])"]}
    for name, command in steps.items():
        monkeypatch.setitem(gpu.STEPS, name, lambda args, seconds, command=command: command)
        monkeypatch.setitem(gpu.LIMITS, name, 3 if name == "tests" else 120)
    monkeypatch.setitem(gpu.STEPS, "sweep", skipped)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path / "out"),
                                      "--total-minutes", str(sum(gpu.LIMITS.values()) / 60),
                                      "--only", "tests", "sweep", "train", "compile"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # main sets it: so it is taken back
    monkeypatch.setenv("PYTHONPATH", "elsewhere")  # where the operator's packages lie
    with pytest.raises(SystemExit) as stopped:
        gpu.main()
    assert stopped.value.code == 1
    size = (tmp_path / "out/tests.txt").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "out/tests.txt").stat().st_size == size  # what it started is gone, too
    assert "not done: tests, train" in capsys.readouterr().err
    found = json.loads((tmp_path / "out/gpu.json").read_text())["steps"]
    outcomes = {name: step["outcome"] for name, step in found.items()}
    assert outcomes == {"tests": "cut off after 3 s", "train": "failed, status 3",
                        "sweep": "skipped: no_package_of_this_name not installed",
                        "compile": "done"}
    assert found["tests"]["lines"][0] == "begun"
    assert found["tests"]["lines"][-1] == "tick"
    assert found["train"]["lines"] == ["30 %"]
    assert found["compile"]["lines"] == ["1 elsewhere"]
    report = (tmp_path / "out/gpu.md").read_text()
    assert "| tests | cut off after 3 s | 3." in report
    with pytest.raises(SystemExit):  # nor is a report written over
        gpu.main()


def test_no_step_is_begun_without_time(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path / "out"),
                                      "--total-minutes", "0.01", "--only", "compile"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    gpu.main()
    found = json.loads((tmp_path / "out/gpu.json").read_text())["steps"]
    assert found["compile"]["outcome"] == "skipped: no time is left"


def test_sigterm_ends_what_runs(tmp_path):
    """`timeout 480 python benchmarks/gpu.py` leaves no process behind."""
    script = f"""
import sys
sys.path[:0] = [{str(ROOT / "benchmarks")!r}, {str(ROOT)!r}]
import gpu
gpu.STEPS["train"] = lambda args, seconds: ["-c", {HANGS!r}]
sys.argv = ["gpu.py", "--device", "cpu", "--only", "train", "--out", {str(tmp_path / "out")!r}]
gpu.run_script(gpu.main)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    log = tmp_path / "out/train.txt"
    for _ in range(600):
        if log.exists() and "tick" in log.read_text():
            break
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) != 0
    size = log.stat().st_size
    time.sleep(0.5)
    assert log.stat().st_size == size > 0
