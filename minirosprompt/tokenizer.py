"""SentencePiece model -> XLM-R ids, and back.

XLM-R's ids come from fairseq, which puts four special tokens in front, SentencePiece puts three:

    id            0     1      2     3      4 ...                last
    XLM-R        <s>  <pad>  </s>  <unk>   SentencePiece id + 1   <mask>
"""
import sentencepiece

from . import UserError
from .io.files import clean
from .io.pieces import read_model

BOS, PAD, EOS, UNK = 0, 1, 2, 3
FAIRSEQ_OFFSET = 1  # XLM-R id = SentencePiece id + 1, for every ordinary piece


class Tokenizer:
    """Text to XLM-R ids.

    The special tokens are never read out of a text: "<mask>" typed by a user is six characters.
    `mask` is the id of <mask>, `vocab_size` the number of ids (SentencePiece pieces + 2).
    """

    def __init__(self, model_file):
        """model_file: a SentencePiece model; if it is missing, tokenizer.json beside it will do.

        Raises UserError if there is neither, or it is damaged.
        """
        model = read_model(model_file)
        try:
            self.sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            fault = type(error).__name__
            raise UserError(f"{model_file}: not a SentencePiece model, "
                            f"or damaged ({fault})") from None
        pieces = self.sp.get_piece_size()
        self.mask = pieces + FAIRSEQ_OFFSET
        self.vocab_size = pieces + 2
        self.special = (BOS, PAD, EOS, UNK, self.mask)

    def encode(self, text):
        """A text (or a list of texts) -> its ids without <s> and </s>."""
        if isinstance(text, str):
            return self.xlmr_ids(self.sp.encode(clean(text)))
        # One call for all texts: SentencePiece is much faster so.
        return [self.xlmr_ids(ids) for ids in self.sp.encode([clean(t) for t in text])]

    def xlmr_ids(self, spm_ids):
        """SentencePiece's ids -> XLM-R's."""
        unk = self.sp.unk_id()
        return [i + FAIRSEQ_OFFSET if i != unk else UNK for i in spm_ids]

    def decode(self, ids):
        """Ids -> text. Special tokens are left out."""
        ordinary = [int(i) for i in ids if int(i) not in self.special]
        return self.sp.decode([i - FAIRSEQ_OFFSET for i in ordinary])

    def piece(self, i):
        """The piece behind one id, as a person reads it ("▁" marks a space)."""
        names = {BOS: "<s>", PAD: "<pad>", EOS: "</s>", UNK: "<unk>", self.mask: "<mask>"}
        return names.get(int(i)) or self.sp.id_to_piece(int(i) - FAIRSEQ_OFFSET)
