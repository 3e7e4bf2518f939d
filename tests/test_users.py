"""What has let users down before: a wrong answer, a lost result, a traceback; and no word about it.

As a user would meet it, on the tiny encoder and the colours data.
"""
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, random_encoder, refused
from filelock import FileLock

from minirosprompt.classifier import decide
from minirosprompt.data import Example, groups_of
from minirosprompt.io import texts
from minirosprompt.io.cli import Once, Parser, refuse
from minirosprompt.io.cli import run as run_main
from minirosprompt.io.weights import save_encoder
from minirosprompt.xlmr import XLMR

SHORT = ["--source", "aa,bb", "--seen", "red,blue,green", "--shots", "4", "--steps", "2",
         "--seeds", "0", "--objective", "erm"]


@pytest.fixture()
def train(run_script, tiny, colours):
    return lambda *args: run_script("train.py", "--encoder", tiny, "--data", colours, *SHORT, *args)


@pytest.fixture()
def run(train, tmp_path):
    """Folder of a run."""
    done = train("--name", "one")
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs/one"


def begin(script, *args, cwd, **environment):
    """A process of its own. It would heed Ctrl-C even if the tests run in the background."""
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, env=os.environ | environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def rows_of(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]


# ---- one folder, one run -------------------------------------------------------------------------

def test_two_runs_of_one_name_begun_at_once(tiny, colours, tmp_path):
    """Before, each wrote into the other's files."""
    flags = ["--encoder", tiny, "--data", colours, *SHORT, "--name", "same"]
    both = [begin("train.py", *flags, "--lr", lr, cwd=tmp_path) for lr in (0.01, 0.02)]
    errors = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    loser = [process.returncode for process in both].index(2)
    assert "runs/same: another process" in errors[loser] or "runs/same exists" in errors[loser]
    config = json.loads((tmp_path / "runs/same/config.json").read_text())
    assert config["lr"] == (0.02, 0.01)[loser]


def test_a_run_at_work_cannot_be_resumed(run, run_script):
    with FileLock(run / ".lock"):
        refused(run_script("train.py", "--resume", run), f"{run}: another process is working in it")
    assert run_script("train.py", "--resume", run).returncode == 0


def test_runs_without_a_name_begun_in_one_second(train, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: f"now{form[-len(str(os.getpid())) - 1:]}")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert train().returncode == 0
    monkeypatch.setattr(os, "getpid", lambda: 2)
    assert train().returncode == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_evaluations_do_not_overwrite_each_other(run, run_script, colours):
    for flags in ([], ["--languages", "aa"], ["--data", colours]):
        assert run_script("eval.py", "--run", run, *flags).returncode == 0
    assert {row["lang"] for row in rows_of(run / "eval-test")} == {"aa", "bb", "cc"}
    assert {row["lang"] for row in rows_of(run / "eval-test-2")} == {"aa"}
    # The folder trained on gives the same, named or not.
    assert rows_of(run / "eval-test-3") == rows_of(run / "eval-test")


# ---- other data, from another place --------------------------------------------------------------

@pytest.mark.parametrize("change", ["text", "label words", "encoder"])
def test_a_run_does_not_go_on_with_other_inputs(run_script, tiny, colours, tmp_path, change):
    data = shutil.copytree(colours, tmp_path / "data")
    encoder = shutil.copytree(tiny, tmp_path / "encoder")
    flags = ["--encoder", encoder, "--data", data, *SHORT, "--name", "one"]
    assert run_script("train.py", *flags).returncode == 0
    if change == "text":
        path = data / "test.tsv"
        path.write_text(path.read_text().replace("snow", "salt", 1))
    elif change == "label words":
        path = data / "labels.json"
        path.write_text(path.read_text().replace('"red"]', '"rose"]'))
    else:
        config = XLMR.from_pretrained(tiny).config
        save_encoder(encoder, random_encoder(config, seed=1), torch.float32)
    what = "texts" if change == "text" else change
    refused(run_script("train.py", "--resume", "runs/one"),
            f"runs/one: not what the run was begun with: {what}; put it back")


def test_a_run_is_the_same_from_another_folder(run_script, tiny, colours, tmp_path, monkeypatch):
    """Relative paths were not found; label words silently fell back to a class's bare name."""
    shutil.copytree(tiny, tmp_path / "encoder")
    shutil.copytree(colours, tmp_path / "data")
    labels = {label: {"aa": [f"{label} moss"]} for label in ("red", "blue", "green", "white")}
    (tmp_path / "data/labels.json").write_text(json.dumps(labels))
    flags = ["--encoder", "encoder", "--data", "data", *SHORT, "--name", "one"]
    assert run_script("train.py", *flags).returncode == 0
    flags = ["--run", tmp_path / "runs/one", "--labels", "red,blue", "--text", "apple"]
    here = run_script("eval.py", *flags)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = run_script("eval.py", *flags)
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    assert "label words" not in there.stderr
    shutil.rmtree(tmp_path / "data")
    gone = run_script("eval.py", *flags)
    assert gone.returncode == 0
    assert "data, which the prompt was trained on, is not there: the label words" in gone.stderr


def test_texts_of_unknown_classes_are_not_dropped(run, run_script, colours, tmp_path):
    """As train.py does not. Before, "Red" for "red" left out all of its texts without a word."""
    data = shutil.copytree(colours, tmp_path / "capitals")
    path = data / "test.tsv"
    path.write_text(path.read_text().replace("\tred\tcc", "\tRed\tcc"))
    words = "labels.json has no class Red, but the test split has"
    refused(run_script("eval.py", "--run", run, "--data", data), words)


def on_data(run_script, tiny, data, *flags):
    """Trains runs/one on a data folder."""
    flags = ["--encoder", tiny, "--data", data, *SHORT, "--name", "one", *flags]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr


def edit_labels(data, change):
    path = data / "labels.json"
    labels = json.loads(path.read_text())
    change(labels)
    path.write_text(json.dumps(labels))


def test_in_the_folder_trained_on_unknown_classes_are_refused_too(run_script, tiny, colours,
                                                                  tmp_path):
    data = shutil.copytree(colours, tmp_path / "data")
    on_data(run_script, tiny, data)
    path = data / "test.tsv"
    path.write_text(path.read_text().replace("\tred\tcc", "\tRed\tcc"))
    words = f"{data}: labels.json has no class Red, but the test split has: add it there"
    for flags in ([], ["--data", data]):
        refused(run_script("eval.py", "--run", "runs/one", *flags), words)
    # of another folder all splits are read
    shutil.copy(colours / "test.tsv", path)
    copy = shutil.copytree(data, tmp_path / "copy")
    edit_labels(copy, lambda labels: labels.pop("white"))
    refused(run_script("eval.py", "--run", "runs/one", "--data", copy),
            f"{copy}: labels.json has no class white, but the train split has")


def test_texts_that_are_left_out_are_counted(run_script, tiny, colours, tmp_path):
    on_data(run_script, tiny, colours, "--classes", "red,blue,green")
    done = run_script("eval.py", "--run", "runs/one")
    assert done.returncode == 0, done.stderr
    assert "3 classes compete" in done.stdout
    assert (f"eval.py: {colours}: left out: 12 of 48 test texts, of classes that the run does not "
            "have (white); a copy of the folder, named by --data, is tested on all") in done.stderr
    assert sum(row["n"] for row in rows_of(tmp_path / "runs/one/eval-test")) == 2 * 36
    copy = shutil.copytree(colours, tmp_path / "copy")
    done = run_script("eval.py", "--run", "runs/one", "--data", copy)
    assert "4 classes compete (3 seen" in done.stdout
    assert "left out" not in done.stderr


@pytest.mark.parametrize("whole", [False, True])
def test_the_folder_trained_on_and_its_copy_give_the_same(run_script, tiny, colours, tmp_path,
                                                          whole):
    """Before, a class of labels.json without any text competed in the copy alone."""
    data = shutil.copytree(colours, tmp_path / "data")
    edit_labels(data, lambda labels: labels.update(apple={"aa": ["apple"]}))
    if whole:  # one table with a column `split`
        lines = ["\t".join(["id", "text", "label", "lang", "domain", "split"])]
        for split in ("train", "dev", "test"):
            rows = (data / f"{split}.tsv").read_text().splitlines()[1:]
            lines += [f"{row}\t{split}" for row in rows]
            (data / f"{split}.tsv").unlink()
        (data / "sentences.tsv").write_text("\n".join(lines) + "\n")
    on_data(run_script, tiny, data)
    copy = shutil.copytree(data, tmp_path / "copy")
    for flags, out in (([], "own"), (["--data", copy], "other")):
        done = run_script("eval.py", "--run", "runs/one", *flags, "--out", out)
        assert done.returncode == 0, done.stderr
        assert "4 classes compete (3 seen" in done.stdout
    for file in ("results.csv", "predictions.tsv"):
        assert (tmp_path / "own" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    settings = [json.loads((tmp_path / out / "results.json").read_text())["settings"]["classes"]
                for out in ("own", "other")]
    assert settings == [["blue", "green", "red", "white"]] * 2


def test_a_folder_of_test_texts_alone(run, run_script, colours, tmp_path):
    data = shutil.copytree(colours, tmp_path / "test-only")
    for split in ("train", "dev"):
        (data / f"{split}.tsv").unlink()
    done = run_script("eval.py", "--run", run, "--data", data, "--out", "one")
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "one") == rows_of(run)


def test_upper_case_in_class_names(run_script, tiny, colours, tmp_path):
    """Label words ship for "red"; before, "Red" was its bare name without a word."""
    data = shutil.copytree(colours, tmp_path / "data")
    edit_labels(data, lambda labels: labels.update({
        "red": {"aa": ["moss"]}, "Blue": {"aa": ["sky"]}, "BLUE": {"aa": ["ink"]},
        "e\u0301": {"aa": ["leaf"]}}))
    on_data(run_script, tiny, data, "--stacking", "0.5")
    flags = ["eval.py", "--run", "runs/one", "--text", "apple moss", "--labels"]
    small = run_script(*flags, "red,white,e\u0301")
    large = run_script(*flags, "Red,WHITE,\u00c9")
    assert large.stdout.splitlines()[0] == "text\tclass\tRed\tWHITE\t\u00c9"
    assert large.stdout.splitlines()[1].split("\t")[2:] == \
        small.stdout.splitlines()[1].split("\t")[2:]
    assert run_script(*flags, "blue,red").returncode == 0  # as it is written there
    refused(run_script(*flags, "bLUE,red"), "--labels: 'bLUE' may be blue, Blue, BLUE of")


def test_words_of_a_class_that_the_run_left_aside(run_script, tiny, colours, tmp_path):
    """Of labels.json, though the run's --classes lack it; before, its bare name."""
    data = shutil.copytree(colours, tmp_path / "data")
    edit_labels(data, lambda labels: labels.update(white={"aa": ["moss"]}))
    on_data(run_script, tiny, data, "--classes", "red,blue,green")
    done = run_script("eval.py", "--run", "runs/one", "--labels", "red,white", "--show-neighbours")
    assert "white\tmoss\t" in done.stdout


def test_label_words_alike_as_far_as_there_is_room(run_script, headless, colours, tmp_path):
    """The end of a long description is not read: what differs there alone would always tie."""
    flags = ["--encoder", headless, "--data", colours, *SHORT, "--label-languages", "all"]
    assert run_script("train.py", *flags, "--name", "one").returncode == 0
    long = "apple " * 100
    (tmp_path / "long.txt").write_text(f"one: {long} moss\ntwo: {long} frog\n")
    flags = ["eval.py", "--run", "runs/one", "--text", "apple", "--labels", "long.txt"]
    done = run_script(*flags)
    assert done.returncode == 2
    assert "classes 'one' and 'two' cannot be told apart" in done.stderr
    (tmp_path / "long.txt").write_text(f"one: {long} moss\ntwo: frog\n")
    done = run_script(*flags)
    assert "eval.py: 1 of 2 label words are longer than the " in done.stderr


def test_label_words_of_other_languages_than_in_training(run_script, tiny, colours, tmp_path):
    data = shutil.copytree(colours, tmp_path / "other")
    labels = json.loads((data / "labels.json").read_text())
    labels = {label: {"cc": words["aa"]} for label, words in labels.items()}
    (data / "labels.json").write_text(json.dumps(labels))
    flags = ["--encoder", tiny, "--data", colours, *SHORT, "--label-languages", "aa"]
    assert run_script("train.py", *flags, "--name", "one").returncode == 0
    flags = ["eval.py", "--run", "runs/one", "--data", data]
    refused(run_script(*flags), "'blue' has no label word in aa: see --label-languages")
    assert run_script(*flags, "--label-languages", "cc", "--out", "two").returncode == 0
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "runs/one")

    flags = ["eval.py", "--run", "runs/one", "--label-languages", "cc", "--text", "moss"]
    done = run_script(*flags, "--labels", data / "labels.json")
    assert done.returncode == 0, done.stderr
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    refused(run_script(*flags, "--labels", "classes.txt"),
            "--label-languages: classes.txt does not say which language its words are in")


# ---- ties ----------------------------------------------------------------------------------------

def test_groups_with_names_that_look_alike(colours):
    """"x y" and "z" are another group than "x" and "y z"."""
    rows = [{"a": "x y", "b": "z"}, {"a": "x", "b": "y z"}, {"a": "x", "b": "y z"}]
    groups, names = groups_of([Example("", columns=row) for row in rows], ["a", "b"])
    assert groups == [1, 0, 0]
    assert names == ["x y z", "x y z"]


def test_the_order_of_the_classes_decides_nothing():
    scores = torch.tensor([[1.0, 2, 2, 0], [3, 3, 3, 3], [0, 0, 1, 0]])
    names = ["pear", "fig", "apple", "date"]
    assert [names[c] for c in decide(scores, names)] == ["apple", "apple", "apple"]
    back = list(reversed(names))
    assert [back[c] for c in decide(scores.flip(1), back)] == ["apple", "apple", "apple"]


def test_ties_are_counted_and_said(run, run_script):
    """A shared label word: allowed, but nobody should take the answers for answers."""
    with open("labels.txt", "w") as file:
        file.write("pear: moss\nfig: frog\nboth: moss; frog\n")
    done = run_script("eval.py", "--run", run, "--labels", "labels.txt", "--text", "moss")
    assert done.returncode == 0, done.stderr
    assert "classes 'pear' and 'both'; 'fig' and 'both' have label words of the same" in done.stderr
    assert "scoring: 1 of 1 texts fit two classes or more exactly alike" in done.stderr


# ---- what a text or a label becomes --------------------------------------------------------------

def test_what_is_not_read_of_texts_is_said_once(run, run_script):
    given = ["--text", "apple " * 100, "--text", "⚽ ☂", "--text", "moss"]
    done = run_script("eval.py", "--run", run, "--labels", "red,blue", *given)
    assert done.returncode == 0
    assert "eval.py: 1 of 3 texts are longer than the" in done.stderr
    assert "eval.py: 1 of 3 texts have no token that this encoder knows" in done.stderr
    assert done.stderr.count("\n") <= 3


@pytest.mark.parametrize("labels", ["⚽,🎉,🚀", "red,☂"])
def test_labels_that_the_encoder_cannot_read(run, run_script, labels):
    done = run_script("eval.py", "--run", run, "--labels", labels, "--text", "apple")
    refused(done, "has no tokens that this encoder knows; use another word")


def test_other_separators_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("体育，天气", "体育、天气", "体育;天气", "体育, 天气"):
        assert texts.labels(given) == ["体育", "天气"]
    for given in ('"red","blue sky"', "“red”, 'blue sky'", "«red»; blue sky"):
        assert texts.labels(given) == ["red", "blue sky"]
    (tmp_path / "classes").write_text("a\nb\n")
    for name in ("classes", "none.JSON", "none.Txt"):
        assert str(texts.labels(name)) == name


def test_one_class_alone_is_no_classification(run, run_script, tmp_path):
    (tmp_path / "one.txt").write_text("sports,food\n")
    done = run_script("eval.py", "--run", run, "--labels", "one.txt", "--text", "apple")
    refused(done, "one.txt: commas in every line: write one class a line")
    (tmp_path / "one.txt").write_text("sports\n")
    done = run_script("eval.py", "--run", run, "--labels", "one.txt", "--text", "apple")
    refused(done, "'sports' is the only class, so every text would get it")
    done = run_script("eval.py", "--run", run, "--labels", "clases", "--text", "apple")
    refused(done, "'clases' is one class, or a file that is not there")


def test_a_class_named_twice(run, run_script):
    done = run_script("eval.py", "--run", run, "--labels", "red,blue, red", "--text", "apple")
    refused(done, "argument --labels: 'red' is there twice")


def test_commas_in_a_list_of_label_words(run, run_script, tmp_path):
    """They make one description of what looks like several words; a sentence may have one."""
    flags = ["--run", run, "--text", "apple", "--labels", "list.txt"]
    (tmp_path / "list.txt").write_text("food: apple, moss\nsky: blue; sea\n")
    done = run_script("eval.py", *flags)
    assert "list.txt: line 1: read as one description, commas included" in done.stderr
    (tmp_path / "list.txt").write_text("food: what you eat, and apple\nsky: blue; sea\n")
    assert "read as one description" not in run_script("eval.py", *flags).stderr


def test_empty_texts_are_counted(run, run_script):
    given = ["--text", "", "--text", "sky"]
    done = run_script("eval.py", "--run", run, "--labels", "red,blue", *given)
    assert "1 of 2 texts are empty" in done.stderr


def test_which_prompt_has_answered_is_said_and_no_matter_of_time(run_script, tiny, colours,
                                                                 tmp_path):
    """Before, the file written last: a copy could change the answers."""
    flags = ["--encoder", tiny, "--data", colours, *SHORT[:-1], "erm", "group-dro"]
    assert run_script("train.py", *flags, "--name", "two").returncode == 0
    answers = []
    for newest in ("soft-erm-0", "soft-group-dro-0"):
        os.utime(tmp_path / "runs/two" / newest / "prompt.safetensors")
        done = run_script("eval.py", "--run", "runs/two", "--text", "apple moss")
        assert "; prompt: runs/two/soft-erm-0/prompt.safetensors" in done.stderr
        answers.append(done.stdout)
    assert answers[0] == answers[1]
    # One of them by its folder: not the first.
    one = run_script("eval.py", "--run", "runs/two/soft-group-dro-0", "--text", "apple moss")
    assert "; prompt: runs/two/soft-group-dro-0/prompt.safetensors" in one.stderr


def test_a_run_that_is_not_there_and_one_that_is_not_finished(run_script, tmp_path):
    refused(run_script("eval.py", "--run", "runs/none", "--text", "x"), "runs/none: no such folder")
    (tmp_path / "runs/begun").mkdir(parents=True)
    (tmp_path / "runs/begun/config.json").write_text("{}")
    refused(run_script("eval.py", "--run", "runs/begun", "--text", "x"),
            "go on with the run by train.py --resume runs/begun")


# ---- nothing that is there is lost ---------------------------------------------------------------

def test_results_are_not_overwritten(run, run_script):
    """Before, --out took the run's own folder, too, and results.json of some languages."""
    results = (run / "results.json").read_bytes()
    refused(run_script("eval.py", "--run", run, "--languages", "aa", "--out", run),
            f"argument --out: {run} holds a results.json already; take another folder")
    assert (run / "results.json").read_bytes() == results


@pytest.mark.parametrize("file", ["results.csv", "predictions.tsv", "figure.svg", "averages.json"])
def test_a_folder_with_files_of_other_people(run, run_script, tmp_path, file):
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / file).write_text("mine")
    refused(run_script("eval.py", "--run", run, "--out", "keep"),
            f"argument --out: keep holds a {file} already; take another folder")
    assert (tmp_path / "keep" / file).read_text() == "mine"
    refused(run_script("eval.py", "--run", run, "--out", ""), "argument --out: nothing is given")


def test_two_evaluations_into_one_folder_at_once(run, run_script, tmp_path):
    """Before, both ended well, and one's results were lost."""
    both = [begin("eval.py", "--run", run, "--out", "same", "--languages", lang, cwd=tmp_path)
            for lang in ("aa", "bb")]
    errors = [process.communicate()[1].decode() for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], errors
    loser = [process.returncode for process in both].index(2)
    assert "same: another process" in errors[loser] or "same holds a results" in errors[loser]
    assert {row["lang"] for row in rows_of(tmp_path / "same")} == {("bb", "aa")[loser]}

    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new/.lock"):
        refused(run_script("eval.py", "--run", run, "--out", "new"), "new: another process is")


def test_an_evaluation_that_fails_leaves_no_folder(run, run_script, tmp_path, monkeypatch):
    monkeypatch.setattr("minirosprompt.classifier.Classifier.score", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_script("eval.py", "--run", run, "--out", "new")
    assert not (tmp_path / "new").exists()


def test_settings_changed_under_a_run(run, run_script):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"steps": 500, "lr": 0.5}))
    refused(run_script("train.py", "--resume", run), "not what the run was begun with: settings")


def test_another_checkpoint_in_the_place_of_scores(run, run_script):
    shutil.copy(run / "soft-erm-0/last.pt", run / "hard.pt")
    refused(run_script("train.py", "--resume", run), "hard.pt: another kind of checkpoint")


def test_a_run_without_all_of_its_prompts(run, run_script):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"seeds": [0, 1]}))
    done = run_script("eval.py", "--run", run, "--text", "apple")
    assert done.returncode == 0
    assert f"{run} is not finished: without soft-erm-1" in done.stderr


def test_a_run_below_another_name_is_the_newest(train, run_script, tmp_path):
    """`--name a/b`, as benchmarks/ablations.py has it."""
    assert train("--name", "old").returncode == 0
    assert train("--name", "some/new").returncode == 0
    os.utime(tmp_path / "runs/old/soft-erm-0/prompt.safetensors", (1, 1))
    done = run_script("eval.py", "--text", "apple")
    assert "; prompt: runs/some/new/soft-erm-0/prompt.safetensors" in done.stderr


def test_the_same_data_by_another_path(train, run_script, colours, tmp_path):
    """Before, paths were compared as they were written, and other classes competed."""
    (tmp_path / "link").symlink_to(colours)
    flags = ["--classes", "red,blue,green", "--name", "three"]
    assert train(*flags).returncode == 0
    done = run_script("eval.py", "--run", "runs/three", "--data", "link")
    assert "3 classes compete" in done.stdout


# ---- what is seen --------------------------------------------------------------------------------

def test_what_has_no_training_text_is_not_seen(run_script, tiny, colours, tmp_path):
    """Before, a class or language of the test split alone was reported as trained on."""
    data = shutil.copytree(colours, tmp_path / "partly")
    lines = (data / "train.tsv").read_text().splitlines(keepends=True)
    kept = [line for line in lines if "\twhite\t" not in line and "\tcc\t" not in line]
    (data / "train.tsv").write_text("".join(kept))
    flags = ["--encoder", tiny, "--data", data, "--objective", "erm", "--steps", 2, "--seeds", 0]
    done = run_script("train.py", *flags, "--name", "one")
    assert done.returncode == 0, done.stderr
    assert "4 classes compete (3 seen in training)" in done.stdout
    assert "2 source and 1 target languages" in done.stdout
    assert "36 of 36 training texts, 24 to select by" in done.stdout
    refused(run_script("train.py", *flags, "--seen", "red,white"),
            f"--seen: white not in the train split of {data}, which has blue, green, red")
    refused(run_script("train.py", *flags, "--source", "aa,cc"), "--source: cc not in the train")


def test_the_test_split_needs_no_column_to_group_by(run_script, tiny, colours, tmp_path):
    data = shutil.copytree(colours, tmp_path / "undated")
    rows = [line.split("\t") for line in (data / "test.tsv").read_text().splitlines()]
    (data / "test.tsv").write_text("".join("\t".join(row[:-1]) + "\n" for row in rows))
    flags = ["--encoder", tiny, "--data", data, *SHORT, "--group-by", "domain"]
    assert run_script("train.py", *flags, "--name", "one").returncode == 0
    (data / "dev.tsv").write_text((data / "test.tsv").read_text())
    words = "--group-by domain: the data have the columns id, text"
    refused(run_script("train.py", *flags, "--name", "two"), words)


def test_every_text_and_what_it_was_taken_for(run, tmp_path):
    with open(run / "predictions.tsv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert list(table[0]) == ["id", "lang", "label", "hard", "soft-erm-0", "text"]
    for row in rows_of(run):
        method = {"hard": "hard", "soft-erm": "soft-erm-0"}[row["method"]]
        of_lang = [text for text in table if text["lang"] == row["lang"]]
        assert len(of_lang) == row["n"]
        right = sum(text[method] == text["label"] for text in of_lang)
        assert right / len(of_lang) == pytest.approx(row["all"])


@pytest.mark.parametrize("labels", ["x" * 5000, f"{'x' * 5000},{'x' * 5000}",
                                    f"{'☂' * 5000},red", f"a: {'x' * 5000},b", f"{'a ' * 999},a"])
def test_messages_are_short(run, run_script, labels):
    done = run_script("eval.py", "--run", run, "--labels", labels, "--text", "apple")
    assert done.returncode in (0, 2)
    assert max(map(len, done.stderr.split("\n"))) < 500


def test_many_labels_are_no_path():
    """Over 255 letters, which is longer than the name of a file may be."""
    many = [f"word{i}" for i in range(60)]
    assert texts.labels(",".join(many)) == many


def test_closed_streams(run, tmp_path):
    """stderr's lines must not land in the table; what cannot be written is an error."""
    command = f"{sys.executable} {ROOT}/eval.py --run {run} --labels red,blue"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    for flags, status, said in (("--text sky 2>&-", 0, ""), ("--text sky >&-", 2, "is closed"),
                                ("--input - <&-", 2, "standard input is closed")):
        done = subprocess.run(f"{command} {flags}", shell=True, cwd=tmp_path, env=env, text=True,
                              capture_output=True)
        assert done.returncode == status, done.stderr
        assert said in done.stderr and done.stderr.count("\n") <= 1
        assert "a second" not in done.stdout


def test_a_path_that_is_not_text(train):
    refused(train("--name", "caf\udce9"), "--name: caf? is not UTF-8")


def test_half_of_torchrun(run, run_script, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    refused(run_script("eval.py", "--run", run, "--text", "x"), "start with torchrun, or unset it")


# ---- flags that would do nothing -----------------------------------------------------------------

IDLE = [
    ("train.py", "--resume runs/one --lr 0.5", "--lr does nothing with --resume"),
    ("train.py", "--resume runs/one --eta 0.3", "--eta does nothing"),  # its default's value
    ("train.py", "--objective erm --eta 3", "--eta does nothing without --objective group-dro"),
    ("train.py", "--objective erm --adjustment 1", "--adjustment does nothing"),
    ("eval.py", "--text x --labels red,blue --languages zz", "--languages does nothing"),
    ("eval.py", "--text x --labels red,blue --split dev", "--split does nothing"),
    ("eval.py", "--text x --labels red,blue --out new", "--out does nothing"),
    ("eval.py", "--format jsonl", "--format does nothing without --text or --input"),
    ("eval.py", "--text x --labels none.txt --data runs", "--data does nothing with a file of --l"),
    ("eval.py", "--show-neighbours --text x", "--text does nothing with --show-neighbours"),
    ("eval.py", "--show-neighbours --stacking 1", "--stacking does nothing with --show-neigh"),
    ("eval.py", "--show-neighbours --calibration none", "--calibration does nothing with --show-n"),
    ("eval.py", "--run=", "argument --run: nothing is given"),
    ("eval.py", "--data=", "argument --data: nothing is given"),
    ("train.py", "--encoder=", "argument --encoder: nothing is given"),
    ("data_scripts/taxi1500.py", "--out=", "argument --out: nothing is given"),
    ("data_scripts/taxi1500.py", "--mirror=", "argument --mirror: nothing is given"),
    ("eval.py", "--input a --input b", "argument --input: given twice"),
    ("eval.py", "--text x --labels a,b --labels=c,d", "argument --labels: given twice"),
    ("eval.py", "--run a --split dev --run b", "argument --run: given twice, and the first would"),
    ("eval.py", "--data minitopics --split dev --data=x", "argument --data: given twice"),
    ("eval.py", "--text x --labels a,b --label-languages aa", "--label-languages does nothing: "),
    ("eval.py", "--text x --labels a,b --data nowhere", "nowhere/labels.json: No such file"),
    ("eval.py", "--show-neighbours --split dev", "--split does nothing with --show-neighbours"),
]


@pytest.mark.parametrize("script, flags, words", IDLE, ids=[flags for _, flags, _ in IDLE])
def test_flags_that_would_be_ignored_are_refused(run, run_script, script, flags, words):
    refused(run_script(script, *flags.split()), words)


def test_a_flag_given_twice():
    """What names data is refused; of other flags the last counts, as everywhere."""
    parser = Parser()
    parser.add_argument("--input", action=Once)
    parser.add_argument("--lr", default=1)
    assert parser.parse_args(["--lr", "2", "--input", "a", "--lr", "3"]).lr == "3"
    with pytest.raises(SystemExit):
        parser.parse_args(["--input", "a", "--input=a"])


def test_flags_of_training_without_an_objective(train, capsys):
    done = train("--objective", "--name", "one")
    assert done.returncode == 0
    assert ("--objective without a value trains nothing: --shots, --seeds, --steps do nothing"
            in done.stderr)
    refused(train("--objective", "--eta", "1"), "--eta does nothing without --objective group-dro")


def test_no_flag_is_taken_for_given():
    parser = Parser()
    parser.add_argument("--one", default=1)
    refuse(parser, [], ["one"], "here")


# ---- terminals and signals -----------------------------------------------------------------------

def test_pipes_are_utf8_whatever_the_locale(run, tmp_path):
    """Before: UnicodeEncodeError; and train.py died at "±", after all of its training."""
    flags = ["--run", run, "--labels", "red,你好", "--text", "apple 你好 ± über"]
    process = begin("eval.py", *flags, cwd=tmp_path, PYTHONIOENCODING="cp1252")
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    rows = list(csv.DictReader(out.decode("utf-8").splitlines(), delimiter="\t"))
    assert rows[0]["text"] == "apple 你好 ± über"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = begin("eval.py", *flags, cwd=tmp_path, **ascii_only)
    assert process.communicate()[0] == out


@pytest.mark.parametrize("error", [MemoryError(), None, torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ...")])
def test_out_of_memory_in_a_line(error, capsys):
    def main():
        if error:
            raise error
        torch.empty(2**50)

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "out of memory: try --dtype bfloat16" in said
    assert said.count("\n") == 1


def test_other_runtime_errors_keep_their_traceback():
    def main():
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_main(main)


@pytest.mark.parametrize("own, count", [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"),
                                        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")])
def test_waiting_threads_sleep_before_long(own, count):
    """Set before torch is imported; but whoever has set something has chosen."""
    code = ("import minirosprompt.io.start, os, sys; "
            "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))")
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=environment | own, cwd=ROOT, text=True,
                          stdout=subprocess.PIPE)
    assert done.stdout == f"False {count}\n"


def test_ctrl_c_while_torch_is_imported(tmp_path):
    for script in ("train.py", "eval.py"):
        process = begin(script, cwd=tmp_path)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode in (-signal.SIGINT, 130)
        assert b"Traceback" not in errors
