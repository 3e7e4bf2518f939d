"""XLM-R's ids: the published ones, special tokens, and back to text; transformers' own format."""
import base64
import json
import shutil
import warnings

import pytest
import sentencepiece
from conftest import SHARED

from minirosprompt import UserError
from minirosprompt.data import load_split
from minirosprompt.io.pieces import fields_but_pieces, read_varint
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE
from minirosprompt.tokenizer import UNK, Tokenizer


@pytest.mark.skipif(
    not (SHARED / "xlmr_spm").exists(), reason="XLM-R's own SentencePiece model is not here"
)
def test_published_ids():
    """The vectors of fairseq's XLM-R README, with <s> and </s> taken off."""
    tokenizer = Tokenizer(SHARED / "xlmr_spm" / "xlmr_rebuilt.spm.model")
    assert tokenizer.mask == 250001
    assert tokenizer.vocab_size == 250002
    published = {
        "Hello world!": [35378, 8999, 38],
        "你好，世界": [6, 124084, 4, 3221],
        "नमस्ते दुनिया": [68700, 97883, 29405],
        "مرحبا بالعالم": [665, 193478, 258, 1705, 77796],
        "Bonjour le monde": [84602, 95, 11146],
    }
    assert tokenizer.encode(list(published)) == list(published.values())


def test_ids_are_sentencepiece_ids_moved_by_one(tiny, tokenizer):
    sp = sentencepiece.SentencePieceProcessor(model_file=str(tiny / "sentencepiece.bpe.model"))
    assert tokenizer.encode("apple sky") == [i + 1 for i in sp.encode("apple sky")]
    assert tokenizer.mask == sp.get_piece_size() + 1
    assert tokenizer.vocab_size == tokenizer.mask + 1
    assert tokenizer.encode("apple ☃")[-1] == UNK  # a character the model has never seen


def test_round_trip(tokenizer):
    for text in ("apple sky sea", "你好 abc", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([0, *tokenizer.encode("apple"), tokenizer.mask, 2, 1]) == "apple"


STRANGE = ["a <mask> b", "</s><s>", "<pad>", "<unk> x", "nul\0byte", "lone \ud800 surrogate"]


@pytest.mark.parametrize("text", [*STRANGE, "😀" * 50, ""])
def test_no_text_becomes_a_special_token(tokenizer, text):
    assert not {0, 1, 2, tokenizer.mask} & set(tokenizer.encode(text))


def test_many_texts_at_once_are_the_same(tokenizer):
    texts = ["apple", "sky sea", ""]
    assert tokenizer.encode(texts) == [tokenizer.encode(t) for t in texts]


def test_bad_model(tmp_path):
    with pytest.raises(UserError, match="none: no such file, nor tokenizer.json"):
        Tokenizer(tmp_path / "none")
    for content in (b"nonsense", b"", b"\0" * 100):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(UserError, match="not a SentencePiece model"):
            Tokenizer(tmp_path / "bad")


# ---- tokenizer.json ------------------------------------------------------------------------------

ODD = ["ﬁne  Ⅷ ㎏\u3000x", "a\tb\nc", "  both ends ", "Ａｂｃ１２３", "e\u0301 ½ ﷺ", "x\u200by",
       "ทดสอบ", "한국어", "ｶﾞ", "😀👩\u200d👧", "▁a▁", "", " "]


def rules_of_normalisation(model):
    """A SentencePiece model -> its precompiled_charsmap: field 2 of field 3."""
    message = fields_but_pieces(model)
    for wanted in (3, 2):
        at = 0
        while True:
            key, at = read_varint(message, at)
            size, at = read_varint(message, at)
            if key >> 3 == wanted:
                break
            at += size
        message = message[at:at + size]
    return message


def tokenizer_json(folder):
    """What transformers 5 saves in place of sentencepiece.bpe.model, as far as it matters."""
    model = (folder / TOKENIZER_FILE).read_bytes()
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    ordinary = [[sp.id_to_piece(i), sp.get_score(i)] for i in range(3, sp.get_piece_size())]
    special = [[piece, 0.0] for piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")]
    rules = base64.b64encode(rules_of_normalisation(model)).decode()
    return {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": rules},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        ]},
        "model": {"type": "Unigram", "unk_id": 3, "byte_fallback": False,
                  "vocab": [*special[:4], *ordinary, special[4]]},
    }


def test_tokenizer_json_gives_the_same_ids(tiny, tmp_path):
    texts = ODD + STRANGE + [example.text for example in load_split("minitopics", "dev")]
    for folder in (POCKET, tiny):
        raw = tokenizer_json(folder)
        ours = Tokenizer(folder / TOKENIZER_FILE)
        older = {"type": "Sequence", "normalizers": [
            raw["normalizer"], {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
        for normalizer in (raw["normalizer"], older):
            raw["normalizer"] = normalizer
            (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
            built = Tokenizer(tmp_path / TOKENIZER_FILE)
            assert built.encode(texts) == ours.encode(texts)
            assert (built.mask, built.vocab_size) == (ours.mask, ours.vocab_size)
    # sentencepiece.bpe.model goes before it
    shutil.copy(tiny / TOKENIZER_FILE, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert Tokenizer(tmp_path / TOKENIZER_FILE).encode("apple") == ours.encode("apple")


def test_tokenizer_json_as_transformers_writes_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    shutil.copy(POCKET / TOKENIZER_FILE, tmp_path)
    theirs = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path / "saved")
    if not (tmp_path / "saved/tokenizer.json").exists():
        pytest.skip("this version of transformers writes none")
    ours = Tokenizer(tmp_path / "saved" / TOKENIZER_FILE)
    for text in ODD + [example.text for example in load_split("minitopics", "test")]:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"], text


def test_tokens_that_were_added(tiny, tmp_path):
    """By add_tokens: transformers gives them ids of their own, we read them as text."""
    raw = tokenizer_json(tiny)
    own = [{"id": i, "content": token} for i, token in enumerate(("<s>", "<pad>", "</s>", "<unk>"))]
    own.append({"id": 89, "content": "<mask>"})
    path = tmp_path / "tokenizer.json"
    for added in ([], own, None, "x", [1, {"id": 1}]):
        path.write_text(json.dumps(raw | {"added_tokens": added}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Tokenizer(tmp_path / TOKENIZER_FILE)
    path.write_text(json.dumps(raw | {"added_tokens": [*own, {"id": 90, "content": "<news>"}]}))
    with pytest.warns(UserWarning, match="1 tokens were added to XLM-R's .<news>.: here they are"):
        Tokenizer(tmp_path / TOKENIZER_FILE)


@pytest.mark.parametrize("file, content", [
    ("tokenizer.json", {"added_tokens": [{"content": "<mask>"}, {"content": "<news>"}]}),
    ("added_tokens.json", {"<news>": 90}),
    ("tokenizer_config.json", {"added_tokens_decoder": {"0": {"content": "<s>"},
                                                        "90": {"content": "<news>"}}}),
])
def test_tokens_that_were_added_beside_a_sentencepiece_model(tiny, tmp_path, file, content):
    shutil.copy(tiny / TOKENIZER_FILE, tmp_path)
    (tmp_path / file).write_text("no JSON: not this encoder's trouble")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Tokenizer(tmp_path / TOKENIZER_FILE)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 tokens were added to XLM-R's .<news>.: here they are"):
        Tokenizer(tmp_path / TOKENIZER_FILE)


def put(*path_and_value):
    """A change of tokenizer.json: one value in its depths."""
    *path, last, value = path_and_value

    def change(raw):
        for key in path:
            raw = raw[key]
        raw[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("model", "type", "BPE"),
        put("model", "vocab", {"a": 0}),
        put("model", "vocab", 0, ["<pad>", 0.0]),
        put("model", "vocab", -1, ["x", 0.0]),
        put("model", "vocab", 5, ["x"]),
        put("model", "vocab", 5, [5, 0.0]),
        put("model", "vocab", 5, ["x", "0"]),
        put("model", "vocab", 5, ["\ud800", 0.0]),
        put("model", "byte_fallback", True),
        put("model", None),
        put("normalizer", {"type": "Lowercase"}),
        put("normalizer", None),
        put("normalizer", "precompiled_charsmap", "?"),
        put("normalizer", "precompiled_charsmap", ""),
        put("pre_tokenizer", "pretokenizers", [{"type": "ByteLevel"}]),
        put("pre_tokenizer", "pretokenizers", 1, "prepend_scheme", "never"),
    ],
)
def test_another_kind_of_tokenizer_json(tiny, tmp_path, change):
    raw = tokenizer_json(tiny)
    change(raw)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(UserError, match="tokenizer.json: not XLM-R's kind.*copy sent") as error:
        Tokenizer(tmp_path / TOKENIZER_FILE)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_damaged_rules_of_normalisation(tiny, tmp_path):
    raw = tokenizer_json(tiny)
    for rules in (b"", b"xyz", b"\xff" * 100, b"\0" * 8):
        raw["normalizer"]["precompiled_charsmap"] = base64.b64encode(rules).decode()
        (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
        try:
            Tokenizer(tmp_path / TOKENIZER_FILE).encode("apple sky")
        except UserError as error:
            assert "\n" not in str(error)
