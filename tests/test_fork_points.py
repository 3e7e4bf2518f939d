"""What people change first when they fork train.py: its loop and its objectives."""
import csv
import json

import pytest
import torch

from minirosprompt.io.files import load_state
from minirosprompt.io.prompts import load_prompt

STEP = "( +)step \\+= 1"
BREAK = r"\1step += 1\n\1if step == 7:\n\1    break"
OBJECTIVES = r'( +)objectives = \["erm", "group-dro"\]'
WITH_CVAR = r'\1objectives = ["erm", "group-dro", "cvar"]'
BRANCH = r'( +)elif objective == "group-dro":'
CVAR = r"""\1elif objective == "cvar":
\1    k = max(1, len(losses) // 4)
\1    loss = losses.topk(k).values.mean()
\1elif objective == "group-dro":"""


@pytest.fixture()
def train(run_script, tiny, colours):
    flags = ["--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen", "red,blue,green"]
    flags += ["--shots", 4, "--seeds", 0]
    return lambda script, *args: run_script(script, *flags, *args)


def prompt_of(run, method):
    return load_prompt(run / f"{method}-0/prompt.safetensors")[0]


# select_every, and the last step at which a prompt was selected: none, or before the break
@pytest.mark.parametrize("select_every, last", [(10, None), (3, 6)])
def test_a_break_ends_training_normally(patched, train, tmp_path, select_every, last):
    """Exit status 0, results there; the prompt is the best so far, or else the one that there is.

    Batches depend on seed and step alone, so a run of 7 (or 6) steps has the same prompts.
    """
    script = patched("train.py", (STEP, BREAK))
    flags = ["--steps", 20, "--select-every", select_every]
    done = train(script, "--name", "cut", "--objective", "erm", "group-dro", *flags)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/cut"
    rows = json.loads((run / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"hard", "soft-erm", "soft-group-dro"}
    assert (run / "results.csv").exists()
    assert (run / "figure.svg").exists()

    flags = ["--steps", last or 7, "--select-every", select_every]
    assert train("train.py", "--name", "short", *flags).returncode == 0
    for method in ("soft-erm", "soft-group-dro"):
        prompt = prompt_of(run, method)
        assert torch.equal(prompt, prompt_of(tmp_path / "runs/short", method))
        with open(run / f"{method}-0/log.csv") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        assert steps == list(range(select_every, 7, select_every))


def test_a_break_and_the_best_prompt_of_an_earlier_step(patched, train, tmp_path):
    """With a rate so high that the first prompt stays the best: it is that one that is kept."""
    script = patched("train.py", (STEP, BREAK))
    flags = ["--objective", "erm", "--select-every", 1, "--lr", 5]
    assert train(script, "--name", "cut", "--steps", 20, *flags).returncode == 0
    state = load_state(tmp_path / "runs/cut/soft-erm-0/last.pt")
    assert state["step"] == 6  # it broke before the seventh was saved
    prompt = prompt_of(tmp_path / "runs/cut", "soft-erm")
    assert torch.equal(prompt, state["best"]["prompt"])
    accuracies = [row[2] for row in state["log"]]
    assert state["best"]["accuracy"] == max(accuracies)


def test_a_new_objective_is_one_branch_and_one_name(patched, train, run_script, tmp_path):
    """CVaR, the mean of the largest quarter of the losses: everything else knows its name."""
    script = patched("train.py", (OBJECTIVES, WITH_CVAR), (BRANCH, CVAR))
    flags = ["--objective", "erm", "cvar", "--steps", 12, "--name", "x"]
    done = train(script, *flags)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/x"
    results = json.loads((run / "results.json").read_text())
    methods = {"hard", "soft-erm", "soft-cvar"}
    assert {row["method"] for row in results["rows"]} == methods
    assert set(results["summary"]) == methods
    assert "target unseen gain" in results["summary"]["soft-cvar"]
    with open(run / "results.csv") as file:
        assert {row["method"] for row in csv.DictReader(file)} == methods
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("soft-cvar  ")]  # the table
    assert [line for line in lines if line.startswith("soft-cvar against hard")]
    assert ">soft-cvar<" in (run / "figure.svg").read_text()
    # It is not ERM under another name; and the run can be resumed.
    assert not torch.equal(prompt_of(run, "soft-cvar"), prompt_of(run, "soft-erm"))
    assert run_script(script, "--resume", "runs/x").returncode == 0
    # eval.py knows of no objective at all.
    again = run_script("eval.py")
    assert again.returncode == 0, again.stderr
    assert ">soft-cvar<" in (run / "eval-test/figure.svg").read_text()
    assert [line for line in again.stdout.splitlines() if line.startswith("soft-cvar  ")]


def test_a_method_with_a_long_name_keeps_the_table_straight(patched, train):
    name = "entropic-value-at-risk-of-the-groups"
    choices = (OBJECTIVES, rf'\1objectives = ["erm", "group-dro", "{name}"]')
    script = patched("train.py", choices, (BRANCH, CVAR.replace("cvar", name)))
    done = train(script, "--objective", "erm", name, "--steps", 2, "--name", "x")
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if line.startswith(("hard ", "soft-"))]
    rows = [line for line in table if " against hard" not in line]
    assert len(rows) == 3
    assert len({len(line) for line in rows}) == 1
