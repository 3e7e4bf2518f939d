"""Reading TSV files and label words; few-shot samples, groups, batches, buckets."""
import itertools
import json
import random
from collections import Counter

import pytest

from minirosprompt import UserError
from minirosprompt.data import (
    Example,
    balanced_batch,
    draw_batch,
    few_shot,
    groups_of,
    length_buckets,
    load_label_words,
    load_split,
    natural_batch,
    read_examples,
)
from minirosprompt.io.files import read_json, read_lines, write_row
from minirosprompt.io.languages import kind_of, load_languages

HEADER = "id\ttext\tlabel\tlang\n"


def some(n=10):
    """n texts of each of three classes and two languages."""
    examples = []
    for i, label, lang in itertools.product(range(n), "xyz", ("aa", "bb")):
        columns = {"lang": lang, "label": label, "domain": "ab"[i % 2]}
        examples.append(Example(f"t{i}", label, lang, f"{i:02}", columns))
    return examples


def test_reads_quoted_csv(tmp_path):
    quoted = '1\t"a ""quoted"" text\twith a tab"\tx\taa\r\n'
    long = "2\t" + "long " * 50000 + "\ty\tbb\n"
    (tmp_path / "a.tsv").write_text("\ufeff" + HEADER + quoted + long, encoding="utf-8")
    first, second = read_examples(tmp_path / "a.tsv")
    assert first.text == 'a "quoted" text\twith a tab'
    assert (first.label, first.lang, second.label) == ("x", "aa", "y")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "line 1: no column id, text, label, lang"),
        (b"id\ttext\tlabel\n1\ta\tx\n", "line 1: no column lang"),
        (HEADER.encode(), "no rows"),
        (HEADER.encode() + b"1\ta\tx\n", "line 2: 4 columns expected"),
        (HEADER.encode() + b"1\ta\tx\taa\n2\ta\tx\taa\tmore\n", "line 3: 4 columns expected"),
        (HEADER.encode() + b"1\t \tx\taa\n", "line 2: text is empty"),
        (HEADER.encode() + b"1\t\xff\tx\taa\n", r"not UTF-8 \(byte 21\); convert it"),
        (b"id,text,label,lang\n1,a,x,aa\n", "line 1: commas stand between the columns"),
        (b'"id";"text";"label";"lang"\n1;a;x;aa\n', "line 1: semicolons stand between"),
        (b"id\ttext\ttext\tlabel\tlang\n1\ta\tb\tx\taa\n", "line 1: two columns have one name"),
        (b"id\t" + b"long" * 999 + b"\n", "line 1: no column text, label, lang .{,120}$"),
    ],
)
def test_bad_tsv(tmp_path, content, words):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(UserError, match=f"a.tsv: .*{words}"):
        read_examples(tmp_path / "a.tsv")


def plain(texts, header=HEADER):
    """A table whose columns are merely joined by tabs; the texts' ids are their numbers."""
    return header + "".join(f"{i}\t{text}\tx\taa\n" for i, text in enumerate(texts, 1))


UNTOUCHED = ["it began", "as it ends", 'with "marks" inside']
LONE = {  # texts that a table read as quoted CSV would lose, or their neighbours
    "one at the end of a file": [*UNTOUCHED, '"Never closed, he said.'],
    "one at the beginning": ['"Never closed, he said.', *UNTOUCHED],
    "two, the second at an end": ['"To the last one', *UNTOUCHED, 'that ends so."', "then"],
    "next to each other": ['"Opened,', 'and closed."', *UNTOUCHED],
    "two at the beginning": ["first", '"Opened,', "and", '"opened again.', *UNTOUCHED],
    "a quotation and more": ['"Yes," he said.', *UNTOUCHED, '"No," she said, "no."'],
    "a mark alone": ['"', *UNTOUCHED, '"'],
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("case", LONE)
def test_a_table_without_quoting_loses_nothing(case, end, tmp_path):
    """It is read as it stands, and that is said, with the line at which it showed."""
    path = tmp_path / "train.tsv"
    path.write_text(plain(LONE[case]).replace("\n", end), encoding="utf-8", newline="")
    with pytest.warns(UserWarning, match="is read as plain text between tabs") as said:
        found = read_examples(path)
    assert [e.text for e in found] == LONE[case]
    assert [e.id for e in found] == [str(i) for i in range(1, len(found) + 1)]
    assert {(e.label, e.lang) for e in found} == {("x", "aa")}
    opened = [line for line, text in enumerate(LONE[case], 2) if text.startswith('"')]
    assert len(said) == 1
    assert str(said[0].message).startswith(f"{path}: line {opened[0]}: ")


NEITHER = {  # tables with a lone mark that are not plain either: (lines after the header, fault)
    "a text that is quoted elsewhere": (
        ['1\t"so ""quoted"""\tx\taa', '2\t"lone\tx\taa', "3\tc\tx\taa"],
        r"line 3: a quotation mark opens a text here, and none closes it; .*line 2 is quoted"),
    "a tab that is quoted elsewhere": (
        ['1\t"a\tb"\tx\taa', '2\t"lone\tx\taa', "3\tc\tx\taa"],
        r"line 3: .* none closes it; .*line 2 has 5 columns"),
    "rows between two": (
        ['1\t"a\tb"\tx\taa', '2\t"lone\tx\taa', "3\tb\tx\taa", '4\tc."\tx\taa'],
        r"line 3: .*line 5, over what look like rows of their own; .*double its own"),
    "a row that is cut": (
        ['1\t"lone\tx\taa', "2\tb\tx", '3\tc."\tx\taa'],
        r"line 2: .*over what look like rows of their own; .*line 3 has 3 columns"),
    "a quoted header": (['"1"\t"lone"\t"x"\t"a"a'], r"line 2: .*line 1 is quoted"),
}


@pytest.mark.parametrize("case", NEITHER)
def test_a_lone_quotation_mark_among_quoted_texts_is_refused(case, tmp_path):
    lines, fault = NEITHER[case]
    header = HEADER if case != "a quoted header" else '"id"\t"text"\t"label"\t"lang"\n'
    path = tmp_path / "a.tsv"
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    with pytest.raises(UserError, match=f"a.tsv: {fault}") as caught:
        read_examples(path)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_quoted_texts_of_several_lines(tmp_path):
    """Lines in quotation marks stay one text: also a table in a text, if all columns are quoted."""
    texts = ["a\nb", '"a"\r\nb', "a\n\n b\t", "a\r", "8\tlooks\tlike\taa\n9\ta row\tof\taa",
             "one\ttwo\tthree\tfour\nfive\tsix\tseven\teight\n"]
    with open(tmp_path / "a.tsv", "w", encoding="utf-8", newline="") as file:
        write_row(file, HEADER.split())
        for i, text in enumerate(texts):
            write_row(file, [i, text, "x", "aa"])
    assert [e.text for e in read_examples(tmp_path / "a.tsv")] == texts
    # as others write it, with quotation marks where they are needed alone
    body = '1\t"a\n\tb\n""c"""\tx\taa\n\n2\t"d\r\n"\tx\taa'
    (tmp_path / "a.tsv").write_text(HEADER + body, newline="")
    assert [e.text for e in read_examples(tmp_path / "a.tsv")] == ['a\n\tb\n"c"', "d\r\n"]


def test_a_lone_carriage_return_is_named(tmp_path):
    """In its line, whatever returns there are before it; within quotation marks it is fine."""
    path = tmp_path / "a.tsv"
    rows = '"1"\t"a\rb\rc\n"\t"x"\t"aa"\n2\tb\tx\taa\n'
    path.write_text(HEADER + rows + "3\ta\rb\tx\taa\n", newline="")
    with pytest.raises(UserError, match=r"line 5: a carriage return alone \(\\r\) in a text; take"):
        read_examples(path)
    path.write_text(HEADER + rows + '"3"\t"a\rb"\t"x"\t"aa"\n', newline="")
    assert [e.text for e in read_examples(path)] == ["a\rb\rc\n", "b", "a\rb"]
    # An old Macintosh has no other line ends.
    path.write_text((HEADER + "1\ta\tx\taa\n2\tb\tx\taa\n").replace("\n", "\r"), newline="")
    assert [e.text for e in read_examples(path)] == ["a", "b"]
    (tmp_path / "texts.txt").write_bytes(b"a\rb\r\nc\r\r\n\nd")
    assert read_lines(tmp_path / "texts.txt") == ["a\rb", "c", "", "d"]


def test_the_script_of_an_unknown_language():
    """Its code tells it; and of a language in another script the family."""
    assert kind_of("grc_Grek", "script") == "Grek"
    assert kind_of("srp_Latn", "script") == "Latn"
    assert kind_of("srp_Latn", "family") == kind_of("srp_Cyrl", "family") != "unknown"
    assert kind_of("grc_Grek", "family") == kind_of("grc_Grek", "xlmr") == "unknown"
    for lang in ("aa", "grc", "grc_x", "grc_latin", "_"):
        assert kind_of(lang, "script") == "unknown"
    for lang, row in load_languages().items():
        assert kind_of(lang, "script") == row["script"]


def test_splits(tmp_path):
    with pytest.raises(UserError, match="train.tsv: No such file"):
        load_split(tmp_path, "train")
    header = HEADER.replace("\n", "\tsplit\n")
    (tmp_path / "sentences.tsv").write_text(header + "1\ta\tx\taa\ttrain\n2\tb\tx\taa\tdev\n")
    assert [e.id for e in load_split(tmp_path, "dev")] == ["2"]
    with pytest.raises(UserError, match="no row with split test"):
        load_split(tmp_path, "test")


def test_label_words(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"x": {"aa": ["one", "uno"], "bb": ["un"]}}))
    assert load_label_words(path) == {"x": ["one", "uno", "un"]}
    assert load_label_words(path, None, ["bb"]) == {"x": ["un"]}
    assert load_label_words(path, first=1) == {"x": ["one", "un"]}  # of each language
    assert load_label_words(path, None, ["aa"], first=1) == {"x": ["one"]}
    assert load_label_words(path, first=9) == load_label_words(path)
    with pytest.raises(UserError, match="'x' has no label word in cc"):
        load_label_words(path, ["x"], ["cc"])
    path.write_text(json.dumps({"é": {"aa": ["ü"]}}), encoding="utf-8-sig")  # as Notepad does
    assert load_label_words(path) == {"é": ["ü"]}
    assert read_json(path) == {"é": {"aa": ["ü"]}}
    path.write_text(json.dumps({"x": {}}), encoding="utf-16")
    with pytest.raises(UserError, match=r"labels.json: not UTF-8 \(byte 0\); convert it first"):
        load_label_words(path)
    for bad in ("[]", "{", "{}", '{"x": {"aa": ["a"]}, "x": {"aa": ["b"]}}', '{"x": ["one"]}',
                '{"x": {"aa": "one"}}', '{"x": {"aa": [""]}}'):
        path.write_text(bad)
        with pytest.raises(UserError, match="labels.json: "):
            load_label_words(path)


def test_few_shot_is_a_pure_function_of_data_shots_and_seed():
    examples = some()
    chosen = few_shot(examples, ["x", "y"], ["aa"], 3, seed=1)
    assert len(chosen) == 6
    assert all(e.lang == "aa" and e.label in "xy" for e in chosen)
    assert chosen == few_shot(examples[::-1], ["y", "x"], ["aa"], 3, seed=1)
    assert chosen != few_shot(examples, ["x", "y"], ["aa"], 3, seed=2)
    # fewer than shots: all there are
    assert len(few_shot(examples, ["x"], ["aa"], 99, seed=1)) == 10


def test_shots_may_differ_from_language_to_language():
    """The numbers stand in the order of the languages; the draw is that of one number for all."""
    examples = some()
    chosen = few_shot(examples, ["x", "y"], ["bb", "aa"], [2, 5], seed=1)
    for lang, shots in (("bb", 2), ("aa", 5)):
        of_lang = [e for e in chosen if e.lang == lang]
        assert of_lang == few_shot(examples, ["x", "y"], [lang], shots, seed=1)
        assert len(of_lang) == 2 * shots
    assert few_shot(examples, ["x"], ["aa", "bb"], [3], 1) == few_shot(
        examples, ["x"], ["aa", "bb"], 3, 1)
    with pytest.raises(UserError, match="--shots: 2 numbers for 3 source languages"):
        few_shot(examples, ["x"], ["aa", "bb", "cc"], [2, 5], seed=1)


def test_groups():
    groups, names = groups_of(some(2), ["lang"])
    assert names == ["aa", "bb"]
    assert groups == [0, 1] * 6
    assert len(groups_of(some(2), ["lang", "label"])[1]) == 6
    assert groups_of(some(2), ["domain"])[1] == ["a", "b"]
    with pytest.raises(UserError, match="--group-by topic: the data have the columns"):
        groups_of(some(2), ["topic"])


def test_balanced_batches():
    groups = [0] * 20 + [1] * 5 + [2] * 1
    batch = balanced_batch(groups, 3, 12, seed=0, step=7)
    assert Counter(groups[i] for i in batch) == {0: 4, 1: 4, 2: 4}
    # Without replacement where there are enough.
    assert len(set(i for i in batch if groups[i] == 0)) == 4
    assert batch == balanced_batch(groups, 3, 12, seed=0, step=7)
    assert batch != balanced_batch(groups, 3, 12, seed=0, step=8)
    assert len(balanced_batch(groups, 3, 13, 0, 0)) == 13
    # fewer places than groups
    few = [balanced_batch(groups, 3, 2, seed=0, step=s) for s in range(30)]
    assert all(len(b) == 2 for b in few)
    assert {groups[i] for i in sum(few, [])} == {0, 1, 2}


def test_natural_batches():
    batch = natural_batch(26, 12, seed=0, step=7)
    assert len(set(batch)) == 12  # without replacement where there are enough
    assert set(batch) <= set(range(26))
    assert batch == natural_batch(26, 12, seed=0, step=7)
    assert batch != natural_batch(26, 12, seed=0, step=8)
    assert batch != natural_batch(26, 12, seed=1, step=7)
    assert sorted(natural_batch(12, 12, seed=0, step=0)) == list(range(12))
    few = natural_batch(3, 12, seed=0, step=0)
    assert len(few) == 12
    assert set(few) <= {0, 1, 2}


@pytest.mark.parametrize("sampler", ["balanced", "natural"])
def test_a_batch_is_a_pure_function_of_seed_and_step(sampler):
    groups = [0] * 20 + [1] * 5 + [2] * 1
    drawn = []
    for step in range(6):
        random.seed(step)  # a generator that others use changes nothing
        drawn.append(draw_batch(sampler, groups, 8, 3, step))
    for step in (5, 0, 3):  # nor does what was drawn before
        assert draw_batch(sampler, groups, 8, 3, step) == drawn[step]
    assert len({tuple(batch) for batch in drawn}) == 6
    assert all(len(batch) == 8 for batch in drawn)


def test_balanced_fills_a_batch_with_each_group_alike_and_natural_as_texts_come():
    groups = [0] * 90 + [1] * 10
    share = {"balanced": 0, "natural": 0}
    for sampler in share:
        for step in range(200):
            batch = draw_batch(sampler, groups, 10, 0, step)
            share[sampler] += sum(groups[i] == 0 for i in batch) / (200 * 10)
    assert share["balanced"] == pytest.approx(0.5)
    assert share["natural"] == pytest.approx(0.9, abs=0.03)


def test_length_buckets_hold_every_row_once_within_the_budget():
    rows = [[0] * n for n in (5, 50, 7, 3, 200, 49, 6)]
    buckets = length_buckets(rows, 100)
    assert sorted(sum(buckets, [])) == list(range(7))
    for bucket in buckets:
        longest = max(len(rows[i]) for i in bucket)
        assert len(bucket) == 1 or len(bucket) * longest <= 100
    assert length_buckets([], 100) == []
