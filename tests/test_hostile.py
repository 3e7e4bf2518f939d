"""Files from strangers: each is read correctly, or refused with a UserError.

Never a crash, a hang, a hunger for memory, or code run.
"""
import hashlib
import json
import struct
import tracemalloc
import warnings

import pytest
import torch

from minirosprompt import UserError
from minirosprompt.data import load_label_words, read_examples
from minirosprompt.io import safetensors
from minirosprompt.io.files import load_state, read_json, save_state
from minirosprompt.io.prompts import load_prompt, save_prompt
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.io.settings import default_settings, read_settings
from minirosprompt.io.weights import read_config
from minirosprompt.xlmr import XLMR

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

FEW = 300    # files of each kind, in the default suite
MANY = 1000  # in the long mode
INTERESTING = [0, 1, -1, 7, 8, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400]


KINDS = ["byte", "cut", "insert", "delete", "number", "length", "swap"]
SETTINGS = {
    "encoder": "pocket",
    "data": "minitopics",
    "classes": ["a", "b"],
    "seen": ["a"],
    "source": ["eng_Latn"],
    "label_languages": None,
    "label_words": 2,
    "verbalizer": "words",
    "template": "{prompt} {text} {mask}",
    "hard_prompt": "x",
    "k": 1,
    "combine": "max",
    "pooling": "mean",
    "temperature": 0.05,
    "calibration": "none",
    "stacking": 0.0,
}
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@st.composite
def mutated(draw, originals):
    """One of the originals after a few blows.

    Bytes are changed, cut, doubled or dropped; numbers in its JSON header replaced.
    """
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(KINDS))
        at = draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif kind == "delete":
            del data[at:at + draw(st.integers(1, 20))]
        elif kind == "length":
            length = draw(st.sampled_from([n for n in INTERESTING if 0 <= n < 2**64]))
            data[:8] = struct.pack("<Q", length)
        elif kind == "swap":
            other = draw(st.integers(0, max(0, len(data) - 1)))
            moved = data[at:at + 8]
            data[at:at + 8] = data[other:other + 8]
            data[other:other + 8] = moved
        else:
            # A run of digits becomes another number, of the same length where the header's length
            # shall stay true.
            end = at
            while end < len(data) and chr(data[end]).isdigit():
                end += 1
            number = str(draw(st.sampled_from(INTERESTING) | st.integers(0, 10**6))).encode()
            data[at:end] = number[:end - at] if draw(st.booleans()) else number
    return bytes(data)


def try_all(strategy, check, tries):
    """Runs check(value) on so many values; the default suite's are always the same ones."""
    property_of = hypothesis.given(strategy)(check)
    hypothesis.settings(
        max_examples=tries,
        deadline=None,
        database=None,
        derandomize=tries == FEW,
        suppress_health_check=list(hypothesis.HealthCheck),
    )(property_of)()


def long_mode(few, many):
    return pytest.mark.parametrize("tries", [few, pytest.param(many, marks=pytest.mark.slow)])


def safetensors_files(folder):
    torch.manual_seed(0)
    files = [
        {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor([True, False])},
        {"prompt": torch.randn(8, 32)},
        {"x": torch.empty(0, 3), "s": torch.tensor(1.5).half(), "bf": torch.randn(7).bfloat16()},
        {},
    ]
    for i, tensors in enumerate(files):
        write_safetensors(folder / f"{i}", tensors, {"who": "ü", "seed": "0"} if i % 2 else None)
        yield (folder / f"{i}").read_bytes()


@long_mode(FEW, 20_000)
def test_safetensors(tries, tmp_path, monkeypatch):
    """Against the reference implementation, where it is installed.

    What we read, it reads too, and the same.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load as reference
    except ImportError:
        reference = None
    path = tmp_path / "file"
    count = {"read": 0, "refused": 0, "buffers": 0}
    size = [0]

    def buffer(n):
        count["buffers"] += 1
        assert 0 <= n <= size[0], f"{n} bytes asked for by a file of {size[0]}"
        return bytearray(n)

    monkeypatch.setattr(safetensors, "bytearray", buffer, raising=False)
    tracemalloc.start()

    def check(data):
        path.write_bytes(data)
        size[0] = len(data)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            ours = read_safetensors(path)[0]
        except UserError as error:
            ours = None
            assert "\n" not in str(error)
            assert str(path) in str(error)
        # JSON's objects are larger than its text
        assert tracemalloc.get_traced_memory()[1] - before < 100 * len(data) + 200_000
        count["refused" if ours is None else "read"] += 1
        if ours is not None:
            assert sum(t.numel() * t.itemsize for t in ours.values()) <= len(data)
            if reference:
                try:
                    theirs = reference(data)
                except (SafetensorError, KeyError, ValueError) as error:
                    raise AssertionError(f"we read what the reference refuses: {error}") from None
                assert ours.keys() == theirs.keys()
                for name in ours:
                    assert ours[name].dtype == theirs[name].dtype
                    assert ours[name].shape == theirs[name].shape
                    bits = ours[name].flatten().view(torch.uint8)
                    assert torch.equal(bits, theirs[name].flatten().view(torch.uint8))

    try:
        try_all(mutated(list(safetensors_files(tmp_path))), check, tries)
    finally:
        tracemalloc.stop()
    print(f"{count['read']} read, {count['refused']} refused")
    # It is no test if all are refused, or none, or if buffers are not looked at.
    assert min(count.values()) > tries / 50, count


def refuses_or_reads(read, path):
    """-> check(data): writes it to path and reads it; only a one-line UserError may come of it."""
    def check(data):
        path.write_bytes(data)
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)

    return check


@long_mode(FEW, MANY)
def test_prompt_files(tries, tmp_path, tiny):
    encoder = XLMR.from_pretrained(tiny)
    good = tmp_path / "good"
    bad = tmp_path / "bad"
    save_prompt(good, torch.randn(8, 32), encoder, "soft-erm", 3, SETTINGS)
    _, about = load_prompt(good, encoder)
    assert about == {"method": "soft-erm", "seed": 3, "settings": SETTINGS}
    assert vars(read_settings(good)) == SETTINGS

    def read(path):
        load_prompt(path, encoder)
        read_settings(path)

    try_all(mutated([good.read_bytes()]), refuses_or_reads(read, bad), tries)

    def change(name_and_value):
        name, value = name_and_value
        save_prompt(bad, torch.zeros(8, 32), encoder, "m", 0, SETTINGS | {name: value})
        try:
            came = getattr(read_settings(bad), name)
        except UserError as error:
            assert "train anew" in str(error)
            assert "\n" not in str(error)
            return
        if came is None:  # not given: these have no default, or one that follows from others
            follow = ("verbalizer", "label_words", "template", "hard_prompt", "combine")
            assert name in ("classes", "label_languages", *follow)
        elif name in ("stacking", "temperature"):
            assert type(came) in (int, float)
        elif name == "label_languages":
            assert all(type(one) is str for one in came)
        else:
            assert type(came) is type(SETTINGS[name])

    json_value = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3), max_leaves=4)
    try_all(st.tuples(st.sampled_from(sorted(SETTINGS)), json_value), change, tries)
    for seed in ("x", "", "1.5", "1e3"):
        save_prompt(bad, torch.zeros(8, 32), encoder, "m", seed, SETTINGS)
        with pytest.raises(UserError, match="not a prompt that train.py saved; train it anew"):
            load_prompt(bad)
    save_prompt(bad, torch.zeros(8, 32), encoder, "m", 0, SETTINGS | {"more": 1})
    with pytest.raises(UserError, match=r"written by another version \(more\); train anew"):
        read_settings(bad)
    trained = {"seen": ["a"], "source": ["b"]}
    save_prompt(bad, torch.zeros(8, 32), encoder, "m", 0, {"k": 3} | trained)  # of before the rest
    assert read_settings(bad) == default_settings(k=3, **trained)
    save_prompt(bad, torch.zeros(8, 32), encoder, "m", 0, {"k": 3})
    with pytest.raises(UserError, match="does not say what it was trained on; train anew"):
        read_settings(bad)
    for settings in ([], None, 1, "x"):
        save_prompt(bad, torch.zeros(8, 32), encoder, "m", 0, settings)
        with pytest.raises(UserError, match="not a prompt that train.py saved"):
            read_settings(bad)


@long_mode(FEW, MANY)
def test_checkpoints(tries, tmp_path):
    state = {
        "step": 3,
        "prompt": torch.randn(8, 4),
        "log": [[1, 2.5]],
        "optimizer": {"state": {0: {"exp_avg": torch.randn(8, 4)}}},
    }
    save_state(tmp_path / "good", state)
    good = (tmp_path / "good").read_bytes()
    assert load_state(tmp_path / "good")["log"] == state["log"]

    def check(data):
        (tmp_path / "bad").write_bytes(data)
        try:
            load_state(tmp_path / "bad")
            assert data == good, "a damaged checkpoint was taken for a sound one"
        except UserError as error:
            assert "\n" not in str(error)

    try_all(mutated([good]), check, tries)
    body = good[:-32]  # somebody who computes the checksum anew

    def sealed(data):
        (tmp_path / "bad").write_bytes(data + hashlib.sha256(data).digest())
        try:
            load_state(tmp_path / "bad")
        except UserError as error:
            assert "\n" not in str(error)

    try_all(mutated([body]), sealed, tries)


@long_mode(FEW, MANY)
def test_json_and_tsv(tries, tmp_path, tiny, colours):
    check_config = refuses_or_reads(read_config, tmp_path / "config.json")
    check_labels = refuses_or_reads(load_label_words, tmp_path / "labels.json")
    check_run = refuses_or_reads(read_json, tmp_path / "run.json")
    check_table = refuses_or_reads(read_examples, tmp_path / "train.tsv")
    header = "id\ttext\tlabel\tlang\n"
    quoted = header + '1\t"a\tb""\n"\tx\teng_Latn\n'
    tables = [(colours / "train.tsv").read_bytes()[:600], quoted.encode()]
    try_all(mutated([(tiny / "config.json").read_bytes()]), check_config, tries)
    try_all(mutated([(colours / "labels.json").read_bytes()]), check_labels, tries)
    try_all(mutated([b'{"a": [1, {"b": null}]}']), check_run, tries)
    try_all(mutated(tables), check_table, tries)

    def deeper(value):
        keys = st.text(max_size=3)
        return st.lists(value, max_size=3) | st.dictionaries(keys, value, max_size=3)

    json_value = st.recursive(PLAIN, deeper, max_leaves=8)
    good = read_json(tiny / "config.json")

    def changed(name_and_value):
        name, value = name_and_value
        return json.dumps(good | {name: value}).encode()

    one_changed = st.tuples(st.sampled_from(sorted(good)), json_value).map(changed)
    try_all(one_changed, check_config, tries)
    try_all(json_value.map(lambda value: json.dumps(value).encode()), check_labels, tries)
    some_text = st.text(alphabet='ab"\t\n\r\0é\ufeff,', max_size=60)
    try_all(some_text.map(lambda text: (header + text).encode()), check_table, tries)


@long_mode(FEW, 5000)
def test_a_table_without_quoting_never_loses_a_row(tries, tmp_path):
    """Whatever quotation marks its texts have: every row, as it stands or unquoted; or refused."""
    path = tmp_path / "train.tsv"
    count = {"said": 0, "refused": 0}

    def check(texts):
        rows = "".join(f"{i}\t{text}\tx\taa\n" for i, text in enumerate(texts))
        path.write_text("id\ttext\tlabel\tlang\n" + rows)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = read_examples(path)
            except UserError:
                count["refused"] += 1
                return
        count["said"] += len(said)
        assert [e.id for e in found] == [str(i) for i in range(len(texts))]
        for e, text in zip(found, texts):
            assert e.text == text or '"' + e.text.replace('"', '""') + '"' == text

    some_text = st.text(alphabet='"ab ', min_size=1, max_size=5).filter(lambda t: t.strip(' "'))
    try_all(st.lists(some_text, min_size=1, max_size=6), check, tries)
    assert count["said"] and count["refused"], count
