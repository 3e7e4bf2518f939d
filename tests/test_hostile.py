"""Files from strangers: each is read correctly or refused with a UserError (a ValueError). Never a crash, a hang, a hunger for memory, or code run."""
import hashlib
import json
import struct
import tracemalloc

import pytest
import torch

from eval import read_settings
from minirosprompt import UserError
from minirosprompt.io import weights
from minirosprompt.io.files import load_state, read_json, save_state
from minirosprompt.data import load_label_words, read_examples
from minirosprompt.io.prompts import load_prompt, save_prompt
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.io.weights import read_config
from minirosprompt.xlmr import XLMR

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import strategies as st  # noqa: E402

FEW, MANY = 300, 1000                        # files of each kind, in the default suite and in the long mode
INTERESTING = [0, 1, -1, 7, 8, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, -2**63, 10**400]


@st.composite
def mutated(draw, originals):
    """One of the originals after a few blows: bytes changed, cut, doubled or dropped; numbers in its JSON header replaced."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        kind, at = draw(st.sampled_from(["byte", "cut", "insert", "delete", "number", "length", "swap"])), draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=20))
        elif kind == "delete":
            del data[at:at + draw(st.integers(1, 20))]
        elif kind == "length":
            data[:8] = struct.pack("<Q", draw(st.sampled_from([n for n in INTERESTING if 0 <= n < 2**64])))
        elif kind == "swap":
            other = draw(st.integers(0, max(0, len(data) - 1)))
            data[at:at + 8], data[other:other + 8] = data[other:other + 8], data[at:at + 8]
        else:  # a run of digits becomes another number, of the same length where the header's length shall stay true
            end = at
            while end < len(data) and chr(data[end]).isdigit():
                end += 1
            number = str(draw(st.sampled_from(INTERESTING) | st.integers(0, 10**6))).encode()
            data[at:end] = number[:end - at] if draw(st.booleans()) else number
    return bytes(data)


def try_all(strategy, check, tries):
    """Runs check(value) on so many values; the default suite's are always the same ones."""
    property_of = hypothesis.given(strategy)(check)
    hypothesis.settings(max_examples=tries, deadline=None, database=None, derandomize=tries == FEW,
                        suppress_health_check=list(hypothesis.HealthCheck))(property_of)()


def long_mode(few, many):
    return pytest.mark.parametrize("tries", [few, pytest.param(many, marks=pytest.mark.slow)])


def safetensors_files(folder):
    torch.manual_seed(0)
    for i, tensors in enumerate([{"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor([True, False])},
                                 {"prompt": torch.randn(8, 32)}, {"x": torch.empty(0, 3), "s": torch.tensor(1.5).half(), "bf": torch.randn(7).bfloat16()}, {}]):
        write_safetensors(folder / f"{i}", tensors, {"who": "ü", "seed": "0"} if i % 2 else None)
        yield (folder / f"{i}").read_bytes()


@long_mode(FEW, 20_000)
def test_safetensors(tries, tmp_path, monkeypatch):
    """Against the reference implementation, where it is installed: what we read, it reads too, and the same."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load as reference
    except ImportError:
        reference = None
    path, count, size = tmp_path / "file", {"read": 0, "refused": 0}, [0]

    def buffer(n):
        assert 0 <= n <= size[0], f"{n} bytes asked for by a file of {size[0]}"
        return bytearray(n)
    monkeypatch.setattr(weights, "bytearray", buffer, raising=False)
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
            assert "\n" not in str(error) and str(path) in str(error)
        assert tracemalloc.get_traced_memory()[1] - before < 100 * len(data) + 200_000  # JSON's objects are larger than its text
        count["refused" if ours is None else "read"] += 1
        if ours is not None:
            assert sum(t.numel() * t.itemsize for t in ours.values()) <= len(data)
            if reference:
                try:
                    theirs = reference(data)
                except (SafetensorError, KeyError, ValueError) as error:
                    raise AssertionError(f"we read what the reference implementation refuses: {error}") from None
                assert ours.keys() == theirs.keys()
                for name in ours:
                    assert ours[name].dtype == theirs[name].dtype and ours[name].shape == theirs[name].shape
                    assert ours[name].flatten().view(torch.uint8).equal(theirs[name].flatten().view(torch.uint8))
    try:
        try_all(mutated(list(safetensors_files(tmp_path))), check, tries)
    finally:
        tracemalloc.stop()
    print(f"{count['read']} read, {count['refused']} refused")
    assert min(count.values()) > tries / 50  # it is no test if all are refused, or none


def refuses_or_reads(read, path):
    """-> check(data): writes it to path and reads it; only a one-line UserError may come of that."""
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
    settings = {"encoder": "pocket", "data": "minitopics", "classes": ["a", "b"], "seen": ["a"], "source": ["eng_Latn"], "label_languages": None,
                "template": "{prompt} {text} {mask}", "hard_prompt": "x", "k": 1, "combine": "max", "calibration": "none", "stacking": 0.0}
    save_prompt(tmp_path / "good", torch.randn(8, 32), encoder, {"method": "soft-erm", "seed": "3", "settings": json.dumps(settings)})
    method, seed, again = read_settings(tmp_path / "good")
    assert (method, seed, again) == ("soft-erm", 3, settings)
    check = refuses_or_reads(lambda path: (load_prompt(path, encoder), read_settings(path)), tmp_path / "bad")
    try_all(mutated([(tmp_path / "good").read_bytes()]), check, tries)

    json_value = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda v: st.lists(v, max_size=3), max_leaves=4)

    def change(name_and_value):
        name, value = name_and_value
        save_prompt(tmp_path / "bad", torch.zeros(8, 32), encoder, {"method": "m", "seed": "0", "settings": json.dumps(settings | {name: value})})
        try:
            came = read_settings(tmp_path / "bad")[2][name]
            assert type(came) is type(settings[name]) or name == "label_languages"
        except UserError as error:
            assert "damaged" in str(error)
    try_all(st.tuples(st.sampled_from(sorted(settings)), json_value), change, tries)
    for seed in ("x", "", "1.5", "1e3"):
        save_prompt(tmp_path / "bad", torch.zeros(8, 32), encoder, {"method": "m", "seed": seed, "settings": json.dumps(settings)})
        with pytest.raises(UserError, match="damaged"):
            read_settings(tmp_path / "bad")


@long_mode(FEW, MANY)
def test_checkpoints(tries, tmp_path):
    state = {"step": 3, "prompt": torch.randn(8, 4), "log": [[1, 2.5]], "optimizer": {"state": {0: {"exp_avg": torch.randn(8, 4)}}}}
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
    check = {name: refuses_or_reads(read, tmp_path / name) for name, read in
             {"config.json": read_config, "labels.json": load_label_words, "run.json": read_json, "train.tsv": read_examples}.items()}
    try_all(mutated([(tiny / "config.json").read_bytes()]), check["config.json"], tries)
    try_all(mutated([(colours / "labels.json").read_bytes()]), check["labels.json"], tries)
    try_all(mutated([b'{"a": [1, {"b": null}]}']), check["run.json"], tries)
    try_all(mutated([(colours / "train.tsv").read_bytes()[:600], 'id\ttext\tlabel\tlang\n1\t"a\tb""\n"\tx\teng_Latn\n'.encode()]), check["train.tsv"], tries)

    json_value = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                              lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=8)
    good = read_json(tiny / "config.json")
    try_all(st.tuples(st.sampled_from(sorted(good)), json_value).map(lambda kv: json.dumps(good | dict([kv])).encode()), check["config.json"], tries)
    try_all(json_value.map(lambda value: json.dumps(value).encode()), check["labels.json"], tries)
    try_all(st.text(alphabet='ab"\t\n\r\0é\ufeff,', max_size=60).map(lambda text: ("id\ttext\tlabel\tlang\n" + text).encode()), check["train.tsv"], tries)
