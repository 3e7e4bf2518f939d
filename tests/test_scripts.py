"""train.py and eval.py as a user runs them, on the tiny encoder and the colours data."""
import csv
import itertools
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from conftest import load_script, refused

from data_scripts.pretraining import probe
from minirosprompt.io.prompts import load_prompt
from minirosprompt.xlmr import XLMR

METHODS = ("hard", "soft-erm", "soft-group-dro")
COLUMNS = {"method", "seed", "lang", "role", "n", "seen", "unseen", "all", "harmonic", "macro_f1"}


@pytest.fixture()
def train(run_script, tiny, colours):
    flags = ["--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen", "red,blue,green"]
    flags += ["--shots", 4, "--steps", 20, "--seeds", 0]
    return lambda *args: run_script("train.py", *flags, *args)


def test_train_then_eval(train, run_script, tiny, tmp_path):
    done = train("--name", "one", "--seeds", 0, 1)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "one"
    for line in ("hard", "soft-erm", "soft-group-dro", "worst", "soft-group-dro against hard"):
        assert line in done.stdout
    results = json.loads((run / "results.json").read_text())
    rows = results["rows"]
    runs = {("hard", 0), ("soft-erm", 0), ("soft-erm", 1)}
    runs |= {("soft-group-dro", 0), ("soft-group-dro", 1)}
    assert {(r["method"], r["seed"]) for r in rows} == runs
    assert all(set(r) == COLUMNS for r in rows)
    langs = {("aa", "source", 16), ("bb", "source", 16), ("cc", "target", 16)}
    assert {(r["lang"], r["role"], r["n"]) for r in rows} == langs
    with open(run / "results.csv") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    config = json.loads((run / "config.json").read_text())
    assert config["seen"] == ["red", "blue", "green"]
    assert config["lr"] == 0.01
    assert config["steps"] == 20
    assert json.loads((run / "env.json").read_text())["torch"] == torch.__version__
    with open(run / "soft-group-dro-0" / "log.csv") as file:
        log = list(csv.DictReader(file))
    columns = ["step", "loss", "worst_dev_accuracy", "worst_dev_loss"]
    assert list(log[0]) == [*columns, "loss aa", "loss bb", "q aa", "q bb"]
    assert [int(r["step"]) for r in log] == [10, 20]
    assert all(abs(float(r["q aa"]) + float(r["q bb"]) - 1) < 1e-5 for r in log)
    assert float(log[-1]["q aa"]) != 0.5  # q has moved
    path = run / "soft-erm-1" / "prompt.safetensors"
    prompt, about = load_prompt(path, XLMR.from_pretrained(tiny))
    assert prompt.shape == (8, 32)
    assert (about["method"], about["seed"]) == ("soft-erm", 1)
    picture = (run / "figure.svg").read_text()
    assert all(word in picture for word in (*METHODS, "cc (target)", "chance"))

    again = run_script("eval.py")  # the newest run, same split: same numbers
    assert again.returncode == 0, again.stderr
    found = json.loads((run / "eval-test" / "results.json").read_text())["rows"]
    assert found == sorted(rows, key=lambda r: (r["method"], r["seed"], r["lang"]))
    assert (run / "eval-test" / "figure.svg").exists()
    # and nothing of the run was touched
    assert json.loads((run / "results.json").read_text()) == results
    by = json.loads((run / "eval-test" / "averages.json").read_text())
    assert list(by["family"]) == ["unknown"]
    family = by["family"]["unknown"]
    assert family.pop("languages") == 3
    assert set(family) == set(METHODS)
    for method, mean in family.items():
        values = [r["all"] for r in rows if r["method"] == method]
        assert len(values) == (3 if method == "hard" else 6)
        assert mean == pytest.approx(sum(values) / len(values))
    assert set(by) == {"pretraining text", "script", "family"}
    assert "languages by family" in again.stdout
    one = run_script("eval.py", "--languages", "cc", "--out", "only-cc")
    assert one.returncode == 0, one.stderr
    rows = json.loads((tmp_path / "only-cc" / "results.json").read_text())["rows"]
    assert {r["lang"] for r in rows} == {"cc"}


def test_figure(train, run_script, tmp_path):
    """The picture of the run, and the same file every time."""
    assert train("--name", "one", "--seeds", 0, 1).returncode == 0
    for name in ("a.svg", "b.svg"):
        assert run_script("benchmarks/figure.py", "runs/one/results.json", name).returncode == 0
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    assert picture == (tmp_path / "runs/one/figure.svg").read_text()


def rows_with(unseen, langs=("aa", "bb")):
    """Rows of results.json: two seeds, the second one 2 points better."""
    rows = []
    for method, seed, lang in itertools.product(METHODS, (0, 1), langs):
        metrics = dict.fromkeys(("all", "seen", "unseen", "harmonic"), unseen + 0.02 * seed)
        rows.append({"method": method, "seed": seed, "lang": lang, "role": "target"} | metrics)
    return rows


def write(run, rows, encoder="multilingual-e5-small"):
    run.mkdir(parents=True)
    gain = {"mean": 0.125, "low": -0.01, "high": 0.2}
    summary = {method: {} if method == "hard" else {"all gain": gain} for method in METHODS}
    found = {"settings": {"encoder": encoder}, "rows": rows, "summary": summary}
    (run / "results.json").write_text(json.dumps(found))


def test_ablations_run_only_what_is_not_there(run_script, tmp_path):
    """The tables come from results.json alone once a row is done; a dry run prints the commands."""
    for i, name in enumerate(["default", "init-0", "init-1"]):
        write(tmp_path / "runs/ablations/minitopics" / name, rows_with(0.1 * (i + 1)), "pocket")
    done = run_script("benchmarks/ablations.py", "--only", "init")
    assert done.returncode == 0, done.stderr
    # What was run with other flags is not taken for the row.
    init = ["benchmarks/ablations.py", "--only", "init", "--languages"]
    assert run_script(*init, "aa,bb").returncode == 0
    refused(run_script(*init, "aa"),
            "runs/ablations/minitopics/default/results.json: run with other --lang")
    write(tmp_path / "runs/ablations/minitopics-b/default", rows_with(0.1), "a/b")
    refused(run_script("benchmarks/ablations.py", "--only", "init", "--encoder", "c/b"),
            "run with --encoder a/b; move it away")
    assert "| `--init vocab` | 21.0 ±1.4 | 21.0 ±1.4" in done.stdout
    assert done.stdout.count("\n|") == 5
    commands = run_script("benchmarks/ablations.py", "--only", "eta", "--dry-run").stdout
    assert "--name ablations/minitopics/eta-1 --encoder pocket --eta 0.1\n" in commands


def test_ablations_of_another_encoder_have_their_own_folder(run_script):
    mini = ["benchmarks/ablations.py", "--on", "sib200", "--encoder", "runs/mini", "--only"]
    commands = run_script(*mini, "temperature", "--dry-run").stdout
    # Not in runs/sib200: that is where README's own run of SIB-200 lies.
    train = "--name ablations/sib200-mini/temperature-0 --encoder runs/mini --data "
    assert commands.count(train) == 1
    assert commands.count("--split dev") == 3
    assert commands.count("--languages bul_Cyrl,") == 3


def test_ablations_train_once_what_is_tested_on_several_data_sets(run_script, tmp_path):
    cross = ["benchmarks/ablations.py", "--on", "cross", "--only", "sib200", "mtop"]
    commands = run_script(*cross, "--dry-run").stdout
    assert commands.count("train.py --name ablations/cross/trained-1 ") == 2  # none of it is there
    assert "python eval.py --run runs/ablations/cross/trained-0 --data data/mtop --out " in commands
    write(tmp_path / "runs/ablations/cross/trained-0", rows_with(0.1))
    write(tmp_path / "runs/ablations/cross/trained-1", rows_with(0.1))
    for i, name in itertools.product((0, 1), ("sib200", "mtop")):
        write(tmp_path / f"runs/ablations/cross/trained-{i}" / name, rows_with(0.3 + 0.1 * i))
    done = run_script(*cross)
    row = "| `--source eng_Latn` | 41.0 ±1.4 | 41.0 ±1.4 | – | "
    row += "41.0 ±1.4 | 41.0 ±1.4 | +12.5 (-1.0 to +20.0) |"
    assert done.stdout.count(row) == 2, done.stderr


def test_cells_of_an_ablation_by_hand():
    value = load_script("benchmarks/ablations.py").value
    rows = [{"role": "source", "all": 0.9, "unseen": None}, {"role": "source", "all": 0.7},
            {"role": "target", "all": 0.2, "unseen": 0.4}, {"role": "target", "all": 0.4}]
    for row in rows:
        row.setdefault("unseen", 0.1)
    assert value(rows, "target all") == pytest.approx(0.3)
    assert value(rows, "worst all") == 0.2
    assert value(rows, "worst source all") == 0.7
    assert value(rows, "source unseen") == 0.1  # the language that has such texts
    assert value(rows[:1], "source unseen") is None


def test_probe_finds_the_best_weights_and_reads_no_padding(run_script, encoder, tiny):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator, dtype=torch.float64).float()
    y = torch.arange(60) % 3
    weight, bias = (w.requires_grad_() for w in probe.fit(x, y, 3, decay=0.01))
    loss = F.cross_entropy(x @ weight.T + bias, y) + 0.01 * weight.square().sum()
    loss.backward()
    # Convex: where the gradient is 0 is the minimum.
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4
    rows = [[0, 5, 2], [0, 6, 7, 8, 9, 2], [0, 4, 2]]
    one_by_one = [encoder(encoder.word(torch.tensor([row])))[0].mean(0) for row in rows]
    together = probe.mean_states(encoder, rows, "cpu")
    assert torch.allclose(together, torch.stack(one_by_one), atol=1e-5)
    done = run_script("data_scripts/pretraining/probe.py")
    # of 12 classes: pocket's states hold the topics
    assert 50 < float(done.stdout.split()[1]) < 100, done.stderr


def test_the_hard_prompt_alone(train, run_script, tmp_path):
    done = train("--name", "one", "--objective")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runs/one/results.json").read_text())
    assert {row["method"] for row in results["rows"]} == {"hard"}
    assert run_script("train.py", "--resume", "runs/one").returncode == 0


def test_classify_own_texts_into_own_classes(train, run_script, tmp_path):
    assert train("--name", "one", "--objective", "group-dro").returncode == 0
    (tmp_path / "texts.txt").write_text("apple rose\n\nsnow <mask> milk </s>\n", encoding="utf-8")
    run = ["--run", "runs/one"]
    flags = ["--labels", "red,white,made up", "--text", "sky 你好\ttab", "--input", "texts.txt"]
    done = run_script("eval.py", *run, *flags)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines(), delimiter="\t"))
    texts = ["sky 你好\ttab", "apple rose", "", "snow <mask> milk </s>"]
    assert [r["text"] for r in rows] == texts
    for row in rows:
        scores = {name: float(row[name]) for name in ("red", "white", "made up")}
        assert row["class"] == max(scores, key=scores.get)
        assert abs(sum(scores.values()) - 1) < 1e-3
    labels = {"warm": {"aa": ["red"]}, "cold": {"aa": ["blue"]}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    path = "runs/one/soft-group-dro-0/prompt.safetensors"
    done = run_script("eval.py", "--labels", "labels.json", "--text", "apple", "--run", path)
    assert done.stdout.splitlines()[0] == "text\tclass\twarm\tcold", done.stderr
    neighbours = run_script("eval.py", *run, "--labels", "red,moss", "--show-neighbours").stdout
    assert neighbours.count("\n") == 2
    assert neighbours.startswith("red\tred\t▁red ")


@pytest.mark.parametrize(
    "flags",
    [
        ["--group-by", "lang,domain"],
        ["--init", "vocab", "--combine", "mean", "--k", "3"],
        ["--init", "normal", "--calibration", "contextual", "--prompt-length", "7"],
        ["--adjustment", "2", "--eta", "0", "--stacking", "1"],
        ["--template", "{text} {prompt} {mask}", "--label-languages", "aa"],
        ["--dtype", "bfloat16"],
    ],
)
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


def test_bad_files(train, run_script, tiny, colours, tmp_path):
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
    labels = ["--run", "runs/one", "--labels", "a,b"]
    refused(run_script("eval.py", *labels), "--text or --input")
    refused(run_script("eval.py", *labels, "--input", "none.txt"), "none.txt")
    refused(run_script("eval.py", "--run", "runs/two"), "runs/two")
    refused(run_script("eval.py", "--languages", "aa,zz"), "--languages: zz not in")
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9\n")
    refused(run_script("eval.py", *labels, "--input", "latin1.txt"), "latin1.txt: not UTF-8")
    (tmp_path / "runs/one/config.json").write_text('{"epochs": 3}')
    refused(run_script("train.py", "--resume", "runs/one"), "another version")
    refused(run_script("eval.py", "--data", "nowhere"), "nowhere")
    path = tmp_path / "runs/one/soft-erm-0/prompt.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refused(run_script("eval.py"), "prompt.safetensors: damaged")


def test_a_loss_that_is_not_a_number_stops_the_run(train):
    refused(train("--lr", "1e30"), "the loss is nan at step")
