"""benchmarks/choose.py and by_language.py: what is real text's, on data that the tests make."""
import json
import shutil
import subprocess

import pytest
from conftest import load_script, refused

from minirosprompt import UserError
from minirosprompt.data import load_data, load_split
from minirosprompt.io.files import load_state, read_json, save_state

by_language = load_script("benchmarks/by_language.py")
choose = load_script("benchmarks/choose.py")
NAMES = [*choose.SEEN, "travel"]


@pytest.fixture()
def folder(tmp_path):
    """Data folder with SIB-200's seen classes and one other, its six languages and one other."""
    words = ["apple", "sky", "grass", "snow", "blood"]
    for split, n in (("train", 6), ("dev", 3), ("test", 2)):
        lines = ["id\ttext\tlabel\tlang"]
        for label, word in zip(NAMES, words):
            for i in range(n):
                for lang in [*choose.SOURCE, "fra_Latn"]:
                    lines.append(f"{split}-{word}-{i}\t{word} {words[i % 5]}\t{label}\t{lang}")
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    more = ["cherry", "sea", "leaf", "milk", "ink"]
    labels = {name: {"eng_Latn": list(two)} for name, two in zip(NAMES, zip(words, more))}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    return tmp_path


# ---- choose.py -----------------------------------------------------------------------------------

def test_nothing_is_judged_by_that_is_trained_on(folder):
    """Nor by a translation of it; and no text of an unseen class or a target language."""
    train, judge = choose.judged_on(folder)
    assert train
    assert not {e.id for e in train} & {e.id for e in judge}
    of_dev = {e.id for e in load_split(folder, "dev") if e.label in choose.SEEN}
    assert of_dev < {e.id for e in judge}
    assert {e.label for e in judge} == set(choose.SEEN)
    assert {e.lang for e in judge} == set(choose.SOURCE)
    assert not any(e.id.startswith("test") for e in train + judge)


def test_soft_folds_hold_out_a_class_and_half_of_the_languages(folder, headless, tmp_path,
                                                               run_script, monkeypatch, capsys):
    def call(command, stdout):  # in this process: importing torch takes longer than the training
        return run_script("train.py", *command[2:]).returncode

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setitem(choose.SOFT, "P4", "--prompt-length 4 --steps 2")
    flags = ["soft", "--data", str(folder), "--encoder", str(headless), "--only", "P4"]
    monkeypatch.setattr("sys.argv", ["choose.py", *flags, "--seeds", "0"])
    choose.main()
    table = capsys.readouterr().out
    assert "| P4: `--prompt-length 4 --steps 2` |" in table
    held_out = []
    for fold in range(4):
        run = tmp_path / "runs/choose" / f"P4-{fold}"
        settings = read_json(run / "config.json")
        held_out += set(choose.SEEN) - set(settings["seen"])
        assert not set(settings["source"]) & set(settings["languages"])
        assert len(settings["classes"]) == 5  # all names compete
    assert sorted(held_out) == sorted(choose.SEEN)
    # done once: the second time the tables are read from results.json
    shutil.rmtree(tmp_path / "runs/choose/data")
    monkeypatch.setattr("sys.argv", ["choose.py", *flags, "--seeds", "0"])
    choose.main()
    assert capsys.readouterr().out == table


@pytest.mark.parametrize("head, calibration", [
    (False, "none"), (True, "none"), (True, "contextual")])
def test_hard_prompts_are_those_of_train(folder, headless, tiny, tmp_path, run_script, capsys,
                                         monkeypatch, head, calibration):
    """The number of a cell is what train.py reports of that hard prompt on the same texts."""
    encoder = tiny if head else headless
    template = "{prompt} {mask} {text}" if head else choose.BEFORE
    monkeypatch.setattr(choose, "HARD_AT_MASK" if head else "HARD", [(template, "apple")])
    monkeypatch.setattr(choose, "WORDS", {"two": (["eng_Latn"], 2)})
    monkeypatch.setattr("sys.argv", ["choose.py", "hard", "--data", str(folder), "--encoder",
                                     str(encoder)])
    choose.main()
    rows = capsys.readouterr().out.splitlines()[3:]
    assert len(rows) == (2 if head else 1)
    cells = rows[calibration == "contextual"].split(" | ")
    choose.write_folds(folder, tmp_path / "folds")
    _, judge = choose.judged_on(folder)
    lines = ["id\ttext\tlabel\tlang"]
    lines += [f"{e.id}\t{e.text}\t{e.label}\t{e.lang}" for e in judge]
    (tmp_path / "folds/test.tsv").write_text("\n".join(lines) + "\n")
    for cell, combine in zip(cells[1:], ("mean", "max")):
        done = run_script("train.py", "--encoder", encoder, "--data", tmp_path / "folds",
                          "--seen", ",".join(choose.SEEN), "--hard-prompt", "apple", "--combine",
                          combine, "--template", template, "--calibration", calibration,
                          "--label-languages", "eng_Latn", "--label-words", 2,
                          "--objective", "--dtype", "bfloat16", "--name", combine)
        assert done.returncode == 0, done.stderr
        rows = read_json(tmp_path / "runs" / combine / "results.json")["rows"]
        hard = [row for row in rows if row["method"] == "hard"]
        mean = sum(row["all"] * row["n"] for row in hard) / sum(row["n"] for row in hard)
        assert float(cell.strip(" |")) == pytest.approx(100 * mean, abs=0.06)


# ---- by_language.py ------------------------------------------------------------------------------

@pytest.fixture()
def run(folder, headless, run_script, tmp_path):
    done = run_script("train.py", "--encoder", headless, "--data", folder, "--steps", 2, "--seeds",
                      0, 1, "--seen", ",".join(choose.SEEN), "--source", "eng_Latn,deu_Latn",
                      "--name", "one")
    assert done.returncode == 0, done.stderr
    return tmp_path / "runs/one"


def test_by_language_agrees_with_the_run(run, run_script, tmp_path):
    ours = by_language.Run(run)
    for row in read_json(run / "results.json")["rows"]:
        right = ours.right[row["method"]][row["seed"]]
        for metric in by_language.METRICS:
            assert ours.by_language(right, [row["lang"]], metric)[0] == pytest.approx(row[metric])
    done = run_script("benchmarks/by_language.py", run, "--out", tmp_path / "one.md")
    assert done.returncode == 0, done.stderr
    assert "| source languages | 2 | " in done.stdout
    assert "| target, in XLM-R | 5 | " in done.stdout
    assert "| fra_Latn | French | " in (tmp_path / "one.md").read_text()


def test_the_hard_prompt_of_another_run_as_the_baseline(run, run_script, folder, headless):
    flags = ["--encoder", headless, "--data", folder, "--objective", "--seen",
             ",".join(choose.SEEN), "--source", "eng_Latn,deu_Latn", "--hard-prompt", "about"]
    assert run_script("train.py", *flags, "--name", "two").returncode == 0
    done = run_script("benchmarks/by_language.py", run, "--hard", "runs/two")
    assert done.returncode == 0, done.stderr
    assert "| hard | hard, `about {text}` | soft-erm | soft-group-dro |" in done.stdout
    ours, other = by_language.Run(run), by_language.Run(run.with_name("two"))
    ours.set_beside(other)
    other.right["hard"][:] = False
    assert ours.gain("soft-erm", ["fra_Latn"], "all")[0] == ours.right["soft-erm"].mean(0)[
        ours.langs == "fra_Latn"].mean()
    other.tested.pop()
    with pytest.raises(UserError, match="tested on other texts"):
        ours.set_beside(other)


def test_gain_and_worst_by_hand(run):
    """All right in one language where the hard prompt is all wrong, as good elsewhere."""
    ours = by_language.Run(run)
    ours.right["hard"][:] = ours.langs != "fra_Latn"
    ours.right["soft-erm"][:] = True
    langs = ["fra_Latn", "spa_Latn"]
    gain, over_sentences, over_languages = ours.gain("soft-erm", langs, "unseen")
    assert gain == 0.5
    assert over_sentences == [0.5, 0.5]  # every sentence: wrong in French, right in Spanish
    assert over_languages == [0.0, 1.0]
    kinds = by_language.kinds_of(ours)["XLM-R's pretraining text"]
    table = by_language.worst_table(ours, kinds)
    assert "| all, unseen classes | 0.0 (fra_Latn) | 100.0 ±0.0 (" in table


def test_without_unseen_classes_nothing_is_said_of_them(folder, headless, run_script, tmp_path):
    flags = ["--encoder", headless, "--data", folder, "--steps", 2, "--seeds", 0, "--name", "all"]
    assert run_script("train.py", *flags).returncode == 0
    done = run_script("benchmarks/by_language.py", "runs/all")
    assert done.returncode == 0 and done.stderr == ""
    assert "nan" not in done.stdout and "Accuracy in %, on all / seen classes." in done.stdout


def test_a_folder_that_is_no_run(run_script, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refused(run_script("benchmarks/by_language.py", tmp_path), "config.json: not of a run of train")


def test_two_ways_to_train_seed_by_seed_by_hand(run):
    """Right in every text with one seed, in none with the other; the first way the reverse."""
    ours = by_language.Run(run)
    ours.right["soft-erm"][:] = [[True], [False]]
    ours.right["soft-group-dro"][:] = [[False], [True]]
    row = by_language.difference_table(ours, {"one": ["fra_Latn"]}).splitlines()[-1]
    assert row == ("| one | soft-group-dro minus soft-erm | +0.0 ±141.4 / +0.0 ±141.4 / "
                   "+0.0 ±141.4 |")


def test_folds_of_other_data_are_not_taken(folder, tmp_path):
    choose.write_folds(folder, tmp_path / "folds")
    choose.write_folds(folder, tmp_path / "folds")
    test = tmp_path / "folds/test.tsv"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="made from other data"):
        choose.write_folds(folder, tmp_path / "folds")


def test_scores_of_other_data_are_refused(run, run_script):
    scores = load_state(run / "hard.pt")
    assert scores.shape[0] == len(load_data(by_language.settings_of_run(run))[2])
    save_state(run / "hard.pt", scores[1:])
    done = run_script("benchmarks/by_language.py", run)
    assert done.returncode == 2
    assert "not those of the run" in done.stderr


def test_a_run_beside_other_texts_than_its_own_is_refused(run, run_script, folder):
    """As many as before: without its hash nothing would say so."""
    path = folder / "test.tsv"
    path.write_text(path.read_text().replace("apple apple", "apple pear"))
    refused(run_script("benchmarks/by_language.py", run), "not what the run was begun with: texts")
