"""tutorials/FORK.md: each of its diffs applies to the files as they are, and does what is said.

Every change is made in a copy of the project, and a program runs there: it trains, is interrupted,
goes on by --resume, evaluates, and looks at what the page says of this change.
"""
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, refused
from test_data_scripts import table, tar_gz

from minirosprompt.data import MINITOPICS_SEEN, MINITOPICS_SOURCE, load_label_words, load_split
from minirosprompt.io.files import read_json
from minirosprompt.io.prompts import load_prompt

TEXT = (ROOT / "tutorials/FORK.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"^```diff\n(.*?)^```$", TEXT, re.M | re.S)
SHELL = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.M | re.S)
PYTHON = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
# What touches the same lines, as the page says: two objectives, two dimensions of the prompt.
APART = [(1, 4), (5, 6)]
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not here")


def files_of(number):
    """-> the files that change `number` touches."""
    return re.findall(r"^\+\+\+ b/(.+)$", DIFFS[number - 1], re.M)


def git_apply(folder, number, *options):
    # In a folder that is no repository: else git would leave out, without a word, what lies
    # outside its own.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent.resolve())}
    return subprocess.run(["git", "apply", *options, "-"], input=DIFFS[number - 1], cwd=folder,
                          env=environment, capture_output=True, text=True, encoding="utf-8")


def apply(folder, number):
    done = git_apply(folder, number)
    if done.returncode:
        pytest.fail(f"tutorials/FORK.md, change {number}: its diff no longer applies to the files "
                    "as they are. Make the change again by hand and put its `git diff -U1` there. "
                    f"git says: {done.stderr.strip()}")
    for file in files_of(number):
        changed = folder / file
        before = ROOT / file
        assert changed.exists(), file
        assert not before.exists() or before.read_bytes() != changed.read_bytes(), file


def copied(folder, *numbers):
    """A copy of the repository's tracked and new files, with these changes made."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for file in filter(None, listed.stdout.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, folder / file)
    for number in numbers:
        apply(folder, number)
    return folder


def commands():
    """The python commands of the page, without "python" and the comments."""
    lines = [line for block in SHELL for line in block.replace("\\\n", " ").splitlines()
             if line.startswith("python ")]
    return [shlex.split(line, comments=True)[1:] for line in lines if "fork.py" not in line]


# ---- the page ------------------------------------------------------------------------------------

def test_the_changes_as_the_page_says_to_take_them():
    assert len(DIFFS) == 6
    assert not re.search(r"/(home|root|tmp|work|Users)/", TEXT)
    headings = re.findall(r"^## (\d)\. ", TEXT, re.M)
    assert headings == ["1", "2", "3", "4", "5", "6", "7"]  # the last one without a diff
    assert TEXT.index("## 7. ") > TEXT.index(DIFFS[-1])
    prose = re.sub(r"^```diff\n.*?^```$", "", TEXT, flags=re.M | re.S)
    lines = [line for line in prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line.encode()) > 100] == []


def test_taking_one_as_the_page_says(tmp_path):
    """python tutorials/fork.py, in a folder below somebody's other repository."""
    outer = tmp_path / "outer"
    outer.mkdir()
    subprocess.run(["git", "init", "-q", outer], check=True)
    here = copied(outer / "copy")
    assert "\npython tutorials/fork.py 1\n" in TEXT

    def fork(*args):
        command = [sys.executable, here / "tutorials/fork.py", *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True)

    for number, diff in enumerate(DIFFS, 1):
        assert fork(number, "--show").stdout.decode() == diff
        files = [here / file for file in files_of(number)]
        before = [file.exists() and file.read_bytes() for file in files]
        assert fork(number).returncode == 0
        assert [file.read_bytes() for file in files] != before
        again = fork(number)
        assert again.returncode == 1 and b"does not fit the files as they are" in again.stderr
        assert fork(number, "--reverse").returncode == 0
        assert [file.exists() and file.read_bytes() for file in files] == before


def test_as_long_as_the_page_says():
    rows = re.findall(r"^\| (\d) \|.*\| \+(\d+) −(\d+) \| (.*) \|$", TEXT, re.M)
    assert len(rows) == len(DIFFS)
    for number, added, removed, where in rows:
        diff = DIFFS[int(number) - 1]
        assert len(re.findall(r"^\+(?!\+\+ )", diff, re.M)) == int(added), number
        assert len(re.findall(r"^-(?!-- )", diff, re.M)) == int(removed), number
        named = set(re.findall(r"`([^`]+)`", where))
        assert named == {file.split("/")[-1] for file in files_of(int(number))} or number == "3"


@pytest.mark.parametrize("first, second", list(itertools.permutations(range(1, 7), 2)))
def test_any_two_go_together(tmp_path, first, second):
    for file in {*files_of(first), *files_of(second)}:
        if (ROOT / file).exists():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, tmp_path / file)
    apply(tmp_path, first)
    fits = git_apply(tmp_path, second).returncode == 0
    assert fits == (tuple(sorted((first, second))) not in APART)
    if fits:
        assert git_apply(tmp_path, first, "-R").returncode == 0  # as the page says to take one out


def test_its_programs_use_names_that_there_are():
    assert len(PYTHON) == 2
    for program in PYTHON:
        imports = [line for line in program.splitlines() if line.startswith(("import", "from"))]
        exec("\n".join(imports), {})
        compile(program, "FORK.md", "exec")


def described(folder):
    """Runs the page's commands that make the data folder `described`. -> the folder"""
    block = next(block for block in SHELL if "> described/labels.json" in block)
    subprocess.run(["sh", "-c", block], cwd=folder, check=True)
    return folder / "described"


def test_its_descriptions(tmp_path):
    mini = "minirosprompt/pocket/minitopics"
    shutil.copytree(ROOT / mini, tmp_path / mini)
    data = described(tmp_path)
    sentences = load_label_words(data)
    assert sentences.keys() == load_label_words("minitopics").keys()
    assert all(len(of_class) == 1 for of_class in sentences.values())
    for split in ("train", "dev", "test"):
        assert load_split(data, split) == load_split("minitopics", split)
    # The page's other commands for it say what --data minitopics has as its default.
    command = next(c for c in commands() if "described" in c and c[0] == "train.py")
    assert command[command.index("--seen") + 1].split(",") == MINITOPICS_SEEN
    assert command[command.index("--source") + 1].split(",") == MINITOPICS_SOURCE


# ---- the programs --------------------------------------------------------------------------------

START = """
import json, math, runpy, shutil, sys
from pathlib import Path
import torch
import torch.nn.functional as F
import train, eval as evaluation
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example, load_label_words, load_split
from minirosprompt.io.files import read_json
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.settings import default_settings, read_settings

encoder_folder, data, commands = sys.argv[1:]
assert Path(train.__file__).parent == Path.cwd()  # this copy's, and no other's
try:
    train.main(["--help"])
except SystemExit as end:
    assert not end.code


def load(run, method):
    path = f"runs/{run}/{method}-0/prompt.safetensors"
    return load_prompt(path, encoder)[0], read_settings(path)


def try_out(run, method, *flags):
    # Trains in one go, as `run`. Then again, with a Ctrl-C after the first step and --resume. Then
    # evaluates. -> the prompt and its settings.
    flags = [
        "--encoder", encoder_folder, "--data", data, "--objective", method.removeprefix("soft-"),
        "--seen", "red,blue,green", "--source", "eng_Latn,zho_Hans", "--shots", "4", "--seeds", "0",
        "--steps", "2", "--select-every", "1", "--batch-size", "12", "--split", "dev", *flags]
    train.main([*flags, "--name", run])
    draw = train.draw_batch

    def interrupted(sampler, groups, size, seed, step):
        if step == 1:
            raise KeyboardInterrupt
        return draw(sampler, groups, size, seed, step)

    train.draw_batch = interrupted
    try:
        train.main([*flags, "--name", f"{run}-cut"])
        raise SystemExit("was not interrupted")
    except KeyboardInterrupt:
        train.draw_batch = draw
    assert not Path(f"runs/{run}-cut/{method}-0/prompt.safetensors").exists()
    train.main(["--resume", f"runs/{run}-cut"])
    evaluation.main(["--run", f"runs/{run}-cut", "--split", "dev"])
    files = [Path(f"runs/{name}/{method}-0/prompt.safetensors") for name in (run, f"{run}-cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    whole, cut, evaluated = [read_json(f"runs/{name}/results.json") for name in (
        run, f"{run}-cut", f"{run}-cut/eval-dev")]
    assert whole["rows"] == cut["rows"] == evaluated["rows"]
    return load(run, method)


encoder, tokenizer = load_encoder(encoder_folder)
"""


@pytest.fixture(scope="module")
def languages(tmp_path_factory, colours):
    """The colours in languages that languages.tsv knows: two families, and one more as a target."""
    folder = tmp_path_factory.mktemp("languages")
    for path in colours.iterdir():
        text = path.read_text()
        for old, new in (("aa", "eng_Latn"), ("bb", "zho_Hans"), ("cc", "tur_Latn")):
            text = text.replace(f"\t{old}\t", f"\t{new}\t").replace(f'"{old}"', f'"{new}"')
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def fork(tmp_path_factory, tiny, languages):
    """fork("objective") -> a copy with the change, and what its program printed there.

    All programs start at once: what takes long is to import torch.
    """
    started = {}
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONIOENCODING": "utf-8"}
    try:
        for name, (numbers, program) in PROGRAMS.items():
            try:
                folder = copied(tmp_path_factory.mktemp("fork"), *numbers)
            except pytest.fail.Exception as failure:
                started[name] = failure
                continue
            (folder / "from").mkdir()
            (folder / "from/yahoo_answers_csv.tgz").write_bytes(tar_gz(yahoo()))
            arguments = [str(tiny), str(languages), json.dumps(commands())]
            with open(folder / "out", "wb") as out, open(folder / "errors", "wb") as errors:
                process = subprocess.Popen([sys.executable, "-c", START + program, *arguments],
                                           cwd=folder, stdout=out, stderr=errors,
                                           env=os.environ | threads)
            started[name] = folder, process

        def finished(name):
            if isinstance(started[name], BaseException):
                raise started[name]
            folder, process = started[name]
            status = process.wait(timeout=600)
            assert status == 0, (folder / "errors").read_text(encoding="utf-8")
            return folder, (folder / "out").read_text(encoding="utf-8")

        yield finished
    finally:
        for of in started.values():
            if isinstance(of, tuple):
                of[1].kill()
                of[1].wait()


def log(folder, run, method):
    """-> the rows of a run's log.csv, {column: number} each."""
    lines = (folder / f"runs/{run}/{method}-0/log.csv").read_text().splitlines()
    header = lines[0].split(",")
    return [dict(zip(header, map(float, line.split(",")))) for line in lines[1:]]


GROUPS = """
try_out("v-rex", "soft-v-rex", "--beta", "100")
try_out("zero", "soft-v-rex", "--beta", "0")
try_out("erm", "soft-erm")
"""


def test_an_objective_over_groups(fork):
    folder, out = fork("groups")
    assert "--beta" in out and "v-rex" in out
    for row in log(folder, "v-rex", "soft-v-rex"):
        losses = [row["loss eng_Latn"], row["loss zho_Hans"]]
        mean = sum(losses) / 2
        variance = sum((loss - mean) ** 2 for loss in losses) / 2
        assert variance > 1e-5
        assert row["loss"] == pytest.approx(mean + 100 * variance, rel=1e-5)
    # Without the variance it is ERM, and with it the prompt goes another way.
    erm = log(folder, "erm", "soft-erm")
    for new, old in zip(log(folder, "zero", "soft-v-rex"), erm):
        assert new == pytest.approx(old, rel=1e-4)
    assert log(folder, "v-rex", "soft-v-rex")[1] != pytest.approx(erm[1], rel=1e-4)
    assert "soft-v-rex" in read_json(folder / "runs/v-rex/results.json")["summary"]


VERBALIZER = """
from minirosprompt.verbalizer import Verbalizer
words = {"red": ["red", "cherry rose"], "blue": ["blue", "sea rose"], "green": ["green"]}
h = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
of = {name: Verbalizer(encoder, tokenizer, words, 3, name).scores(h)
      for name in ("max", "mean", "log-mean-exp")}
alone = Verbalizer(encoder, tokenizer, {w: [w] for of_class in words.values() for w in of_class}, 3)
assert len(alone.owner) == len(alone.classes) == 5
for i, row in enumerate(alone.scores(h).tolist()):
    single = dict(zip(alone.classes, row))
    for c, of_class in enumerate(words.values()):
        got = of["log-mean-exp"][i, c]
        mean = sum(math.exp(single[word]) for word in of_class) / len(of_class)
        assert abs(got - math.log(mean)) < 1e-4
        assert of["mean"][i, c] - 1e-4 <= got <= of["max"][i, c] + 1e-4
assert Verbalizer(encoder, tokenizer, words, 3, "log-mean-exp").scores(1e4 * h).isfinite().all()
_, settings = try_out("soft", "soft-erm", "--combine", "log-mean-exp")
assert settings.combine == "log-mean-exp"

# The same of states: each label word on its own by hand, as a class.
prompt, settings = try_out("states", "soft-erm", "--verbalizer", "states", "--combine",
                           "log-mean-exp")
texts = load_split(data, "dev")[:9]
got = Classifier(encoder, tokenizer, words, settings, prompt).score(texts)          # (N, C)
single = {word: [word] for words_of in words.values() for word in words_of}
settings.combine = "max"
of_words = Classifier(encoder, tokenizer, single, settings, prompt).score(texts)    # (N, W)
for c, words_of in enumerate(words.values()):
    s = of_words[:, [list(single).index(word) for word in words_of]].double()
    assert (got[:, c] - s.exp().mean(1).log()).abs().max() < 1e-4
"""


def test_a_verbalizer(fork, run_script):
    folder, out = fork("verbalizer")
    assert "{max,mean,log-mean-exp}" in out
    # The project as it is knows no such setting.
    refused(run_script("eval.py", "--run", folder / "runs/soft"), "combine is 'log-mean-exp'")


def question(label, i, split):
    details = 'I "really"\\nwant to <br />\\n know' if i % 2 else ""
    return [label, f"why {split} {i}?", details, f" because\\n\\n é “{i}”  \t ok "]


def yahoo():
    """A made-up archive, in the layout of the real one."""
    files = {"yahoo_answers_csv/classes.txt": b"x", "yahoo_answers_csv/link": None, "../evil": b"x"}
    for split, n in (("train", 200), ("test", 20)):
        rows = [question(1 + i % 10, i, split) for i in range(n)]
        files[f"yahoo_answers_csv/{split}.csv"] = table(rows, ",")
    return files


DATA_SET = """
sys.argv = ["data_scripts/yahoo.py", "--mirror", "from"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_data_set(fork, tmp_path, run_script):
    folder, printed = fork("data set")
    assert re.search(r"^train +198 ", printed, re.M)
    out = folder / "data/yahoo"
    written = sorted(path.name for path in out.iterdir())
    assert written == ["dev.tsv", "labels.json", "test.tsv", "train.tsv"]
    train, dev, test = (load_split(out, split) for split in ("train", "dev", "test"))
    assert [len(train), len(dev), len(test)] == [198, 2, 20]
    assert [e.id for e in dev] == ["train-0", "train-100"]
    assert train[0].text == 'why train 1? I "really" want to know because é “1” ok'
    assert test[0].text == "why test 0? because é “0” ok"
    words = load_label_words(out)
    assert {(e.label, e.lang) for e in test} == {(label, "eng_Latn") for label in words}
    assert [e.label for e in test[:10]] == [
        "Society & Culture", "Science & Mathematics", "Health", "Education & Reference",
        "Computers & Internet", "Sports", "Business & Finance", "Entertainment & Music",
        "Family & Relationships", "Politics & Government"]
    assert words["Sports"][:2] == ["sports", "football"]
    assert all(len(of_class) > 40 for of_class in words.values())

    def reading(files, archive=None):
        """A good archive with other files in it, or another archive."""
        body = archive or tar_gz(yahoo() | files)
        (tmp_path / "yahoo_answers_csv.tgz").write_bytes(body)
        script = folder / "data_scripts/yahoo.py"
        return run_script(script, "--mirror", tmp_path, "--out", tmp_path / "out")

    assert reading({}).returncode == 0
    assert (tmp_path / "out/train.tsv").read_bytes() == (out / "train.tsv").read_bytes()
    shutil.rmtree(tmp_path / "out")
    train = "yahoo_answers_csv/train.csv"
    test = "yahoo_answers_csv/test.csv"
    refused(reading({}, tar_gz(yahoo())[:-200]), "not a whole .tar.gz archive")
    refused(reading({}, b"<html>"), "not a whole .tar.gz archive")
    refused(reading({test: None}), f"no plain file {test}")
    refused(reading({train: b'11,"a","b","c"\n'}), "train.csv: row 1: expected a label from 1 to")
    refused(reading({train: b'1,"a","b"\n'}), "train.csv: row 1")
    refused(reading({train: b'1,"caf\xe9","b","c"\n'}), "UTF-8 tables")
    # A quotation mark that nothing closes would take all the rows that follow with it.
    lone = b'1,"a","b","c\n1,a,b,c\n'
    refused(reading({train: yahoo()[train] + lone}), "UTF-8 tables")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


TEXTS = """
batches = []  # the losses of the texts of every batch
mean_of_groups = train.group_losses


def note(losses, groups, G):
    if losses.requires_grad:
        batches.append(losses.tolist())
    return mean_of_groups(losses, groups, G)


train.group_losses = note
for run, share in ("one", "0"), ("four", "0.3"):  # of 12 texts a batch; 0.3 * 12 = 3.6
    batches.clear()
    try_out(run, "soft-cvar", "--worst", share)
    print("batches", run, json.dumps(batches))
"""


def test_an_objective_over_texts(fork):
    folder, out = fork("texts")
    assert "--worst" in out and "cvar" in out
    for run, k in (("one", 1), ("four", 4)):
        batches = json.loads(re.search(rf"^batches {run} (.*)$", out, re.M)[1])
        rows = log(folder, run, "soft-cvar")
        assert len(rows) == 2
        for row, losses in zip(rows, batches):
            assert len(losses) == 12
            assert row["loss"] == pytest.approx(sum(sorted(losses)[-k:]) / k, rel=1e-5)


DEEP = """
prompt, settings = try_out("deep", "soft-group-dro", "--deep")
assert read_json("runs/deep-cut/config.json")["deep"] is True
assert prompt.shape == (2, 8, 32)
start = train.init_prompt("words", 8, encoder, tokenizer, "Topic:", 0)
assert all((prompt[layer] - start).abs().max() > 1e-3 for layer in range(2))  # all are trained

# The same by hand, layer by layer, with the prompt in front of the mask and behind the text.
words = load_label_words(data)
texts = [Example("apple cherry"), Example("sky sea jeans ink whale grass")]
for template in "{prompt} {mask} {text}", "{text} {prompt} {mask}":
    settings.template = template
    classifier = Classifier(encoder, tokenizer, words, settings, prompt)
    for text, got in zip(texts, classifier.model.read(classifier.encode(texts))):
        ids = torch.tensor(classifier.encode([text]))                               # (1, T)
        slots = ids[0] > tokenizer.mask                                             # (T,)
        x = encoder.word(ids.clamp(max=tokenizer.mask))                             # (1, T, D)
        x[0, slots] = prompt[0]
        x = x + encoder.position(torch.arange(2, 2 + ids.shape[1])) + encoder.token_type.weight[0]
        x = encoder.layers[0](encoder.embed_norm(x), None)
        x[0, slots] = prompt[1]
        x = encoder.layers[1](x, None)
        want = encoder.head_hidden(x[0, ids[0] == tokenizer.mask][0])
        assert (got - want).abs().max() < 1e-4

# And of the mean over all tokens, which is another way through the same code.
settings.verbalizer, settings.template = "states", "{text} {prompt}"
classifier = Classifier(encoder, tokenizer, words, settings, prompt)
assert classifier.model.pooling == "mean"
for text, got in zip(texts, classifier.model.read(classifier.encode(texts))):
    ids = torch.tensor(classifier.encode([text]))                                   # (1, T)
    slots = ids[0] > tokenizer.mask                                                 # (T,)
    x = encoder.word(ids.clamp(max=tokenizer.mask))                                 # (1, T, D)
    x[0, slots] = prompt[0]
    x = x + encoder.position(torch.arange(2, 2 + ids.shape[1])) + encoder.token_type.weight[0]
    x = encoder.layers[0](encoder.embed_norm(x), None)
    x[0, slots] = prompt[1]
    assert (got - encoder.layers[1](x, None)[0].mean(0)).abs().max() < 1e-4
try_out("deep-states", "soft-erm", "--deep", "--verbalizer", "states")

prompt, _ = try_out("flat", "soft-group-dro")
assert prompt.shape == (8, 32)
"""


def test_a_boolean_flag(fork, tiny, languages, run_script, tmp_path):
    folder, out = fork("deep")
    assert "--deep" in out
    # The project as it is goes on with no such run, and reads no such prompt.
    refused(run_script("train.py", "--resume", folder / "runs/deep"), "another version (deep)")
    path = folder / "runs/deep/soft-group-dro-0/prompt.safetensors"
    done = run_script("eval.py", "--run", path, "--labels", "red,blue", "--text", "apple")
    refused(done, "the prompt has the shape (2, 8, 32)")
    # Without the flag the change changes nothing.
    flags = read_json(folder / "runs/flat/config.json")
    done = run_script(
        "train.py", "--encoder", tiny, "--data", languages, "--objective", "group-dro",
        "--seen", "red,blue,green", "--source", "eng_Latn,zho_Hans", "--shots", 4, "--seeds", 0,
        "--steps", 2, "--select-every", 1, "--batch-size", 12, "--split", "dev", "--name", "flat")
    assert done.returncode == 0, done.stderr
    file = "runs/flat/soft-group-dro-0/prompt.safetensors"
    assert torch.equal(load_prompt(tmp_path / file)[0], load_prompt(folder / file)[0])
    assert flags.keys() - read_json(tmp_path / "runs/flat/config.json").keys() == {"deep"}


FAMILIES = """
prompt, settings = try_out("families", "soft-erm", "--families", "Indo-European,Sino-Tibetan")
assert settings.families == ["Indo-European", "Sino-Tibetan"] and prompt.shape == (2, 8, 32)
start = train.init_prompt("words", 8, encoder, tokenizer, "Topic:", 0)
assert all((of_family - start).abs().max() > 1e-3 for of_family in prompt)  # both are trained
assert (prompt[0] - prompt[1]).abs().max() > 1e-3

# Each language reads its family's prompt; one of another family, or unknown, the first one's.
words = load_label_words(data)
family = Classifier(encoder, tokenizer, words, settings, prompt)
settings = default_settings(**vars(settings) | {"families": None})
for lang, number in (("eng_Latn", 0), ("deu_Latn", 0), ("zho_Hans", 1), ("tur_Latn", 0), ("", 0)):
    text = [Example("apple cherry", lang=lang), Example("sky sea ink whale", lang=lang)]
    plain = Classifier(encoder, tokenizer, words, settings, prompt[number])
    assert torch.equal(family.score(text), plain.score(text)), lang
mixed = family.score([Example("apple", lang="eng_Latn"), Example("apple", lang="zho_Hans")])
assert (mixed[0] - mixed[1]).abs().max() > 1e-4

# Label words are read with the first family's prompt, whatever the text's language.
prompt, settings = try_out("states", "soft-erm", "--families", "Indo-European,Sino-Tibetan",
                           "--verbalizer", "states", "--label-languages", "all")
words = load_label_words(data)
family = Classifier(encoder, tokenizer, words, settings, prompt)
settings = default_settings(**vars(settings) | {"families": None})
first = Classifier(encoder, tokenizer, words, settings, prompt[0])
second = Classifier(encoder, tokenizer, words, settings, prompt[1])
text = [Example("apple cherry", lang="zho_Hans")]
first.verbalizer.read()
state = second.model.read(second.encode(text))
want = first.verbalizer.scores(state)
assert (family.score(text) - want).abs().max() < 1e-4
"""


def test_a_prompt_of_another_shape(fork, run_script):
    folder, out = fork("families")
    assert "--families" in out
    refused(run_script("eval.py", "--run", folder / "runs/families"), "another version (families)")


DESCRIPTIONS = """
sentences = {"red": "apple cherry and blood", "blue": "the sea, the sky", "green": "leaf or grass",
             "white": "milk and snow"}
shutil.copytree(data, "described")
file = Path("described/labels.json")
file.write_text(json.dumps({label: {"eng_Latn": [s]} for label, s in sentences.items()}))
prompt, settings = try_out("soft", "soft-erm", "--verbalizer", "states", "--data", "described")

words = load_label_words(file)
soft = Classifier(encoder, tokenizer, words, settings, prompt)
texts = load_split(data, "dev")[:9]
state = soft.model.read(soft.encode(texts))                                         # (N, D)
of_class = soft.model.read(soft.encode([Example(s) for s in sentences.values()]))   # (C, D)
want = F.cosine_similarity(state[:, None], of_class[None], dim=2) / 0.05            # (N, C)
assert list(sentences) == soft.classes
assert (soft.score(texts) - want).abs().max() < 1e-4

# A prompt that was trained with names, tested with sentences.
try_out("names", "soft-erm", "--verbalizer", "states", "--label-languages", "all")
evaluation.main(["--run", "runs/names", "--data", "described", "--split", "dev",
                 "--out", "evaluated"])
rows = [read_json(path)["rows"] for path in ("runs/names/results.json", "evaluated/results.json")]
assert len(rows[0]) == len(rows[1]) and rows[0] != rows[1]
"""


def test_classes_from_descriptions_need_no_change(fork):
    fork("descriptions")


PARSE = """
for script, *arguments in json.loads(commands):
    if script == "data_scripts/yahoo.py":
        continue
    try:
        {"train.py": train, "eval.py": evaluation}[script].arguments(arguments)
        print("parsed:", json.dumps([script, *arguments]))
    except SystemExit:  # a flag of a change that is not made here
        pass
"""
ONE_HALF = PARSE + """
prompt, _ = try_out("all", "soft-v-rex", "--combine", "log-mean-exp", "--deep")
assert prompt.shape == (2, 8, 32)
"""
OTHER_HALF = PARSE + """
prompt, _ = try_out("all", "soft-cvar", "--combine", "log-mean-exp", "--families", "Sino-Tibetan")
assert prompt.shape == (1, 8, 32)
"""


def test_all_together(fork):
    parsed = []
    for name in ("one half", "other half"):
        _, out = fork(name)
        parsed += [json.loads(line) for line in re.findall(r"^parsed: (.*)$", out, re.M)]
    assert len(commands()) >= 10
    for command in commands():
        assert command in parsed or command[0] in files_of(3), command


PROGRAMS = {
    "groups": ([1], GROUPS),
    "verbalizer": ([2], VERBALIZER),
    "data set": ([3], DATA_SET),
    "texts": ([4], TEXTS),
    "deep": ([5], DEEP),
    "families": ([6], FAMILIES),
    "descriptions": ([], DESCRIPTIONS),
    "one half": ([3, 1, 2, 5], ONE_HALF),
    "other half": ([4, 6, 2], OTHER_HALF),
}


@pytest.mark.parametrize("number", range(1, 7))
def test_a_diff_that_no_longer_applies_is_named(tmp_path, number):
    for file in files_of(number):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("another file\n", encoding="utf-8")
    words = f"FORK.md, change {number}: its diff no longer applies"
    with pytest.raises(pytest.fail.Exception, match=words):
        apply(tmp_path, number)
