"""safetensors files and encoder folders: round trips, and what is refused."""
import hashlib
import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from conftest import assert_agree, random_encoder

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io.files import load_state
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.io.weights import save_encoder, to_hugging_face
from minirosprompt.xlmr import XLMR, Config

SMALL = Config(vocab_size=50, width=16, layers=2, heads=4, ffn=24, positions=20)


def file_of(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_round_trip_of_every_dtype(tmp_path):
    tensors = {
        "f32": torch.randn(3, 4),
        "bf16": torch.randn(5).bfloat16(),
        "f16": torch.randn(2, 1).half(),
        "i64": torch.arange(6),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 7),
    }
    write_safetensors(tmp_path / "x", tensors, {"who": "ü"})
    again, metadata = read_safetensors(tmp_path / "x")
    assert metadata == {"who": "ü"}
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert torch.equal(again[name], tensor)


def test_agrees_with_the_safetensors_package(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    tensors = {"b": torch.randn(3, 4), "a": torch.randn(5).bfloat16(), "c": torch.arange(3)}
    write_safetensors(tmp_path / "ours", tensors)
    library.save_file(tensors, tmp_path / "theirs")
    for read, path in ((library.load_file, "ours"), (lambda p: read_safetensors(p)[0], "theirs")):
        again = read(tmp_path / path)
        assert again.keys() == tensors.keys()
        assert all(torch.equal(again[k], tensors[k]) for k in tensors)


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SCALAR = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
HUGE = {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}
# case: all bytes of a file; or its header, and its data or how many bytes they are
BROKEN = {
    "empty file": b"",
    "seven bytes": b"1234567",
    "length beyond the file": struct.pack("<Q", 2**60) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"nope",
    "not UTF-8": struct.pack("<Q", 2) + b"\xff\xfe",
    "a list": struct.pack("<Q", 2) + b"[]",
    "nested without end": struct.pack("<Q", 50000) + b"[" * 50000,
    "a number without end": struct.pack("<Q", 5006) + b'{"a":' + b"9" * 5000 + b"}",
    "name twice": (b'{"a":' + SCALAR + b',"a":' + SCALAR + b"}", 4),
    "unknown dtype": ({"a": {**ONE, "dtype": "F33"}}, 8),
    "unhashable dtype": ({"a": {**ONE, "dtype": ["F32"]}}, 8),
    "negative shape": ({"a": {**ONE, "shape": [-2]}}, 8),
    "boolean shape": ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4),
    "fractional shape": ({"a": {**ONE, "shape": [2.0]}}, 8),
    "huge empty shape": ({"a": HUGE}, 0),
    "shape against offsets": ({"a": {**ONE, "shape": [3]}}, 8),
    "offsets backwards": ({"a": {**ONE, "data_offsets": [8, 0]}}, 8),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 8, 8]}}, 8),
    "gap": ({"a": ONE, "b": {**ONE, "data_offsets": [12, 20]}}, 20),
    "overlap": ({"a": ONE, "b": {**ONE, "data_offsets": [4, 12]}}, 12),
    "bytes left over": ({"a": ONE}, 9),
    "cut short": ({"a": ONE}, 7),
    "missing key": ({"a": {"dtype": "F32", "shape": [2]}}, 8),
    "extra key": ({"a": {**ONE, "code": "import os"}}, 8),
    "entry is a text": ({"a": "F32"}, 0),
    "metadata are numbers": ({"__metadata__": {"a": 1}, "a": ONE}, 8),
    "a truth value of 2": ({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path, case):
    content = BROKEN[case]
    path = tmp_path / "x.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        header, data = content
        file_of(path, header, data if isinstance(data, bytes) else b"\0" * data)
    with pytest.raises(UserError, match="x.safetensors: ") as error:
        read_safetensors(path)
    assert "\n" not in str(error.value)


def test_every_truncation_of_a_good_file_is_refused(tmp_path):
    write_safetensors(tmp_path / "x", {"a": torch.randn(3), "b": torch.arange(2)})
    whole = (tmp_path / "x").read_bytes()
    for n in range(len(whole)):
        (tmp_path / "x").write_bytes(whole[:n])
        with pytest.raises(UserError):
            read_safetensors(tmp_path / "x")


def saved(folder, change=lambda tensors: None, config=SMALL, **raw):
    """A good encoder folder, with its tensors and its config.json changed."""
    save_encoder(folder, random_encoder(config), torch.float32)
    tensors, _ = read_safetensors(folder / "model.safetensors")
    change(tensors)
    write_safetensors(folder / "model.safetensors", tensors)
    settings = json.loads((folder / "config.json").read_text()) | raw
    kept = {name: value for name, value in settings.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def test_encoder_round_trip(tmp_path):
    encoder = random_encoder(SMALL)
    save_encoder(tmp_path, encoder, torch.float32)
    again = XLMR.from_pretrained(tmp_path)
    assert again.config == SMALL
    assert not any(w.requires_grad for w in again.parameters())
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_what_hub_files_carry_besides_is_accepted(tmp_path):
    def more(tensors):
        tensors["roberta.pooler.dense.weight"] = torch.randn(16, 16)
        tensors["roberta.embeddings.position_ids"] = torch.arange(20)[None]
        words = tensors["roberta.embeddings.word_embeddings.weight"]
        tensors["lm_head.decoder.weight"] = words.clone()
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"].clone()

    plain = XLMR.from_pretrained(saved(tmp_path / "a"))
    carrying = XLMR.from_pretrained(saved(tmp_path / "b", more))
    for a, b in zip(plain.parameters(), carrying.parameters()):
        assert torch.equal(a, b)


BIAS = "roberta.encoder.layer.1.output.dense.bias"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("lm_head.dense.weight"), "lm_head.dense.weight"),
        (lambda t: t.pop(BIAS), f"2 layers; missing: {BIAS}"),
        (lambda t: t.update(stranger=torch.zeros(1)), "2 layers; unexpected: stranger"),
        (lambda t: t.update({"lm_head.bias": torch.zeros(49)}), "config.json asks for"),
        (lambda t: t.update({"lm_head.bias": torch.zeros(50).long()}), "config.json asks for"),
        (lambda t: t.update({"lm_head.decoder.bias": t["lm_head.bias"] + 1}),
         "lm_head.decoder.bias differs"),
    ],
)
def test_wrong_keys(tmp_path, change, words):
    with pytest.raises(UserError) as error:
        XLMR.from_pretrained(saved(tmp_path, change))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "raw, words",
    [
        ({"model_type": "xlm-roberta-xl"}, "'xlm-roberta-xl'"),
        ({"model_type": "modernbert"}, "'modernbert'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_attention_heads": 5}, "impossible sizes"),
        ({"vocab_size": -1}, "impossible sizes"),
        ({"vocab_size": "50"}, "impossible sizes"),
        ({"num_hidden_layers": 3}, "missing:"),
        ({"hidden_act": "relu"}, "gelu"),
    ],
)
def test_wrong_config(tmp_path, raw, words):
    with pytest.raises(UserError, match=words):
        XLMR.from_pretrained(saved(tmp_path, **raw))


def test_bin_files(tmp_path):
    folder = saved(tmp_path)
    state = to_hugging_face(random_encoder(SMALL).state_dict(), vars(SMALL))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="neither model.safetensors nor"):
        XLMR.from_pretrained(folder)
    tensors = {name: weight.clone() for name, weight in state.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    assert torch.equal(XLMR.from_pretrained(folder).head.bias, state["lm_head.bias"])


def in_shards(folder, tensors, stem="model", ending="safetensors", save=write_safetensors):
    """Two files and an index, as transformers saves large models."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    table = {}
    for n in (1, 2):
        part = {name: tensors[name] for name in list(tensors)[n - 1::2]}
        save(folder / f"{stem}-{n}-of-2.{ending}", part)
        table |= {name: f"{stem}-{n}-of-2.{ending}" for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": table}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


OF_PICKLES = {"stem": "pytorch_model", "ending": "bin",
              "save": lambda path, part: torch.save(part, path)}


@pytest.mark.parametrize("kind", [{}, OF_PICKLES])
def test_shards(tmp_path, kind):
    want = XLMR.from_pretrained(saved(tmp_path)).state_dict()
    in_shards(tmp_path, read_safetensors(tmp_path / "model.safetensors")[0], **kind)
    for name, weight in XLMR.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(weight, want[name]), name
    (last,) = tmp_path.glob("*-2-of-2.*")
    last.unlink()
    with pytest.raises(UserError, match=f"{last.name}: No such file"):
        XLMR.from_pretrained(tmp_path)


@pytest.mark.parametrize("table", [None, {}, [], {"a": 1}, {"a": "../x.safetensors"},
                                   {"a": "/x.safetensors"}, {"a": "x.bin"}])
def test_an_index_names_files_of_its_folder_alone(tmp_path, table):
    (saved(tmp_path) / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    with pytest.raises(UserError, match="weight_map does not name files of its folder"):
        XLMR.from_pretrained(tmp_path)


def test_the_tied_matrix_under_its_other_name(tmp_path):
    """safetensors' save_model keeps one name of what is tied, and not always the encoder's."""
    def rename(tensors):
        words = tensors.pop("roberta.embeddings.word_embeddings.weight")
        tensors["lm_head.decoder.weight"] = words
        tensors["lm_head.decoder.bias"] = tensors.pop("lm_head.bias")

    want = XLMR.from_pretrained(saved(tmp_path / "a"))
    got = XLMR.from_pretrained(saved(tmp_path / "b", rename))
    for a, b in zip(want.parameters(), got.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "prefix, words",
    [
        ("module.", "begin with 'module.', as DataParallel has them: save model.module alone"),
        ("_orig_mod.", "as torch.compile has them: save model._orig_mod alone"),
        ("module._orig_mod.", "save model.module._orig_mod alone"),
        ("model.", "as a larger model has them: save model.model alone"),
        ("0.auto_model.", "begin with '0.auto_model.'"),
    ],
)
@pytest.mark.parametrize("head", [True, False])
def test_keys_of_a_model_inside_another(tmp_path, prefix, words, head):
    def wrap(tensors):
        plain = dict(tensors)
        tensors.clear()
        for key, tensor in plain.items():
            if head or not key.startswith("lm_head."):
                tensors[prefix + key if head else prefix + key.removeprefix("roberta.")] = tensor

    with pytest.raises(UserError) as error:
        XLMR.from_pretrained(saved(tmp_path, wrap))
    assert words in str(error.value)
    assert "missing" not in str(error.value)


@pytest.mark.parametrize("part", ["state_dict", "model", "module"])
def test_a_checkpoint_of_a_training(tmp_path, part):
    folder = saved(tmp_path)
    tensors, _ = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    checkpoint = {"epoch": 3, part: tensors, "optimizer": {}}
    for more in ({}, {"loss": torch.tensor(1.0)}, {part: {"module": tensors}}):
        torch.save(checkpoint | more, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=f"lie in one of its parts: {part}; save that"):
            XLMR.from_pretrained(folder)


POINTER = (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
           + b"\nsize 1115567652\n")


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "tokenizer.json",
                                  "model-1-of-2.safetensors", "sentencepiece.bpe.model",
                                  "config.json", "pytorch_model-1-of-2.bin"])
def test_a_git_lfs_pointer_is_called_by_its_name(tmp_path, tiny, file):
    """What git clone leaves where Git LFS is not installed."""
    for name in ("config.json", "model.safetensors", "sentencepiece.bpe.model"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    if file == "model-1-of-2.safetensors":
        in_shards(tmp_path, read_safetensors(tmp_path / "model.safetensors")[0])
    if file == "pytorch_model-1-of-2.bin":
        in_shards(tmp_path, read_safetensors(tmp_path / "model.safetensors")[0], **OF_PICKLES)
    if file == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
    if file == "tokenizer.json":
        (tmp_path / "sentencepiece.bpe.model").unlink()
    (tmp_path / file).write_bytes(POINTER)
    with pytest.raises(UserError, match=f"{file}: a Git LFS pointer.*git lfs pull") as error:
        load_encoder(tmp_path)
    assert len(str(error.value)) < 200 + len(str(tmp_path))
    if file == "model.safetensors":
        with pytest.raises(UserError, match="a Git LFS pointer"):
            load_prompt(tmp_path / file)


def strangers(tensors):
    tensors.update({f"stranger.{n}": torch.zeros(1) for n in range(500)})


@pytest.mark.parametrize(
    "change, raw, words",
    [
        (lambda t: None, {"num_hidden_layers": 48}, "and 734 more"),
        (strangers, {}, "and 498 more"),
        (lambda t: t.clear(), {}, "missing: "),
        (lambda t: t.update({"x" * 3000: torch.zeros(1)}), {}, "unexpected: xxx"),
        (lambda t: None, {"model_type": "x" * 3000}, "another architecture"),
        (lambda t: None, {"model_type": ["x"] * 3000}, "another architecture"),
        (lambda t: None, {"hidden_size": "9" * 3000}, "impossible sizes"),
        (lambda t: None, {"layer_norm_eps": "9" * 3000}, "impossible sizes"),
    ],
)
def test_messages_are_a_few_lines_at_most(tmp_path, change, raw, words):
    with pytest.raises(UserError) as error:
        XLMR.from_pretrained(saved(tmp_path, change, **raw))
    assert words in str(error.value)
    assert len(str(error.value)) < 350 + len(str(tmp_path))


def test_a_long_name_in_a_damaged_header(tmp_path):
    file_of(tmp_path / "x", {"n" * 3000: {**ONE, "dtype": "F33"}}, b"\0" * 8)
    with pytest.raises(UserError, match="damaged safetensors file: 'nnn") as error:
        read_safetensors(tmp_path / "x")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_byte_order_mark_in_config_json(tmp_path):
    config = saved(tmp_path) / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())  # as Notepad writes it
    assert XLMR.from_pretrained(tmp_path).config == SMALL


def test_what_transformers_saves_today(tmp_path, tiny):
    """One file, shards, an encoder without head, save_model; with a tokenizer.json."""
    transformers = pytest.importorskip("transformers")
    save_model = pytest.importorskip("safetensors.torch").save_model
    torch.manual_seed(0)
    tokenizer = transformers.XLMRobertaTokenizer.from_pretrained(tiny)
    c = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24, max_position_embeddings=66, attn_implementation="eager")
    theirs = transformers.XLMRobertaForMaskedLM(c).eval()
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="3KB")
    theirs.roberta.save_pretrained(tmp_path / "headless")
    c.save_pretrained(tmp_path / "save_model")
    save_model(theirs, str(tmp_path / "save_model" / "model.safetensors"))
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    ids = torch.tensor([[0, 5, 9, tokenizer.mask_token_id, 7, 2], [0, 6, 2, 1, 1, 1]])
    for folder in ("whole", "shards", "save_model", "headless"):
        tokenizer.save_pretrained(tmp_path / folder)
        ours, own = load_encoder(tmp_path / folder)
        assert own.encode("apple sky") == tokenizer("apple sky")["input_ids"][1:-1]
        if folder == "headless":
            assert ours.head is None
            assert torch.equal(ours.word.weight, theirs.roberta.embeddings.word_embeddings.weight)
        else:
            assert_agree(ours, theirs, ids)


def test_no_such_encoder(tmp_path):
    with pytest.raises(UserError, match='not "pocket", nor a folder'):
        XLMR.from_pretrained(tmp_path / "nowhere")


class Payload:
    """Unpickling this runs a command."""

    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


def with_payload(marker, form):
    """Files that would run code if they were unpickled."""
    out = io.BytesIO()
    evil = {"prompt": torch.zeros(2, 2), "x": Payload(marker)}
    if form == "pickle":
        pickle.dump(evil, out)
    elif form == "torch, legacy":
        torch.save(evil, out, _use_new_zipfile_serialization=False)
    elif form == "torch":
        torch.save(evil, out)
    else:  # a sound torch file whose data.pkl is replaced
        sound = io.BytesIO()
        torch.save({"prompt": torch.zeros(2, 2)}, sound)
        with zipfile.ZipFile(sound) as old, zipfile.ZipFile(out, "w") as new:
            for info in old.infolist():
                body = old.read(info)
                if info.filename.endswith("data.pkl"):
                    body = pickle.dumps(Payload(marker))
                new.writestr(info.filename, body)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["pickle", "torch, legacy", "torch", "torch, data.pkl replaced"])
def test_a_payload_does_not_run(form, tmp_path, tiny):
    marker = tmp_path / "it_ran"
    folder = tmp_path / "encoder"
    data = with_payload(marker, form)
    folder.mkdir()
    for name in ("config.json", "sentencepiece.bpe.model"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(UserError, match="not a file of plain weights"):
        load_encoder(folder)
    (folder / "last.pt").write_bytes(data + hashlib.sha256(data).digest())
    with pytest.raises(UserError, match="damaged checkpoint"):
        load_state(folder / "last.pt")
    (folder / "model.safetensors").write_bytes(data)
    for read in (load_encoder, lambda folder: load_prompt(folder / "model.safetensors")):
        with pytest.raises(UserError, match="damaged safetensors"):
            read(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload is a real one
