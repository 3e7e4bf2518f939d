"""train.py and eval.py as a user runs them, on the tiny encoder and the colours data."""
import csv
import json
import sys

import pytest
import torch

from conftest import ROOT
from minirosprompt.io.prompts import load_prompt
from minirosprompt.xlmr import XLMR


@pytest.fixture()
def train(run_script, tiny, colours):
    return lambda *args: run_script("train.py", "--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen",
                                    "red,blue,green", "--shots", 4, "--steps", 20, "--seeds", 0, *args)


def test_train_then_eval(train, run_script, tiny, tmp_path):
    done = train("--name", "one", "--seeds", 0, 1)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "one"
    for line in ("hard", "soft-erm", "soft-group-dro", "worst", "soft-group-dro against hard"):
        assert line in done.stdout
    results = json.loads((run / "results.json").read_text())
    rows = results["rows"]
    assert {(r["method"], r["seed"]) for r in rows} == {("hard", 0)} | {(m, s) for m in ("soft-erm", "soft-group-dro") for s in (0, 1)}
    assert all(set(r) == {"method", "seed", "lang", "role", "n", "seen", "unseen", "all", "harmonic", "macro_f1"} for r in rows)
    assert {(r["lang"], r["role"], r["n"]) for r in rows} == {("aa", "source", 16), ("bb", "source", 16), ("cc", "target", 16)}
    with open(run / "results.csv") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    config = json.loads((run / "config.json").read_text())
    assert config["seen"] == ["red", "blue", "green"] and config["lr"] == 0.01 and config["steps"] == 20
    assert json.loads((run / "env.json").read_text())["torch"] == torch.__version__
    with open(run / "soft-group-dro-0" / "log.csv") as file:
        log = list(csv.DictReader(file))
    assert [int(r["step"]) for r in log] == [10, 20]
    assert all(abs(float(r["q aa"]) + float(r["q bb"]) - 1) < 1e-5 for r in log)
    assert float(log[-1]["q aa"]) != 0.5  # q has moved
    prompt, settings = load_prompt(run / "soft-erm-1" / "prompt.safetensors", XLMR.from_pretrained(tiny))
    assert prompt.shape == (8, 32) and settings["method"] == "soft-erm"

    again = run_script("eval.py")  # the newest run, same split: same numbers
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "eval-test" / "results.json").read_text())["rows"] == sorted(rows, key=lambda r: (r["method"], r["seed"], r["lang"]))
    assert json.loads((run / "results.json").read_text()) == results  # and nothing of the run was touched
    by = json.loads((run / "eval-test" / "average_by.json").read_text())
    assert by["family"] == {"unknown": {"languages": 3, **{m: pytest.approx(sum(r["all"] for r in rows if r["method"] == m) / (3 if m == "hard" else 6))
                                                           for m in ("hard", "soft-erm", "soft-group-dro")}}}
    assert set(by) == {"pretraining text", "script", "family"} and "languages by family" in again.stdout
    one = run_script("eval.py", "--languages", "cc", "--out", "only-cc")
    assert {r["lang"] for r in json.loads((tmp_path / "only-cc" / "results.json").read_text())["rows"]} == {"cc"}, one.stderr


def test_figure(train, run_script, tmp_path):
    pytest.importorskip("matplotlib")
    assert train("--name", "one", "--seeds", 0, 1).returncode == 0
    for name in ("a.svg", "b.svg"):
        assert run_script("data_scripts/figure.py", "runs/one/results.json", name).returncode == 0
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text() and all(word in picture for word in ("cc (target)", "hard prompt", "group DRO", "chance"))


def test_ablations_run_only_what_is_not_there(run_script, tmp_path):
    """The tables come from results.json alone once a row is done; a dry run prints the commands."""
    names = ["default"] + [f"init-{i}" for i in range(2)]
    for i, name in enumerate(names):
        cells = {cell: {"mean": 0.1 * (i + 1), "sd": 0.01} for cell in ("target unseen", "worst unseen", "target harmonic")}
        (tmp_path / "runs/ablations" / name).mkdir(parents=True)
        (tmp_path / "runs/ablations" / name / "results.json").write_text(json.dumps({"summary": dict.fromkeys(("hard", "soft-erm", "soft-group-dro"), cells)}))
    done = run_script("data_scripts/ablations.py", "--only", "init")
    assert done.returncode == 0 and "| `--init vocab` | 20.0 ±1.0 | 20.0 ±1.0" in done.stdout and done.stdout.count("\n|") == 5, done.stderr
    commands = run_script("data_scripts/ablations.py", "--only", "eta", "--dry-run").stdout
    assert "python train.py --name ablations/eta-1 --eta 0.1\n" in commands


def test_ablations_of_another_encoder_have_their_own_folder_and_flags(run_script, tmp_path):
    commands = run_script("data_scripts/ablations.py", "--on", "sib200", "--encoder", "runs/mini", "--only", "cross", "k", "--dry-run").stdout
    assert "python train.py --name sib200-mini/cross-0 --encoder runs/mini --data minitopics --shots 8\n" in commands
    assert "python eval.py --run runs/sib200-mini/cross-0 --data data/sib200\n" in commands
    assert commands.count("--data data/sib200 --shots 16 --seen science/technology,politics,sports,health --source eng_Latn") == 4
    folder = tmp_path / "runs/sib200-mini/groups-0"
    folder.mkdir(parents=True)
    (tmp_path / "runs/sib200-mini/default").mkdir()
    (tmp_path / "runs/sib200-mini/groups-1").mkdir()
    rows = [{"method": method, "role": "target", "lang": lang, "unseen": unseen} for method in ("hard", "soft-erm", "soft-group-dro")
            for lang, unseen in (("aa", 0.2), ("bb", 0.6))]
    for name in ("default", "groups-0", "groups-1"):
        (folder.parent / name / "results.json").write_text(json.dumps({"rows": rows, "summary": dict.fromkeys(
            ("hard", "soft-erm", "soft-group-dro"), {"target unseen": {"mean": 0.4, "sd": 0.1}})}))
    done = run_script("data_scripts/ablations.py", "--on", "sib200", "--encoder", "runs/mini", "--only", "groups")
    assert done.stdout.count("| 40.0 ±10.0 (20.0 to 60.0) |") == 9, done.stderr  # of two languages both bounds are drawn


def test_probe_finds_the_best_weights_and_reads_no_padding(run_script, encoder, tiny):
    sys.path.insert(0, str(ROOT / "data_scripts"))
    import probe
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator, dtype=torch.float64).float(), torch.arange(60) % 3
    weight, bias = (w.requires_grad_() for w in probe.fit(x, y, 3, decay=0.01))
    (torch.nn.functional.cross_entropy(x @ weight.T + bias, y) + 0.01 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4  # convex: where the gradient is 0 is the minimum
    rows = [[0, 5, 2], [0, 6, 7, 8, 9, 2], [0, 4, 2]]
    one_by_one = [encoder(encoder.word(torch.tensor([row])))[0].mean(0) for row in rows]
    assert torch.allclose(probe.mean_states(encoder, rows, "cpu"), torch.stack(one_by_one), atol=1e-5)
    done = run_script("data_scripts/probe.py")
    assert 50 < float(done.stdout.split()[1]) < 100, done.stderr  # of 12 classes: pocket's states hold the topics


def test_classify_own_texts_into_own_classes(train, run_script, tmp_path):
    assert train("--name", "one", "--objective", "group-dro").returncode == 0
    (tmp_path / "texts.txt").write_text("apple rose\n\nsnow <mask> milk </s>\n", encoding="utf-8")
    done = run_script("eval.py", "--labels", "red,white,made up", "--text", "sky 你好\ttab", "--input", "texts.txt")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    assert [r["text"] for r in rows] == ["sky 你好\ttab", "apple rose", "", "snow <mask> milk </s>"]
    for row in rows:
        scores = {name: float(row[name]) for name in ("red", "white", "made up")}
        assert row["class"] == max(scores, key=scores.get) and abs(sum(scores.values()) - 1) < 1e-3
    (tmp_path / "labels.json").write_text(json.dumps({"warm": {"aa": ["red"]}, "cold": {"aa": ["blue"]}}))
    done = run_script("eval.py", "--labels", "labels.json", "--text", "apple", "--run", "runs/one/soft-group-dro-0/prompt.safetensors")
    assert done.stdout.splitlines()[0] == "text\tclass\twarm\tcold", done.stderr
    neighbours = run_script("eval.py", "--labels", "red", "--show-neighbours").stdout.splitlines()
    assert len(neighbours) == 1 and neighbours[0].startswith("red\tred\t▁red ")


@pytest.mark.parametrize("flags", [["--group-by", "lang,domain"], ["--init", "vocab", "--combine", "mean", "--k", "3"],
                                   ["--init", "normal", "--calibration", "contextual", "--prompt-length", "7"],
                                   ["--adjustment", "2", "--eta", "0", "--stacking", "1"],
                                   ["--template", "{text} {prompt} {mask}", "--label-languages", "aa"], ["--dtype", "bfloat16"]])
def test_flags(train, flags):
    done = train("--name", "x", "--steps", 4, *flags)
    assert done.returncode == 0, done.stderr


def test_same_seed_same_prompt_and_frozen_encoder(train, tiny, tmp_path):
    before = (tiny / "model.safetensors").read_bytes()
    for name in ("a", "b"):
        assert train("--name", name, "--objective", "group-dro").returncode == 0
    path = "soft-group-dro-0/prompt.safetensors"
    assert (tmp_path / "runs/a" / path).read_bytes() == (tmp_path / "runs/b" / path).read_bytes()
    assert (tiny / "model.safetensors").read_bytes() == before


def refused(done, words):
    """Exit status 2 and one line, after the progress bars if it took long enough for any."""
    lines = [line for line in done.stderr.split("\n") if line and not line.startswith("\r")]
    assert done.returncode == 2 and len(lines) == 1 and words in lines[0], (done.stdout, done.stderr)


def test_bad_files(train, run_script, tiny, colours, tmp_path):
    import shutil
    broken = shutil.copytree(tiny, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:-100])
    refused(train("--encoder", broken), "model.safetensors: damaged safetensors file")
    missing = shutil.copytree(colours, tmp_path / "missing")
    (missing / "dev.tsv").write_text("id\ttext\tlabel\n1\ta\tred\n")
    refused(train("--data", missing), "dev.tsv: line 1: no column lang")
    (missing / "dev.tsv").write_text("")
    refused(train("--data", missing), "dev.tsv: line 1: no column")
    shutil.copy(colours / "dev.tsv", missing / "dev.tsv")
    (missing / "labels.json").write_text('{"red": {"aa": ["red"]}}')
    refused(train("--data", missing), "labels.json: 'blue' has no label word")


def test_eval_refuses(train, run_script, tiny, tmp_path):
    refused(run_script("eval.py"), "runs: no trained prompt")
    assert train("--name", "one", "--steps", 2, "--objective", "erm").returncode == 0
    refused(train("--name", "one"), "runs/one exists")
    refused(run_script("eval.py", "--encoder", "pocket"), "trained for another encoder")
    refused(run_script("eval.py", "--labels", "a,b"), "--text or --input")
    refused(run_script("eval.py", "--labels", "a,b", "--input", "none.txt"), "none.txt")
    refused(run_script("eval.py", "--run", "runs/two"), "runs/two")
    refused(run_script("eval.py", "--languages", "aa,zz"), "--languages: zz not in")
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    refused(run_script("eval.py", "--labels", "a,b", "--input", "latin1.txt"), "latin1.txt: not UTF-8")
    (tmp_path / "runs/one/config.json").write_text("{}")
    refused(run_script("train.py", "--resume", "runs/one"), "another version")
    refused(run_script("eval.py", "--data", "nowhere"), "nowhere")
    path = tmp_path / "runs/one/soft-erm-0/prompt.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refused(run_script("eval.py"), "prompt.safetensors: damaged")


def test_a_loss_that_is_not_a_number_stops_the_run(train):
    refused(train("--lr", "1e30"), "the loss is nan at step")
