"""Anybody's texts and classes: lists of labels, standard input, what is printed, which prompt."""
import argparse
import csv
import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
import torch
from conftest import refused

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io import e5, settings, texts
from minirosprompt.io.prompts import load_prompt, save_prompt

PROMPTS = settings.PROMPTS  # the real ones; some tests put others in their place
TRAIN = ["--source", "aa,bb", "--seen", "red,blue,green", "--steps", 2, "--seeds", 0]
TRAIN += ["--objective", "erm", "--name", "one"]


@pytest.fixture()
def standard_input(monkeypatch):
    def put(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    return put


# ---- reading -------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, read", [
    ("classes.txt", Path("classes.txt")),
    ("a/b.tsv", Path("a/b.tsv")),
    ("labels.json", Path("labels.json")),
    ("sports, politics ,", ["sports", "politics"]),
    ("U.S. news,txt", ["U.S. news", "txt"]),
    ("体育，天气；新闻", ["体育", "天气", "新闻"]),
])
def test_labels_are_names_or_a_file(text, read):
    assert texts.labels(text) == read


@pytest.mark.parametrize("content, read", [
    ("sports\nU.S. politics\n", {"sports": ["sports"], "U.S. politics": ["U.S. politics"]}),
    ("sports", {"sports": ["sports"]}),
    # label words, in any language, and spaces that mean nothing
    ("sports: sports; deporte ;体育\n", {"sports": ["sports", "deporte", "体育"]}),
    ("sports\tball;goal\nfood\n", {"sports": ["ball", "goal"], "food": ["food"]}),
    # a description, commas and colons in it
    ("money: prices, wages: what they do\n", {"money": ["prices, wages: what they do"]}),
    ("money\tat 10:30 on the market\n", {"money": ["at 10:30 on the market"]}),
    # a class with a colon and no words
    ("a:\nb: ;\nc\t\n", {"a": ["a"], "b": ["b"], "c": ["c"]}),
    # the same signs in Chinese, and of Arabic
    ("体育：足球；进球\n财经：价格，工资\n", {"体育": ["足球", "进球"], "财经": ["价格，工资"]}),
    ("a: كرة؛ هدف\nb\n", {"a": ["كرة", "هدف"], "b": ["b"]}),
    # commas in some lines, or with a colon; "label" as a class
    ("arts, culture\nsports\n", {"arts, culture": ["arts, culture"], "sports": ["sports"]}),
    ("a, b:\nc, d: e\n", {"a, b": ["a, b"], "c, d": ["e"]}),
    ("label: mark\nb\n", {"label": ["mark"], "b": ["b"]}),
    ("b\nlabel\n", {"b": ["b"], "label": ["label"]}),
    # a hashtag, a name with a dash, and one with a number
    ("#sports\nhip-hop\n1. FC\n", {"#sports": ["#sports"], "hip-hop": ["hip-hop"],
                                   "1. FC": ["1. FC"]}),
    # quotes of a pasted list are no part of a name
    ('"sports": ball\n«музыка»\nl\'été\n',
     {"sports": ["ball"], "музыка": ["музыка"], "l'été": ["l'été"]}),
    # an editor's BOM, CRLF, empty lines
    ("\ufeffsports: ball\r\n\r\n  \r\nfood\r\n", {"sports": ["ball"], "food": ["food"]}),
])
def test_a_list_of_labels(tmp_path, content, read):
    path = tmp_path / "classes.txt"
    path.write_bytes(content.encode("utf-8"))
    found = texts.read_label_list(path)
    assert found == read
    assert list(found) == list(read)  # the order of the file is that of the columns


@pytest.mark.parametrize("content, words", [
    ("red\nblue\nred: rose\n", "line 3: 'red' is there twice"),
    ("\nred\n red \n", "line 3: 'red' is there twice"),
    ("red\n: rose\n", "line 2: no class before the colon"),
    ("", "no class in it"),
    ("sports,politics\nfood,health\n", "commas in every line: write one class a line"),
    ("sports，politics\n", "commas in every line: write one class a line"),
    ("label\nsports\nfood\n", "line 1: 'label' is the head of a column, it seems: take it out"),
    ("Class\twords\nsports\tgoal\n", "line 1: 'Class' is the head of a column"),
    ('{"sports": {"eng_Latn": ["goal"]}}', "JSON, it seems; the name of such a file must end in"),
    ("\n \n:\n\t\n", "no class in it"),
    ("# mine: three\nsports\nfood\n", "line 1: '# mine' is a comment or an item of a list"),
    ("topics:\n  - sports\n  - food\n", "line 2: '- sports' is a comment or an item of a list"),
    ("sports\n* food\n", "line 2: '\\* food' is a comment or an item"),
])
def test_a_list_of_labels_is_refused(tmp_path, content, words):
    path = tmp_path / "classes.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=f"classes.txt: {words}"):
        texts.read_label_list(path)


@pytest.mark.parametrize("given", [
    "sports: goal; match, politics: election", "a：b，c", "sports: goal\npolitics: election"])
def test_label_words_between_commas_are_refused(given):
    """Before, "sports: goal" was a class, and "match" another one."""
    with pytest.raises(argparse.ArgumentTypeError, match="has a colon: label words come from a f"):
        texts.labels(given)


def test_a_list_of_labels_from_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("red: rose\nblue\n",))
    writer.start()
    path = texts.labels(str(tmp_path / "pipe"))
    assert texts.read_label_list(path) == {"red": ["rose"], "blue": ["blue"]}
    writer.join()


def test_texts_of_flags_file_and_standard_input(tmp_path, standard_input):
    """A file and standard input are read alike: the same bytes, the same texts."""
    data = "\ufeffone\r\n\r\ntwo\u2028lines 你好\nthree".encode()
    lines = ["one", "", "two\u2028lines 你好", "three"]
    (tmp_path / "texts.txt").write_bytes(data)
    assert texts.read_texts(["zero"], str(tmp_path / "texts.txt")) == ["zero", *lines]
    standard_input(data)
    assert texts.read_texts(["zero"], "-") == ["zero", *lines]
    standard_input(b"\n\n")
    assert texts.read_texts(None, "-") == ["", ""]
    standard_input(b"caf\xe9\n")  # of another program: too late to convert it
    with pytest.warns(UserWarning, match="--input -: not UTF-8"):
        assert texts.read_texts(None, "-") == ["caf\ufffd"]
    standard_input(b"")
    with pytest.raises(UserError, match="^--input -: no text in it$"):
        texts.read_texts(None, "-")
    assert texts.read_texts([""], None) == [""]


# ---- writing -------------------------------------------------------------------------------------

STRANGE = ["plain", "", "a\ttab", 'a "quote"', "two\nlines", "a\rreturn", "好\u2028é", "\udcff"]
PROBABILITY = torch.tensor([[0.25, 0.75], [0.9, 0.1]] * 4)
CLEANED = [*STRANGE[:-1], "?"]  # half a character cannot be written


def written(form):
    file = io.StringIO(newline="")
    texts.write_scores(file, form, STRANGE, ["red", "sky blue"], PROBABILITY, [1, 0] * 4)
    return file.getvalue()


def test_tsv_is_read_back_as_it_was():
    rows = list(csv.DictReader(io.StringIO(written("tsv"), newline=""), delimiter="\t"))
    assert list(rows[0]) == ["text", "class", "red", "sky blue"]
    assert [row["text"] for row in rows] == CLEANED
    assert [row["class"] for row in rows] == ["sky blue", "red"] * 4
    assert (rows[0]["red"], rows[0]["sky blue"]) == ("0.2500", "0.7500")


def test_jsonl_is_read_back_as_it_was():
    lines = written("jsonl").split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line) for line in lines]
    assert [row["text"] for row in rows] == CLEANED
    assert [row["class"] for row in rows] == ["sky blue", "red"] * 4
    assert rows[0]["scores"] == {"red": 0.25, "sky blue": 0.75}
    assert list(rows[1]) == ["text", "class", "scores"]
    assert "好" in lines[6]


# ---- eval.py -------------------------------------------------------------------------------------

@pytest.fixture()
def classify(run_script, tiny, colours):
    """classify(flags of eval.py) -> what a run on the colours says of texts."""
    done = run_script("train.py", "--encoder", tiny, "--data", colours, *TRAIN)
    assert done.returncode == 0, done.stderr
    return lambda *flags: run_script("eval.py", "--run", "runs/one", *flags)


def test_from_standard_input_to_lines_of_json(classify, standard_input):
    standard_input("apple rose\n\nsky 你好\n".encode())
    done = classify("--labels", "red,made up", "--input", "-", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["apple rose", "", "sky 你好"]
    for row in rows:
        assert list(row["scores"]) == ["red", "made up"]
        assert row["class"] == max(row["scores"], key=row["scores"].get)
        assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-3)
    # How fast it was is for people, not for the next program.
    said = r"^3 texts, [\d,]+ a second; prompt: runs/one/soft-erm-0/prompt"
    assert re.search(said, done.stderr, re.M)
    assert "a second" not in done.stdout


def test_the_formats_say_the_same(classify, standard_input):
    flags = ["--labels", "red,blue", "--text", "apple rose", "--text", "sky sea"]
    rows = csv.DictReader(classify(*flags).stdout.splitlines(), delimiter="\t")
    lines = classify(*flags, "--format", "jsonl").stdout.splitlines()
    for row, line in zip(rows, lines, strict=True):
        value = json.loads(line)
        scores = {name: float(row[name]) for name in ("red", "blue")}
        assert (value["text"], value["class"]) == (row["text"], row["class"])
        assert value["scores"] == scores


def test_a_list_says_what_labels_json_says(classify, tmp_path):
    """Label words of one's own count; a class without any is its name, not the data's words."""
    words = {"warm": ["red", "rose blood"], "blue": ["ink"], "cold": ["cold"]}
    labels = {name: {"aa": of_class} for name, of_class in words.items()}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "classes.txt").write_text("warm: red; rose blood\nblue: ink\ncold\n")
    (tmp_path / "classes.tsv").write_text("warm\tred;rose blood\r\nblue\tink\r\ncold\r\n")
    of_json = classify("--labels", "labels.json", "--text", "apple sky")
    assert of_json.stdout.startswith("text\tclass\twarm\tblue\tcold\n"), of_json.stderr
    for name in ("classes.txt", "classes.tsv"):
        done = classify("--labels", name, "--text", "apple sky")
        assert done.stdout == of_json.stdout, done.stderr
    assert classify("--labels", "warm,blue,cold", "--text", "apple sky").stdout != of_json.stdout


# ---- prompts that ship ---------------------------------------------------------------------------

def own_prompt(name, folder, own, **changed):
    """A prompt that ships for the encoder of this name, in a folder of the test's own."""
    about = {"encoder": name, "seen": ["food"], "source": ["eng_Latn"], "verbalizer": "words"}
    saved = settings.settings_of(settings.default_settings(**about | changed))
    prompt = torch.randn(8, own.config.width, generator=torch.Generator().manual_seed(0))
    save_prompt(folder / f"{name}.safetensors", prompt, own, "soft-erm", 0, saved)


def test_labels_without_a_run_take_the_prompt_that_ships(
        classify, run_script, tiny, encoder, tmp_path, monkeypatch):
    """Not the newest run: its prompt may be of yesterday's experiment."""
    monkeypatch.setattr(settings, "PROMPTS", tmp_path / "prompts")
    pocket, _ = load_encoder("pocket")
    own_prompt("pocket", tmp_path / "prompts", pocket)
    own_prompt(e5.NAME, tmp_path / "prompts", encoder, encoder=str(tiny))  # the default's name
    flags = ["--labels", "red,blue", "--text", "apple rose"]
    for name, more in ((e5.NAME, []), ("pocket", ["--encoder", "pocket"])):
        done = run_script("eval.py", *flags, *more)
        assert done.returncode == 0, done.stderr
        same = run_script("eval.py", "--run", f"prompts/{name}.safetensors", *flags)
        assert done.stdout == same.stdout
        assert done.stdout != classify(*flags).stdout
    done = run_script("eval.py", *flags, "--encoder", tiny)
    refused(done, f"--run: no prompt ships for {tiny}; name one that train.py made")
    # Without --labels the newest run, as ever.
    assert run_script("eval.py").returncode == 0
    assert (tmp_path / "runs/one/eval-test/results.json").exists()


@pytest.mark.skipif(not PROMPTS.exists(), reason="no prompt ships yet")
@pytest.mark.parametrize("name", ["pocket", e5.NAME])
def test_the_prompts_that_ship_fit_their_encoders(run_script, name):
    path = PROMPTS / f"{name}.safetensors"
    saved = settings.read_settings(path)
    assert saved.encoder == name
    assert saved.data == "minitopics" or not Path(saved.data).is_absolute()
    recipe = settings.RECIPES[saved.verbalizer]
    assert all(getattr(saved, flag) is not None for flag in ("template", "hard_prompt", "combine"))
    assert recipe["label_words"] is None or saved.label_words is not None
    if name == e5.NAME and not (e5.cache_folder() / e5.NAME / "config.json").exists():
        pytest.skip(f"{e5.NAME} is not here: data_scripts/download_encoder.py brings it")
    encoder, _ = load_encoder(name)
    prompt, _ = load_prompt(path, encoder)
    assert torch.isfinite(prompt).all()
    flags = ["--encoder", name, "--labels", "sports,politics", "--text", "The goalkeeper saved it."]
    done = run_script("eval.py", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split("\t")[1] == "sports"
