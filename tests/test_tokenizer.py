"""XLM-R's ids: the published ones, special tokens, and back to text."""
import pytest
import sentencepiece
from conftest import SHARED

from minirosprompt import UserError
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
    with pytest.raises(UserError, match="no such file"):
        Tokenizer(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer(tmp_path / "bad")
