"""Every flag of every script with a wrong value, and strange texts.

A wrong value ends with exit status 2 and one line that names the flag or the file; no traceback.
"""
import csv
import io
import itertools
import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, refused

DATA_SETS = ["sib200", "dbpedia14", "agnews", "mtop", "massive", "masakhanews", "taxi1500"]
SEVERAL_LANGUAGES = ["sib200", "mtop", "massive", "masakhanews"]
# modules that scripts share
NOT_SCRIPTS = ["common", "packed", "sources", "world", "suites", "__init__"]
# script: [(flags, what the line must say)]. TINY and COLOURS are the tests' encoder and data,
# HEADLESS is the encoder without its masked-LM head, RUN a finished run of theirs, LISTS are lists
# of labels, TEXTS sources of pretraining text. Standard input is empty.
BAD = {
    "train.py": [
        ("--encoder nowhere", 'nowhere: not "pocket", nor a folder'),
        ("--encoder COLOURS", "colours0/sentencepiece.bpe.model: no such file"),
        ("--data nowhere", "nowhere/train.tsv: No such file"),
        ("--data TINY", "train.tsv: No such file"),
        ("--seen red,purple", "--seen: purple not in"),
        ("--seen ,", "argument --seen: at least one name is needed"),
        ("--classes purple", "--classes: purple not in"),
        ("--classes red,white", "--seen: blue, green not among --classes"),
        ("--languages zz", "--languages: zz not in"),
        ("--source aa,zz", "--source: zz not in"),
        ("--label-languages zz", "labels.json: 'blue' has no label word in zz"),
        ("--shots 0", "argument --shots: '0' is not a whole number from 1"),
        ("--verbalizer words --temperature 0.1", "--temperature: only of --verbalizer states"),
        ("--pooling mask", "--pooling: only of --verbalizer states"),
        ("--verbalizer states --k 3", "--k: only of --verbalizer words"),
        ("--shots 1 2 3", "--shots: 3 numbers for"),
        ("--shots 1.5", "argument --shots: '1.5' is not a whole number from 1"),
        ("--template {prompt}{text}", "--template '{prompt}{text}': {mask} must occur once"),
        ("--template {prompt}{text}{mask}{mask}", "{mask} must occur once"),
        ("--template {prompt}{txt}{mask}", "unknown placeholder {txt}"),
        ("--template {text}{mask}", "{prompt} must occur once"),
        (
            "--hard-prompt= --init words",
            "--init words needs a phrase with at least one token in --hard-prompt",
        ),
        ("--prompt-length 63", "--template and prompt take 66 of 64 tokens: no room for a text"),
        ("--prompt-length 0", "argument --prompt-length"),
        (
            "--prompt-length 1000000000000000000000",
            "--prompt-length 1000000000000000000000: this encoder has room for 64 tokens",
        ),
        ("--prompt-length ²", "argument --prompt-length"),
        ("--init zeros", "argument --init: invalid choice: 'zeros'"),
        ("--k 100000", "--k 100000: the vocabulary has"),
        ("--k -1", "argument --k"),
        ("--combine sum", "argument --combine: invalid choice"),
        ("--label-words 0", "argument --label-words: '0' is not a whole number from 1"),
        ("--label-words red", "argument --label-words: 'red' is not a whole number from 1"),
        ("--verbalizer vectors", "argument --verbalizer: invalid choice: 'vectors'"),
        ("--encoder HEADLESS --verbalizer words", "--verbalizer words: HEADLESS has no masked-LM"),
        ("--encoder HEADLESS", "labels.json: 'blue' has no label word in eng_Latn: see --label-"),
        (
            "--encoder HEADLESS --label-languages all --template {text}",
            "--template '{text}': {prompt} must occur once",
        ),
        ("--pooling max", "argument --pooling: invalid choice: 'max'"),
        (
            "--encoder HEADLESS --label-languages all --pooling mask",
            "--template '{prompt} {text}': {mask} must occur once",
        ),
        ("--temperature 0", "argument --temperature: '0'"),
        ("--temperature -1", "argument --temperature: '-1'"),
        ("--temperature nan", "argument --temperature: 'nan'"),
        ("--calibration yes", "argument --calibration: invalid choice"),
        ("--stacking -1", "argument --stacking: '-1' is not a number from 0"),
        ("--stacking nan", "argument --stacking: 'nan' is not a number from 0"),
        ("--objective dro", "argument --objective: invalid choice: 'dro'"),
        ("--objective erm dro", "argument --objective: invalid choice: 'dro'"),
        ("--group-by topic", "--group-by topic: the data have the columns"),
        ("--eta -1", "argument --eta"),
        ("--eta inf", "argument --eta: 'inf' is not a number from 0"),
        ("--adjustment x", "argument --adjustment: 'x' is not a number from 0"),
        ("--seeds zero", "argument --seeds: 'zero' is not a whole number from 0"),
        ("--seeds 9223372036854775808", "argument --seeds"),
        ("--steps 0", "argument --steps"),
        ("--batch-size 0", "argument --batch-size"),
        ("--sampler random", "argument --sampler: invalid choice: 'random'"),
        ("--lr fast", "argument --lr: 'fast' is not a number from 0"),
        ("--select-every 0", "argument --select-every"),
        ("--split train", "argument --split: invalid choice: 'train'"),
        ("--name RUN", "choose another --name"),
        ("--name ../runs/new", "--name: runs/../runs/new does not lie below runs"),
        ("--name .", "--name: runs does not lie below runs"),
        ("--name RUN/soft-erm-0", "runs/one/soft-erm-0 lies inside of another run, runs/one"),
        ("--seen red", "--seen: red alone teaches nothing; name two classes or more"),
        ("--resume runs/none", "runs/none/config.json: No such file"),
        ("--device tpu", "argument --device: invalid choice: 'tpu'"),
        ("--dtype float16", "argument --dtype: invalid choice: 'float16'"),
        ("--epochs 3", "unrecognized arguments: --epochs 3"),
        ("--see red", "unrecognized arguments: --see red"),
    ],
    "eval.py": [
        ("--run runs/none", "--run runs/none: no such folder"),
        ("--run TINY/model.safetensors", "not a prompt that train.py saved"),
        ("--encoder pocket", "trained for another encoder"),
        ("--encoder nowhere", 'nowhere: not "pocket"'),
        ("--device tpu", "argument --device"),
        ("--dtype float16", "argument --dtype"),
        ("--run runs/one --show-neighbours --labels none.json", "none.json: No such file"),
        ("--data nowhere", "nowhere/labels.json: No such file"),
        ("--languages aa,zz", "--languages: zz not in"),
        ("--label-languages zz", "has no label word in zz: see --label-languages"),
        ("--label-languages aa,zz", "--label-languages: COLOURS/labels.json has no word in zz"),
        ("--split all", "argument --split: invalid choice: 'all'"),
        ("--calibration yes", "argument --calibration"),
        ("--stacking -1", "argument --stacking"),
        ("--out COLOURS/labels.json", "labels.json is a file, not a folder"),
        ("--run runs/one --labels a,b", "--labels does nothing without --text or --input"),
        ("--labels , --text x", "argument --labels: at least one name is needed"),
        ("--labels= --text x", "argument --labels: at least one name is needed"),
        ("--labels", "argument --labels: expected one argument"),
        ("--labels a,b --text x --encoder HEADLESS", "--run: no prompt ships for HEADLESS"),
        ("--run runs/one --labels none.txt --text x", "none.txt: No such file"),
        (
            "--run runs/one --labels LISTS/doubled.txt --text x",
            "LISTS/doubled.txt: line 3: 'red' is there twice",
        ),
        (
            "--run runs/one --labels LISTS/nameless.tsv --text x",
            "LISTS/nameless.tsv: line 2: no class before the colon",
        ),
        ("--run runs/one --labels LISTS/empty.txt --text x", "LISTS/empty.txt: no class in it"),
        ("--run runs/one --labels LISTS/latin1.txt --text x", "LISTS/latin1.txt: not UTF-8"),
        (
            "--run runs/one --labels LISTS/invisible.txt --text x",
            "class 'blue': the label word '\\u200b' has no tokens",
        ),
        ("--run runs/one --labels COLOURS/labels.json --input none.txt", "none.txt: No such file"),
        ("--run runs/one --labels a,b --input -", "--input -: no text in it"),
        ("--input -", "--input -: no text in it"),
        ("--format csv", "argument --format: invalid choice: 'csv'"),
        ("--input TINY/model.safetensors", "TINY/model.safetensors: not UTF-8 (byte"),
        ("--input COLOURS", "Is a directory"),
        ("--text", "argument --text: expected one argument"),
    ],
    "data_scripts/pretraining/pretrain.py": [
        ("", "the following arguments are required: --out"),
        ("--out COLOURS/labels.json", "labels.json is a file, not a folder"),
        ("--out new --minitopics nowhere", "nowhere/concepts.tsv"),
        ("--out new --resume", "new/pretrain.pt: No such file"),
        ("--out new --minutes -1", "argument --minutes"),
        ("--out new --look-every 0", "argument --look-every"),
        ("--out new --seed x", "argument --seed: 'x' is not a whole number"),
        ("--out new --device tpu", "argument --device"),
        ("--out new --dtype float16", "argument --dtype"),
        ("--out new --vocab-size 20", "--vocab-size 20"),
        ("--out new --vocab-size 9000000", "--vocab-size 9000000"),
        ("--out new --width 10 --heads 3", "--width 10 is not a multiple of --heads 3"),
        ("--out new --layers 0", "argument --layers"),
        ("--out new --heads 0", "argument --heads"),
        ("--out new --max-tokens 0", "argument --max-tokens"),
        ("--out new --tokens 0", "argument --tokens"),
        ("--out new --batch-tokens 0", "argument --batch-tokens"),
        ("--out new --lr -1", "argument --lr"),
        (
            "--out new --translation 1",
            "argument --translation: '1' is not a number from 0 to below 1",
        ),
        ("--out new --sentences 1.5", "argument --sentences"),
        ("--out new --mask-rate 1", "argument --mask-rate"),
        ("--out new --subword-alpha -1", "argument --subword-alpha"),
        ("--out new --corpus nowhere", "nowhere/corpus.json: No such file"),
        ("--out new --alpha -1", "argument --alpha"),
        ("--out new --compile 1", "unrecognized arguments: 1"),
    ],
    "data_scripts/pretraining/add_head.py": [
        ("", "the following arguments are required: --corpus, --out"),
        ("--out new", "the following arguments are required: --corpus"),
        ("--out new --corpus nowhere --encoder nowhere", "nowhere: not \"pocket\", nor a folder"),
        ("--out new --corpus nowhere --encoder HEADLESS --max-tokens 32",
         "nowhere/corpus.json: No such file"),
        ("--out new --corpus COLOURS --encoder TINY", "it has a masked-LM head already"),
        ("--out new --corpus nowhere --encoder HEADLESS --resume", "there is nothing to resume"),
        (
            "--out new --corpus nowhere --encoder HEADLESS --keep-layers 3",
            "--keep-layers 3 --train-layers 3: the encoder has 2 layers",
        ),
        ("--out new --corpus COLOURS --encoder HEADLESS --train-layers 1 --max-tokens 65",
         "--max-tokens 65: this encoder has room for 64"),
        ("--out new --corpus nowhere --sib200", "argument --sib200: expected one argument"),
        ("--out new --corpus nowhere --minutes -1", "argument --minutes"),
        ("--out new --corpus nowhere --look-every 0", "argument --look-every"),
        ("--out new --corpus nowhere --seed x", "argument --seed: 'x' is not a whole number"),
        ("--out new --corpus nowhere --device tpu", "argument --device"),
        ("--out new --corpus nowhere --dtype float16", "argument --dtype"),
        ("--out new --corpus nowhere --train-layers -1", "argument --train-layers"),
        ("--out new --corpus nowhere --tokens 0", "argument --tokens"),
        ("--out new --corpus nowhere --batch-tokens 0", "argument --batch-tokens"),
        ("--out new --corpus nowhere --lr -1", "argument --lr"),
        ("--out new --corpus nowhere --layers-lr -1", "argument --layers-lr"),
        ("--out new --corpus nowhere --negatives 0", "argument --negatives"),
        ("--out new --corpus nowhere --translation 2", "argument --translation"),
        ("--out new --corpus nowhere --mask-rate 1", "argument --mask-rate"),
        ("--out new --corpus nowhere --alpha -1", "argument --alpha"),
        ("--out new --corpus nowhere --english 1.5", "argument --english"),
    ],
    "data_scripts/pretraining/corpus.py": [
        (
            "--out COLOURS/labels.json --texts TEXTS --vocab-size 1600",
            "labels.json is a file, not a folder",
        ),
        ("--texts nowhere", "no text in"),
        ("--texts TEXTS --languages zzz_Latn", "no text in zzz_Latn"),
        ("--texts TEXTS --languages ,", "argument --languages: at least one name is needed"),
        ("--texts TEXTS --vocab-size 20", "--vocab-size 20"),
        (
            "--texts TEXTS --vocab-size 1600 --tokens 10",
            "--tokens 10: the row-aligned text alone has",
        ),
        ("--texts TEXTS --seed x", "argument --seed"),
        ("--texts TEXTS --without books", "--without books: not among"),
        ("--texts TEXTS --tokenizer nowhere", "nowhere: not \"pocket\", nor a folder"),
    ],
    "benchmarks/ablations.py": [
        ("--only none", "--only: none not among length, init"),
        ("--on nowhere", "argument --on: invalid choice: 'nowhere'"),
        (
            "--encoder nowhere --only init",
            "--name ablations/minitopics-nowhere/default --encoder nowhere has failed",
        ),
        ("--languages zz --only init", "--languages zz has failed"),
        ("--only", "argument --only: expected at least one argument"),
        ("--dry-run 1", "unrecognized arguments: 1"),
        ("--out", "argument --out: expected one argument"),
    ],
    "benchmarks/choose.py": [
        ("", "the following arguments are required: what"),
        ("neither", "argument what: invalid choice: 'neither'"),
        ("hard --data nowhere", "nowhere/train.tsv: No such file"),
        ("hard --data COLOURS", "COLOURS: its train split has no text of science"),
        ("soft --only P64", "argument --only: invalid choice: 'P64'"),
        ("soft --seeds x", "argument --seeds: 'x' is not a whole number"),
        ("hard --encoder", "argument --encoder: expected one argument"),
    ],
    "benchmarks/e5.py": [
        ("--only speed", "argument --only: invalid choice: 'speed'"),
        ("--data", "argument --data: expected one argument"),
        ("--encoder", "argument --encoder: expected one argument"),
        ("--languages ,", "argument --languages: at least one name is needed"),
        ("--limit 0", "argument --limit"),
        ("--dtypes float16", "argument --dtypes"),
        ("--steps 0", "argument --steps"),
        ("--repeats 0", "argument --repeats"),
        ("--threads 0", "argument --threads"),
    ],
    "benchmarks/gpu.py": [
        ("--only speed", "argument --only: invalid choice: 'speed'"),
        ("--total-minutes 0", "argument --total-minutes: '0' is not a number above 0"),
        ("--device auto", "argument --device: invalid choice: 'auto'"),
        ("--quick 1", "unrecognized arguments: 1"),
        ("--encoder", "argument --encoder: expected one argument"),
        ("--data", "argument --data: expected one argument"),
        ("--corpus", "argument --corpus: expected one argument"),
        ("--out", "argument --out: expected one argument"),
    ],
    "benchmarks/by_language.py": [
        ("", "the following arguments are required: run"),
        ("nowhere", "nowhere/config.json: No such file"),
        ("nowhere --out", "argument --out: expected one argument"),
        ("nowhere --hard", "argument --hard: expected one argument"),
    ],
    "data_scripts/pretraining/probe.py": [
        ("--encoder nowhere", "nowhere"),
        ("--data nowhere", "nowhere"),
        ("--language zz", "--language zz: no text in minitopics"),
        ("--device tpu", "argument --device"),
    ],
    "benchmarks/figure.py": [
        ("", "the following arguments are required: results, figure"),
        ("COLOURS/labels.json x.png", "x.png: the figure's name must end in .svg"),
        ("none.json x.svg", "none.json: No such file"),
        ("COLOURS/labels.json x.svg", "labels.json: not the results.json of a run"),
    ],
    "data_scripts/download_encoder.py": [
        ("", "the following arguments are required: name"),
        ("nowhere", "nor a name such as xlm-roberta-base"),
        ("COLOURS", "colours0/sentencepiece.bpe.model: no such file"),
        ("--name x", "unrecognized arguments: --name"),
        ("multilingual-e5-small --from disk", "argument --from: invalid choice: 'disk'"),
        ("xlm-roberta-base --from index", "--from index: only of multilingual-e5-small"),
        ("multilingual-e5-small --from hub", "HF_HUB_OFFLINE forbids to download it"),
    ],
}
for name in DATA_SETS:
    BAD[f"data_scripts/{name}.py"] = [
        ("--mirror nowhere", "--mirror nowhere: no file nowhere/"),
        ("--mirror ftp://example.org", "begins with https"),
        ("--limit 0", "argument --limit: '0' is not a whole number from 1"),
        ("--limit many", "argument --limit"),
        ("--drop-duplicates yes", "unrecognized arguments: yes"),
        ("--out COLOURS/labels.json --mirror http://127.0.0.1:9", "labels.json"),
    ]
for name in SEVERAL_LANGUAGES:
    BAD[f"data_scripts/{name}.py"] += [
        ("--languages zzz_Latn", "--languages: zzz_Latn not among"),
        ("--languages ,", "argument --languages: at least one name is needed"),
    ]
if not torch.cuda.is_available():
    BAD["train.py"].append(("--device cuda", "--device cuda: PyTorch sees no CUDA GPU"))
    BAD["eval.py"].append(("--device cuda", "--device cuda: PyTorch sees no CUDA GPU"))
    BAD["benchmarks/gpu.py"].append(("", "--device cuda: PyTorch sees no CUDA GPU"))
CASES = [(script, flags, words) for script, cases in BAD.items() for flags, words in cases]
IDS = [f"{script.split('/')[-1]} {flags}"[:60] for script, flags, _ in CASES]
TRAIN = ["--source", "aa,bb", "--seen", "red,blue,green"]


@pytest.fixture(scope="session")
def finished(tiny, colours, tmp_path_factory):
    """A folder in which runs/one is a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    command = [sys.executable, ROOT / "train.py", "--encoder", tiny, "--data", colours, *TRAIN]
    command += ["--steps", "2", "--seeds", "0", "--objective", "erm", "--name", "one"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def lists(tmp_path_factory):
    """A folder of lists of labels, none of which will do."""
    folder = tmp_path_factory.mktemp("lists")
    (folder / "doubled.txt").write_text("red\nblue: sky\nred : rose\n")
    (folder / "nameless.tsv").write_text("red\trose\n\tsky\n")
    (folder / "empty.txt").write_text("\n  \n")
    (folder / "latin1.txt").write_bytes(b"caf\xe9\n")
    (folder / "invisible.txt").write_text("red\nblue: \u200b\n", encoding="utf-8")
    return folder


@pytest.fixture()
def fill(finished, tiny, headless, colours, lists, folder_of_texts):
    """fill(text): a flag, or what is said of it, with the table's folders filled in."""
    names = {"TEXTS": folder_of_texts, "TINY": tiny, "HEADLESS": headless, "COLOURS": colours,
             "LISTS": lists, "RUN": "one"}

    def fill(text):
        for name, value in names.items():
            text = text.replace(name, str(value))
        return text.replace("}{", "} {")

    return fill


@pytest.mark.parametrize("script, flags, words", CASES, ids=IDS)
def test_bad_input(script, flags, words, run_script, fill, finished, tiny, colours, monkeypatch):
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    argv = [fill(flag) for flag in flags.split()]
    if script == "train.py" and not flags.startswith("--resume"):
        good = ["--encoder", tiny, "--data", colours, *TRAIN, "--shots", 4, "--steps", 4]
        argv = [*good, "--seeds", 0, "--name", "bad", *argv]
    before = set(finished.rglob("*"))
    refused(run_script(script, *argv), fill(words))
    left = set(finished.rglob("*")) - before
    # nothing is written before all is known to be well
    assert not [p for p in left if p.is_file() and not p.name.endswith(".lock")], left


def test_the_table_has_every_flag_of_every_script(run_script):
    assert len(CASES) >= 60
    found = [*(ROOT / "data_scripts").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    scripts = {"train.py", "eval.py"}
    for path in found:
        # These need packages that not everybody has: test_benchmark.py, test_baselines.py.
        if path.stem not in [*NOT_SCRIPTS, "speed", "baselines"]:
            scripts.add(str(path.relative_to(ROOT)))
    assert set(BAD) == scripts
    for script in scripts:
        flags = set(re.findall(r"^  (--[a-z-]+)", run_script(script, "--help").stdout, re.M))
        tried = set(re.findall(r"--[a-z-]+", " ".join(flags for flags, _ in BAD[script])))
        assert flags <= tried | {"--help"}, (script, flags - tried)


# ---- texts ---------------------------------------------------------------------------------------

TEXTS = {
    "empty": "",
    "spaces": "   \t ",
    "100,000 characters": "apple rose " * 9091,
    "one long word": "a" * 100_000,
    "emoji only": "😀🏳️‍🌈👩‍👩‍👧‍👦🇺🇳",
    "right to left": "\u202bحارس المرمى\u202c שלום",
    "NUL bytes": "apple\0rose\0",
    "a lone surrogate": "apple \udcff rose \ud800",
    "mask": "<mask> apple <mask>",
    "end of sentence": "</s> apple <s><pad>",
    "prompt slots": "{prompt} {text} {mask}",
    "line breaks": "apple\r\nrose\rred\u2028blue",
    "BOM": "\ufeffapple",
    "combining marks": "Z̷̢a̴l̸g̵o̶" * 200,
    "unknown script": "𓀀𓀁𓀂",
    "only punctuation": "!!! ??? …",
    "quotes and tabs": '"a\t"b""',
}


def table(printed):
    return list(csv.DictReader(printed.splitlines(keepends=True), delimiter="\t"))


@pytest.mark.parametrize("name", TEXTS)
def test_strange_texts(name, run_script, finished, monkeypatch):
    """Classified like any other, and never read as a special token.

    And a neighbour in the batch changes nothing.
    """
    monkeypatch.chdir(finished)
    flags = ["--run", "runs/one", "--labels", "red,blue", "--text", "sky sea"]
    done = run_script("eval.py", *flags, "--text", TEXTS[name])
    assert done.returncode == 0, done.stderr
    among, strange = table(done.stdout)
    assert strange["text"] == TEXTS[name].encode("utf-8", "replace").decode()
    assert strange["class"] in ("red", "blue")
    assert [among] == table(run_script("eval.py", *flags).stdout)


def test_files_with_crlf_bom_and_strange_bytes(run_script, finished, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_bytes("\ufeffapple rose\r\n\r\nsky\u2028sea\r\n".encode())
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_bytes(b"")
    labels = {"warm \ud800": {"aa": ["red \udcff"]}, "cold": {"aa": ["blue"]}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    monkeypatch.chdir(finished)
    run = ["--run", "runs/one"]
    flags = [*run, "--labels", "red,blue", "--input"]
    done = run_script("eval.py", *flags, tmp_path / "texts.txt")
    texts = [line.split("\t")[0] for line in done.stdout.split("\n")[:-1]]
    assert texts == ["text", "apple rose", "", "sky\u2028sea"], done.stderr
    refused(run_script("eval.py", *flags, tmp_path / "bad.txt"), "bad.txt: not UTF-8")
    refused(run_script("eval.py", *flags, tmp_path / "empty.txt"), "empty.txt: no text in it")
    done = run_script("eval.py", *run, "--labels", tmp_path / "labels.json", "--text", "apple")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "text\tclass\twarm ?\tcold", done.stderr


def test_head_may_stop_reading(finished, tmp_path):
    (tmp_path / "texts.txt").write_text("apple rose\n" * 5000)
    classify = f"{ROOT}/eval.py --run runs/one --labels red,blue --input {tmp_path}/texts.txt"
    command = f"{sys.executable} {classify} | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=finished, capture_output=True, text=True)
    assert done.stdout == "text\tclass\tred\tblue\n", done.stderr
    assert "rror" not in done.stderr, done.stderr


def test_the_settings_of_a_run_may_be_damaged(run_script, finished, tmp_path, monkeypatch):
    """Any value in the place of any setting: the run goes on, or is refused in one line."""
    good = json.loads((finished / "runs/one/config.json").read_text()) | {"steps": 1, "seeds": [0]}
    path = tmp_path / "runs/x/config.json"
    path.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    count = {0: 0, 2: 0}
    values = [None, True, -1, 0, 2, 0.5, "x", [], [1], ["x"], {}, [None], "nan", 10**30]
    for name, value in itertools.product(good, values):
        if name in ("steps", "shots", "batch_size") and value == 10**30:
            continue  # merely long
        path.write_text(json.dumps(good | {name: value}))
        done = run_script("train.py", "--resume", "runs/x")
        count[done.returncode] += 1
        if done.returncode:
            refused(done, "train.py: ")
        shutil.rmtree(path.parent)
        path.parent.mkdir()
    assert count[0] > 10, count
    assert count[2] > 200, count
