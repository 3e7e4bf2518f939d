"""Settings saved with a run and with a prompt: what fits a flag, what does not, and older files."""
import itertools
import json

import pytest
import torch
from conftest import refused

from minirosprompt import UserError
from minirosprompt.io import settings
from minirosprompt.io.cli import Parser, check_settings, names, nonnegative, positive, whole
from minirosprompt.io.prompts import fingerprint, load_prompt, save_prompt
from minirosprompt.io.safetensors import write_safetensors
from minirosprompt.xlmr import XLMR

# train.py's config.json as it was before its flags were put in another order and other groups.
OLD_CONFIG = {
    "encoder": "pocket",
    "data": "minitopics",
    "seen": ["red", "blue", "green"],
    "source": ["aa", "bb"],
    "classes": ["blue", "green", "red", "white"],
    "languages": ["aa", "bb", "cc"],
    "label_languages": None,
    "shots": [4],
    "template": "{prompt} {mask} {text}",
    "hard_prompt": "Topic:",
    "prompt_length": 8,
    "init": "words",
    "k": 1,
    "combine": "max",
    "calibration": "none",
    "stacking": 0.0,
    "objective": ["erm"],
    "group_by": ["lang"],
    "eta": 0.3,
    "adjustment": 0.0,
    "seeds": [3],
    "steps": 4,
    "batch_size": 32,
    "lr": 0.01,
    "select_every": 10,
    "split": "test",
    "name": "old",
    "resume": None,
    "device": "auto",
    "dtype": "float32",
}
# The settings among them that lie in a prompt's file, too.
OF_PROMPT = ["encoder", "data", "classes", "seen", "source", "label_languages", "template"]
OF_PROMPT += ["hard_prompt", "k", "combine", "calibration", "stacking"]
TRAINED = {"seen": ["red"], "source": ["aa"]}  # train.py always fills these in


@pytest.fixture()
def parser():
    """One argument of every kind that train.py has, or that a fork may add to it."""
    p = Parser()
    p.add_argument("--deep", action="store_true")
    p.add_argument("--shallow", action="store_false")
    p.add_argument("--betas", nargs=2, type=nonnegative, default=[0.9, 0.999])
    p.add_argument("--limit", type=positive)
    p.add_argument("--name")
    p.add_argument("--langs", type=names)
    p.add_argument("--group-by", type=names, default=["lang"])
    p.add_argument("--init", choices=["words", "normal"], default="words")
    p.add_argument("--objective", nargs="+", choices=["erm", "dro"], default=["erm"])
    p.add_argument("--seeds", type=whole, nargs="+", default=[0])
    p.add_argument("--layers", type=int, default=-1)
    p.add_argument("--scale", type=float, default=1.0)
    return p


@pytest.mark.parametrize("argv", [
    "",
    "--deep",
    "--shallow",
    "--betas 0.5 0",
    "--limit 3 --name x --langs a,b --group-by lang,label",
    "--init normal --objective dro erm --seeds 3 4",
    "--layers 0 --scale -2.5",
])
def test_what_was_parsed_fits_after_a_round_trip(parser, argv):
    """Through JSON, as config.json and a prompt's file hold it."""
    args = vars(parser.parse_args(argv.split()))
    read = json.loads(json.dumps(args))
    assert check_settings(parser, read, "config.json") == args


@pytest.mark.parametrize("name, values", [
    ("deep", ["true", 1, 0, None, [], [True]]),
    ("shallow", ["no", 1, None]),
    ("betas", [[0.9], [0.9, 0.99, 0.999], [], 0.9, None, ["0.9", "0.99"], [0.9, -1], [True, 0.9]]),
    ("limit", [0, -1, 1.5, "3", True, [3], float("nan")]),
    ("name", [3, True, ["x"], {}]),
    ("langs", ["a", [], [1], [None], {"a": 1}]),
    ("group_by", [None, "lang", [], [["lang"]]]),
    ("init", [None, "zeros", ["words"], 0]),
    ("objective", [None, "erm", [], ["cvar"], ["erm", 1]]),
    ("seeds", [None, 0, [], [-1], [0.5], ["0"], [True], [2**63]]),
    ("layers", [None, 0.5, "0", True, [0]]),
    ("scale", [None, "1", True, [1.0]]),
])
def test_what_no_flag_could_have_given_is_refused_in_one_line(parser, name, values):
    good = vars(parser.parse_args([]))
    for value in values:
        with pytest.raises(UserError) as error:
            check_settings(parser, good | {name: value}, "runs/x/config.json")
        assert str(error.value).startswith(f"runs/x/config.json: {name} is ")
        assert str(error.value).endswith("; train anew")
        assert "\n" not in str(error.value)


def test_flags_that_are_not_there_yet_or_any_more(parser):
    """In a file older than a flag the flag has its default; an unknown one is refused."""
    good = vars(parser.parse_args(["--deep"]))
    older = {name: value for name, value in good.items() if name not in ("betas", "limit")}
    assert check_settings(parser, older, "config.json") == good
    assert check_settings(parser, {}, "config.json") == vars(parser.parse_args([]))
    for unknown in ({"epochs": 3}, {"help": True}):
        with pytest.raises(UserError, match="^config.json: written by another version .* anew$"):
            check_settings(parser, good | unknown, "config.json")


# ---- defaults that follow from the verbalizer ----------------------------------------------------

@pytest.mark.parametrize("verbalizer", list(settings.RECIPES))
def test_saved_settings_are_those_of_training(encoder, tmp_path, verbalizer):
    """A later version's recipe cannot change what a prompt was trained with."""
    trained = settings.default_settings(verbalizer=verbalizer, **TRAINED)
    settings.complete(trained, encoder)
    for flag, value in settings.RECIPES[verbalizer].items():
        if flag in ("steps", "lr", "seeds"):  # train.py's alone
            assert flag not in trained
        else:
            assert getattr(trained, flag) == value
    saved = settings.settings_of(trained)
    save_prompt(tmp_path / "prompt", torch.zeros(2, 32), encoder, "soft-erm", 0, saved)
    again = settings.read_settings(tmp_path / "prompt")
    assert again == trained
    settings.complete(again, encoder)
    assert again == trained


@pytest.mark.parametrize("verbalizer", list(settings.RECIPES))
def test_what_is_given_stays(encoder, verbalizer):
    given = {"template": "{text} {mask} {prompt}", "hard_prompt": "", "combine": "max",
             "label_languages": ["aa"], "label_words": 5, "steps": 3, "lr": 0.0, "seeds": [4]}
    assert given.keys() == settings.RECIPES[verbalizer].keys()
    args = settings.default_settings(verbalizer=verbalizer, **given)
    settings.complete(args, encoder)
    assert {flag: getattr(args, flag) for flag in given} == given


def test_the_help_says_which_default_follows_from_what(run_script):
    printed = " ".join(run_script("train.py", "--help").stdout.split())
    for flag in settings.RECIPES["words"]:
        assert f"--{flag.replace('_', '-')} " in printed
        assert settings.default_of(flag) in printed, flag


@pytest.mark.parametrize("head", [True, False])
def test_train_py_saves_the_recipe_and_resumes_with_it(
        head, run_script, tiny, headless, colours, tmp_path, monkeypatch):
    name = "words" if head else "states"
    # The real one would take longer, and the colours have no English.
    for flag, value in (("steps", 3), ("seeds", [0]), ("label_languages", ["aa", "bb"])):
        monkeypatch.setitem(settings.RECIPES[name], flag, value)
    done = run_script("train.py", "--encoder", tiny if head else headless, "--data", colours,
                      "--source", "aa,bb", "--seen", "red,blue,green", "--objective", "erm",
                      "--name", "x")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "runs/x/config.json").read_text())
    of_run = {"verbalizer": name} | settings.RECIPES[name]
    assert {flag: config[flag] for flag in of_run} == of_run
    path = tmp_path / "runs/x/soft-erm-0/prompt.safetensors"
    saved = load_prompt(path)[1]["settings"]
    assert saved == {flag: config[flag] for flag in saved}
    assert saved["verbalizer"] == name
    # The recipe is changed; the run goes on under its own settings.
    for flag, value in (("steps", 5), ("lr", 1.0), ("template", "{text} {mask} {prompt}")):
        monkeypatch.setitem(settings.RECIPES[name], flag, value)
    prompt = path.read_bytes()
    path.unlink()
    (path.parent / "last.pt").unlink()
    done = run_script("train.py", "--resume", "runs/x")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == prompt
    assert json.loads((tmp_path / "runs/x/config.json").read_text()) == config


# ---- a flag of a fork ----------------------------------------------------------------------------

FLAGS = ["--source", "aa,bb", "--seen", "red,blue,green", "--shots", 4, "--steps", 4, "--seeds", 0]


def test_a_new_boolean_flag_is_saved_and_read(patched, run_script, tiny, colours, tmp_path):
    """One line in train.py, nothing elsewhere: config.json has it, --resume goes on with it."""
    line = '    g.add_argument("--deep", action="store_true", help="of a fork")'
    anchor = r'    g = p.add_argument_group\("run"\)'
    train = patched("train.py", (anchor, f'{line}\n    g = p.add_argument_group("run")'))
    done = run_script(train, "--encoder", tiny, "--data", colours, *FLAGS, "--name", "x", "--deep")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "runs/x/config.json"
    config = json.loads(path.read_text())
    assert config["deep"] is True
    assert run_script(train, "--resume", "runs/x").returncode == 0
    assert run_script("eval.py").returncode == 0  # which has no such flag
    path.write_text(json.dumps(config | {"deep": "yes"}))
    done = run_script(train, "--resume", "runs/x")
    refused(done, "runs/x/config.json: deep is 'yes'; train anew")
    path.write_text(json.dumps(config))
    refused(run_script("train.py", "--resume", "runs/x"), "another version (deep); train anew")


def test_a_new_setting_of_prompts_is_saved_and_read(monkeypatch, encoder, tmp_path):
    """An argument in add_settings: prompts hold it, and those of before it have its default."""
    before = settings.add_settings
    old = settings.settings_of(settings.default_settings(k=3, **TRAINED))
    save_prompt(tmp_path / "old", torch.zeros(2, 32), encoder, "soft-erm", 0, old)

    def add_settings(parser):
        before(parser)
        parser.add_argument("--deep", action="store_true")

    monkeypatch.setattr(settings, "add_settings", add_settings)
    new = settings.settings_of(settings.default_settings(deep=True, **TRAINED))
    assert new["deep"] is True
    save_prompt(tmp_path / "new", torch.zeros(2, 32), encoder, "soft-erm", 0, new)
    assert settings.read_settings(tmp_path / "new").deep is True
    again = settings.read_settings(tmp_path / "old")
    assert again.deep is False
    assert again.k == 3
    monkeypatch.setattr(settings, "add_settings", before)
    with pytest.raises(UserError, match="new: written by another version"):
        settings.read_settings(tmp_path / "new")


# ---- older runs ----------------------------------------------------------------------------------

@pytest.fixture()
def old_run(tiny, colours, tmp_path):
    """runs/old with the config.json of an older train.py, nothing trained yet. -> its folder"""
    run = tmp_path / "runs/old"
    run.mkdir(parents=True)
    config = OLD_CONFIG | {"encoder": str(tiny), "data": str(colours)}
    (run / "config.json").write_text(json.dumps(config))
    return run


def test_an_older_run_goes_on(old_run, run_script):
    done = run_script("train.py", "--resume", "runs/old")
    assert done.returncode == 0, done.stderr
    results = json.loads((old_run / "results.json").read_text())
    runs = {(row["method"], row["seed"]) for row in results["rows"]}
    assert runs == {("hard", 0), ("soft-erm", 3)}
    assert results["settings"] == json.loads((old_run / "config.json").read_text())


def test_prompts_of_an_older_run_are_read(old_run, run_script, encoder):
    """As they were written before io/prompts.py, which leaves out the name of the encoder."""
    config = json.loads((old_run / "config.json").read_text())
    metadata = {
        "fingerprint": fingerprint(encoder),
        "method": "soft-erm",
        "seed": "3",
        "encoder": config["encoder"],
        "settings": json.dumps({name: config[name] for name in OF_PROMPT}),
    }
    path = old_run / "soft-erm-3/prompt.safetensors"
    write_safetensors(path, {"prompt": torch.randn(8, 32)}, metadata)
    written = path.read_bytes()
    done = run_script("train.py", "--resume", "runs/old")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == written  # it was done, and not trained again
    assert not (old_run / "soft-erm-3/last.pt").exists()
    done = run_script("eval.py")
    assert done.returncode == 0, done.stderr
    ours = json.loads((old_run / "results.json").read_text())["rows"]
    assert json.loads((old_run / "eval-test/results.json").read_text())["rows"] == ours


def test_a_run_of_a_train_py_with_other_flags_is_refused(old_run, run_script):
    path = old_run / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"warmup": 3}))
    done = run_script("train.py", "--resume", "runs/old")
    refused(done, "config.json: written by another version (warmup); train anew")


VALUES = [None, True, -1, 0, 2, 0.5, "x", [], [1], ["x"], {}, [None], "nan", 10**30]


def test_the_settings_of_a_prompt_may_be_damaged(old_run, run_script, tiny):
    """Any value in the place of any setting: eval.py works, or refuses in one line."""
    config = json.loads((old_run / "config.json").read_text())
    good = {name: config[name] for name in OF_PROMPT}
    path = old_run / "soft-erm-3/prompt.safetensors"
    encoder = XLMR.from_pretrained(tiny)
    count = {0: 0, 2: 0}
    for name, value in itertools.product(good, VALUES):
        save_prompt(path, torch.zeros(8, 32), encoder, "soft-erm", 3, good | {name: value})
        done = run_script("eval.py", "--languages", "aa,cc")
        count[done.returncode] += 1
        if done.returncode:
            refused(done, "eval.py: ")
    assert count[0] >= 10, count
    assert count[2] > 100, count


def test_a_prompt_with_few_settings(old_run, run_script, encoder, tiny, colours):
    """The others have their defaults; then eval.py works, or refuses in one line."""
    path = old_run / "soft-erm-3/prompt.safetensors"
    few = {"encoder": str(tiny), "data": str(colours)}
    save_prompt(path, torch.zeros(8, 32), encoder, "soft-erm", 3, few)
    assert load_prompt(path)[1]["settings"] == few
    done = run_script("eval.py")
    if done.returncode:
        refused(done, "prompt.safetensors: ")
