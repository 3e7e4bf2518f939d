"""tutorials/FORK.md: each of its three diffs applies to the files as they are, alone and with the others, and does what is said of it."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from minirosprompt.io.files import read_json
from minirosprompt.data import load_label_words, load_split
from test_data_scripts import table, tar_gz
from test_scripts import refused

FORK = ROOT / "tutorials/FORK.md"
TEXT = FORK.read_text(encoding="utf-8")
DIFFS = re.findall(r"^```diff\n(.*?)^```$", TEXT, re.M | re.S)
FLAGS = ["--seen", "red,blue,green", "--source", "aa,bb,cc", "--shots", "4", "--seeds", "0", "--steps", "2", "--select-every", "1",
         "--batch-size", "12", "--split", "dev"]
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not here")


def apply(folder, number):
    """git apply in a folder that is no repository: else git would leave out, without a word, what lies outside its own."""
    done = subprocess.run(["git", "apply", "-"], input=DIFFS[number - 1], cwd=folder, capture_output=True, text=True, encoding="utf-8",
                          env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent.resolve())})
    if done.returncode:
        pytest.fail(f"tutorials/FORK.md, change {number}: its diff no longer applies to the files as they are. Make the change "
                    f"again by hand and put its `git diff -U1` there. git says: {done.stderr.strip()}")
    for file in re.findall(r"^\+\+\+ b/(.+)$", DIFFS[number - 1], re.M):
        changed, before = folder / file, ROOT / file
        assert changed.exists() and not (before.exists() and before.read_bytes() == changed.read_bytes()), file


def copied(folder, *numbers):
    """A copy of the repository's tracked and new files, with these changes made."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for file in filter(None, listed.stdout.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, folder / file)
    for number in numbers:
        apply(folder, number)
    return folder


HELP = """
import json, math, runpy, sys
import torch
import train, eval as evaluation
try:
    train.main(["--help"])
except SystemExit as end:
    assert not end.code
encoder, data, commands, *flags = sys.argv[1:]
"""


@pytest.fixture(scope="module")
def fork(tmp_path_factory, tiny, colours):
    """fork("objective") -> a copy with the change, and what its program (below) printed there, `train.py --help` first.

    Each program runs in the copy, with the copy's minirosprompt. All start at once: what takes long is to import torch.
    """
    started = {}
    try:
        for name, (numbers, code) in PROGRAMS.items():
            try:
                folder = copied(tmp_path_factory.mktemp("fork"), *numbers)
            except pytest.fail.Exception as failure:
                started[name] = failure
                continue
            (folder / "from").mkdir()
            (folder / "from/yahoo_answers_csv.tgz").write_bytes(tar_gz(yahoo()))
            with open(folder / "out", "wb") as out, open(folder / "errors", "wb") as errors:
                process = subprocess.Popen([sys.executable, "-c", HELP + code, str(tiny), str(colours), json.dumps(commands()), *FLAGS],
                                           cwd=folder, stdout=out, stderr=errors, env=os.environ | {"PYTHONIOENCODING": "utf-8"})
            started[name] = folder, process

        def finished(name):
            if isinstance(started[name], BaseException):
                raise started[name]
            folder, process = started[name]
            assert process.wait(timeout=600) == 0, (folder / "errors").read_text(encoding="utf-8")
            return folder, (folder / "out").read_text(encoding="utf-8")
        yield finished
    finally:
        for of in started.values():
            if isinstance(of, tuple):
                of[1].kill()
                of[1].wait()


def commands():
    """The python commands of the page, without "python"."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S)
    return [shlex.split(line)[1:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("python ")]


def test_three_changes_as_the_page_says_to_take_them():
    assert len(DIFFS) == 3
    awk = re.search(r"^(awk .*) \| git apply$", TEXT, re.M)[1]
    if shutil.which("awk"):
        for number, diff in enumerate(DIFFS, 1):
            command = [arg.replace("n == 1", f"n == {number}") for arg in shlex.split(awk)]
            assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode() == diff
    assert not re.search(r"/(home|root|tmp|work|Users)/", TEXT)
    assert all(len(line) <= 128 for line in re.sub(r"```diff.*?```", "", TEXT, flags=re.S).splitlines())


OBJECTIVE = """
from minirosprompt.dro import v_rex_weight
loss = torch.tensor([1.0, 2.0, 6.0, 0.0], requires_grad=True)      # the fourth group is absent
present = torch.tensor([True, True, True, False])
weight = v_rex_weight(loss, present, 3.0)
total = (weight * loss).sum()
total.backward()
print(json.dumps([total.item(), weight.tolist(), loss.grad.tolist()]))
for beta in "0", "1.5":
    train.main(["--encoder", encoder, "--data", data, "--objective", "erm", "v-rex", "--beta", beta, "--name", beta, *flags])
"""


def test_a_new_objective(fork):
    folder, out = fork("objective")
    assert "--beta" in out and "v-rex" in out
    total, weight, gradient = json.loads(re.search(r"^\[.*\]$", out, re.M)[0])
    # mean 3; deviations -2, -1, 3; variance 14/3; 3 + 3 * 14/3 = 17; w_g = (1 + 3 d) / 3; gradient (1 + 2 * 3 d) / 3
    assert total == pytest.approx(17) and weight == pytest.approx([-5 / 3, -2 / 3, 10 / 3, 0])
    assert gradient == pytest.approx([-11 / 3, -5 / 3, 19 / 3, 0])

    def log(run, method):  # step, loss, worst accuracy, worst loss, then a weight for each of the three groups
        return [[float(cell) for cell in line.split(",")] for line in (folder / f"runs/{run}/{method}-0/log.csv").read_text().splitlines()[1:]]
    for new, erm in zip(log("0", "soft-v-rex"), log("0", "soft-erm")):  # without the variance it is ERM
        assert new == pytest.approx(erm, rel=1e-4)
    deviation = [(3 * w - 1) / 1.5 for w in log("1.5", "soft-v-rex")[0][4:]]
    variance = sum(d * d for d in deviation) / 3
    assert variance > 1e-3 and sum(deviation) == pytest.approx(0, abs=1e-4)
    assert log("1.5", "soft-v-rex")[0][1] == pytest.approx(log("0", "soft-erm")[0][1] + 1.5 * variance, rel=1e-3)
    assert log("1.5", "soft-v-rex")[1] != pytest.approx(log("0", "soft-erm")[1], rel=1e-4)  # and the prompt went another way
    assert "soft-v-rex" in read_json(folder / "runs/1.5/results.json")["summary"]


VERBALIZER = """
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.io.weights import TOKENIZER_FILE
from minirosprompt.xlmr import XLMR
from pathlib import Path
model, tokenizer = XLMR.from_pretrained(encoder), Tokenizer(Path(encoder) / TOKENIZER_FILE)
words = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf", "moss"]}
h = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
read = {combine: Verbalizer(model, tokenizer, words, 3, combine) for combine in ("max", "mean", "log-mean-exp")}
alone = Verbalizer(model, tokenizer, {word: [word] for of in words.values() for word in of}, 3)  # each word a class of its own
single = [dict(zip(alone.classes, row)) for row in alone.scores(h).tolist()]
scores = {combine: verbalizer.scores(h).tolist() for combine, verbalizer in read.items()}
for i in range(5):
    for c, of in enumerate(words.values()):
        got = scores["log-mean-exp"][i][c]
        assert abs(got - math.log(sum(math.exp(single[i][word]) for word in of) / len(of))) < 1e-4
        assert scores["mean"][i][c] - 1e-4 <= got <= scores["max"][i][c] + 1e-4
assert torch.isfinite(read["log-mean-exp"].scores(1e4 * h)).all()
read["log-mean-exp"].calibrate(h[:1])
assert read["log-mean-exp"].scores(h)[0].abs().max() < 1e-5
train.main(["--encoder", encoder, "--data", data, "--objective", "erm", "--combine", "log-mean-exp", "--name", "soft", *flags])
evaluation.main(["--run", "runs/soft", "--split", "dev"])
"""


def test_a_new_verbalizer(fork, run_script):
    folder, out = fork("verbalizer")
    assert "{max,mean,log-mean-exp}" in out
    trained, evaluated = (read_json(folder / "runs/soft" / file) for file in ("results.json", "eval-dev/results.json"))
    assert trained["settings"]["combine"] == evaluated["settings"]["combine"] == "log-mean-exp"
    assert trained["rows"] == evaluated["rows"]
    refused(run_script("eval.py", "--run", folder / "runs/soft"), "settings are damaged or from another version")  # as it is here


def question(label, i, split):
    return [label, f"why {split} {i}?", 'I "really"\\nwant to <br />\\n know' if i % 2 else "", f" because\\n\\n é “{i}”  \t ok "]


def yahoo(train=200, test=20):
    files = {f"yahoo_answers_csv/{split}.csv": table([question(1 + i % 10, i, split) for i in range(n)], ",")
             for split, n in (("train", train), ("test", test))}
    return {"yahoo_answers_csv/classes.txt": b"x", "yahoo_answers_csv/link": None, "../evil": b"x"} | files


DATA_SET = """
sys.path.insert(0, "data_scripts")
sys.argv = ["data_scripts/yahoo.py", "--source", "from"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_new_data_set(fork, tmp_path, run_script):
    folder, printed = fork("data set")
    assert re.search(r"^train +198 ", printed, re.M)
    out = folder / "data/yahoo"
    assert sorted(path.name for path in out.iterdir()) == ["dev.tsv", "labels.json", "test.tsv", "train.tsv"]
    train, dev, test = (load_split(out, split) for split in ("train", "dev", "test"))
    assert [len(train), len(dev), len(test)] == [198, 2, 20] and [e.id for e in dev] == ["train-0", "train-100"]
    assert train[0].text == "why train 1? I \"really\" want to know because é “1” ok" and test[0].text == "why test 0? because é “0” ok"
    assert {(e.label, e.lang) for e in test} == {(label, "eng_Latn") for label in load_label_words(out / "labels.json")}
    assert [e.label for e in test[:10]] == [
        "Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet", "Sports",
        "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government"]
    words = load_label_words(out / "labels.json")
    assert words["Sports"][:2] == ["sports", "football"] and all(len(of) > 40 for of in words.values())

    def reading(files, change=lambda body: body):  # a good archive, with other files in it, or changed
        (tmp_path / "yahoo_answers_csv.tgz").write_bytes(change(tar_gz(yahoo() | files)))
        return run_script(folder / "data_scripts/yahoo.py", "--source", tmp_path, "--out", tmp_path / "out")
    train, test = "yahoo_answers_csv/train.csv", "yahoo_answers_csv/test.csv"
    assert reading({}).returncode == 0 and (tmp_path / "out/train.tsv").read_bytes() == (out / "train.tsv").read_bytes()
    shutil.rmtree(tmp_path / "out")
    refused(reading({}, lambda body: body[:-200]), "not a whole .tar.gz archive")
    refused(reading({}, lambda body: b"<html>"), "not a whole .tar.gz archive")
    refused(reading({test: None}), f"no plain file {test}")
    refused(reading({train: b'11,"a","b","c"\n'}), "train.csv: row 1: expected a label from 1 to 10")
    refused(reading({train: b'1,"a","b"\n'}), "train.csv: row 1")
    refused(reading({train: b'1,"caf\xe9","b","c"\n'}), "UTF-8 tables")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


TOGETHER = """
from pathlib import Path
for script, *arguments in json.loads(commands):  # every command of the page is one that there is
    if script == "data_scripts/yahoo.py":
        assert Path(script).exists()
    else:
        {"train.py": train, "eval.py": evaluation}[script].arguments(arguments)
train.main(["--encoder", encoder, "--data", data, "--objective", "v-rex", "--combine", "log-mean-exp", "--name", "all", *flags])
"""


def test_all_three_together(fork):
    folder, out = fork("together")
    assert len(commands()) >= 3 and "--beta" in out and "{max,mean,log-mean-exp}" in out
    assert set(read_json(folder / "runs/all/results.json")["summary"]) == {"hard", "soft-v-rex"}


PROGRAMS = {"objective": ([1], OBJECTIVE), "verbalizer": ([2], VERBALIZER), "data set": ([3], DATA_SET), "together": ([3, 1, 2], TOGETHER)}


@pytest.mark.parametrize("number, file, line", [(1, "train.py", "weight = log_q.exp()"), (2, "eval.py", 'if settings["k"] < 1'),
                                                (3, "data_scripts/yahoo.py", None)])
def test_a_diff_that_no_longer_applies_is_named(tmp_path, number, file, line):
    folder = copied(tmp_path / "fork")
    text = (folder / file).read_text(encoding="utf-8").replace(line, "# " + line) if line else "already there\n"
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match=f"FORK.md, change {number}: its diff no longer applies"):
        apply(folder, number)
