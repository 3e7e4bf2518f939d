"""Packed token files: text that is tokenised once and then read by position.

corpus.py writes them, pretrain.py --corpus reads them:

    tokens.bin                 every row's ids, one after the other: uint16 (uint32 for more than
                               65,536 pieces)
    rows.bin                   every row's number of tokens, uint16
    corpus.json                the segments in order, one a language and source, and what the
                               files' sha256 are
    sentencepiece.bpe.model    the tokenizer they were made with

Languages follow each other; of a language the row-aligned sources come first. Row i of such a
source is the same sentence in all its languages, and a missing one has no tokens. The last rows of
every segment are held out.
"""
import hashlib

import numpy as np
import torch

from minirosprompt import UserError
from minirosprompt.io.files import read_json, write_json, writing
from minirosprompt.io.languages import resource_level
from minirosprompt.io.weights import TOKENIZER_FILE
from minirosprompt.tokenizer import BOS, EOS, Tokenizer

HELD_OUT = 50    # of a segment's rows the last one in so many is never trained on
LONGEST = 1000   # tokens of a row: a longer paragraph is cut
LENGTH_TYPE = "<u2"   # of rows.bin


def token_type(vocab_size):
    """Of tokens.bin."""
    return "<u2" if vocab_size <= 2**16 else "<u4"


# ---- files ---------------------------------------------------------------------------------------

def write_packed(folder, segments, parallel, tokenizer):
    """segments: {(lang, source): lists of ids, one a row}, in any order.

    parallel: names of the row-aligned sources. -> the segments of corpus.json
    """
    def place(key):
        lang, source = key
        return lang, source not in parallel, source

    listed = []
    tokens_hash = hashlib.sha256()
    rows_hash = hashlib.sha256()
    with (writing(folder / "tokens.bin", "wb") as tokens_file,
          writing(folder / "rows.bin", "wb") as rows_file):
        for lang, source in sorted(segments, key=place):
            rows = [ids[:LONGEST] for ids in segments[lang, source]]
            tokens = []
            for ids in rows:
                tokens += ids
            token_bytes = np.array(tokens, token_type(tokenizer.vocab_size)).tobytes()
            row_bytes = np.array([len(ids) for ids in rows], LENGTH_TYPE).tobytes()
            tokens_file.write(token_bytes)
            tokens_hash.update(token_bytes)
            rows_file.write(row_bytes)
            rows_hash.update(row_bytes)
            listed.append({"lang": lang, "source": source, "rows": len(rows),
                           "tokens": len(tokens)})
    tokenizer_hash = hashlib.sha256((folder / TOKENIZER_FILE).read_bytes())
    write_json(folder / "corpus.json", {
        "vocab_size": tokenizer.vocab_size,
        "parallel": sorted(parallel),
        "sha256": {"tokens.bin": tokens_hash.hexdigest(), "rows.bin": rows_hash.hexdigest(),
                   TOKENIZER_FILE: tokenizer_hash.hexdigest()},
        "segments": listed,
    })
    return listed


def read_whole(folder, name, about):
    """-> bytes of one of the files that corpus.json (`about`) tells the sha256 of."""
    data = (folder / name).read_bytes()
    hashes = about.get("sha256")
    known = hashes.get(name) if isinstance(hashes, dict) else None
    if hashlib.sha256(data).hexdigest() != known:
        raise UserError(f"{folder / name}: damaged, or of another corpus.json; "
                        "build it again with corpus.py")
    return data


# ---- what pretrain.py reads ----------------------------------------------------------------------

class Packed:
    """An endless stream of packed rows (world.py has the other kind).

    A row of a batch holds T tokens and no padding: examples one after the other, the last one cut.
    An example is a span of one language, a few sentences long, or such a span and its translation.
    Languages are drawn with probability ~ n^alpha, n their tokens. share: {lang: probability}.
    """

    def __init__(self, folder, batch_tokens, max_tokens, alpha, translation, seed):
        """Raises UserError if a file is missing or is not what corpus.json says."""
        if max_tokens < 16:
            raise UserError(f"--max-tokens {max_tokens}: a packed row needs at least 16")
        self.T = max_tokens
        self.B = max(1, batch_tokens // max_tokens)
        self.translation = translation
        self.seed = seed
        langs = self.read(folder)
        self.tokenizer = Tokenizer(folder / TOKENIZER_FILE)
        weight = np.array([self.size[lang] for lang in langs], float) ** alpha
        self.p = weight / weight.sum()                                      # (languages,)
        self.share = dict(zip(langs, self.p.tolist()))

        # Held-out text of better and of less resourced languages, and translations, a bit of each.
        rng = np.random.default_rng([seed, 2**32])
        n = max(4, 2**14 // self.T)
        self.sample = self.rows(rng, 2 * n, self.p, translation).tolist()
        self.held_out = {}
        level = resource_level(self.size)
        for name in ("high", "low"):
            p = np.array([level[lang] == name for lang in langs]) * self.p
            if p.sum():
                held_out = self.rows(rng, n, p / p.sum(), translation=0.0, held_out=True)
                self.held_out[name] = list(held_out.split(self.B))
        if self.has_aligned.any() and len(langs) > 1:
            pairs = self.rows(rng, n, self.p, translation=1.0, held_out=True)
            self.held_out["pairs"] = list(pairs.split(self.B))

    def read(self, folder):
        """Fills in where everything lies. -> names of the languages

        Positions count in ids, rows and segments from the first of the corpus; a language, a
        source and a segment are numbers.
        """
        about = read_json(folder / "corpus.json")
        token_bytes = read_whole(folder, "tokens.bin", about)
        row_bytes = read_whole(folder, "rows.bin", about)
        read_whole(folder, TOKENIZER_FILE, about)
        try:
            segments = about["segments"]
            ids = np.frombuffer(token_bytes, token_type(about["vocab_size"]))
            lengths = np.frombuffer(row_bytes, LENGTH_TYPE).astype(np.int64)
            langs = list(dict.fromkeys(s["lang"] for s in segments))
            sources = list(dict.fromkeys(s["source"] for s in segments))
            rows = np.array([s["rows"] for s in segments])
            lang = np.array([langs.index(s["lang"]) for s in segments])
            source = np.array([sources.index(s["source"]) for s in segments])
            aligned = np.isin(source, [sources.index(name) for name in about["parallel"]])
            self.size = dict.fromkeys(langs, 0)   # {lang: number of tokens}
            for s in segments:
                self.size[s["lang"]] += s["tokens"]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{folder / 'corpus.json'}: not written by corpus.py; "
                            "build it again") from None
        # Special tokens lie behind the text, so that they are spans of ids like any other.
        self.bos = len(ids)
        self.eos = len(ids) + 1
        self.ids = np.append(ids, np.array([BOS, EOS, EOS], ids.dtype))
        self.offset = np.append(0, lengths.cumsum())            # (rows + 1,) where a row begins
        self.first = np.append(0, rows.cumsum())                # (segments + 1,) its first row
        self.train_end = self.first[1:] - rows // HELD_OUT      # (segments,) its first held-out row
        self.source = source                                    # (segments,)
        self.segment = np.full((len(sources), len(langs)), -1)  # (sources, languages), -1: none
        self.segment[source, lang] = np.arange(len(segments))
        # A language's rows are those from begin to end; row-aligned are those to aligned_end.
        begin = [self.first[:-1][lang == i][0] for i in range(len(langs))]
        aligned_rows = np.bincount(lang[aligned], rows[aligned], len(langs)).astype(int)
        self.begin = np.array(begin)                            # (languages,)
        self.end = np.append(begin[1:], len(lengths))           # (languages,)
        self.aligned_end = self.begin + aligned_rows            # (languages,)
        self.has_aligned = aligned_rows > 0                     # (languages,)
        return langs

    def __str__(self):
        return f"{self.offset[-1]:,} tokens in {len(self.share)} languages"

    def pool(self, number, batches):
        """So many batches of ids (B, T). A pool depends on (seed, its number) alone."""
        rng = np.random.default_rng([self.seed, number])
        rows = self.rows(rng, batches * self.B, self.p, self.translation)   # (batches x B, T)
        return rows.split(self.B)

    def look(self, model):
        """-> numbers for the log besides the loss: none."""
        return {}

    def describe(self, more):
        """The same in words."""
        return ""

    def spans(self, rng, n, p, translation, held_out):
        """Draws n examples and keeps those that can be used.

        p: (languages,) probability of a language; translation: share of pairs; held_out: from
        held-out rows, or from the others. -> start and length of the examples' texts in self.ids,
        start and length of their translations (length 0: none), 4 x (kept,)
        """
        # A language. Only of its row-aligned sources there are translations.
        lang = rng.choice(len(p), n, p=p)                                           # (n,)
        pair = (rng.random(n) < translation) & self.has_aligned[lang]               # (n,)

        # A row of it: the one that holds a token drawn at random, so a long row comes more often.
        begin = self.offset[self.begin[lang]]                                       # (n,)
        end = self.offset[np.where(pair, self.aligned_end[lang], self.end[lang])]   # (n,)
        token = begin + (rng.random(n) * (end - begin)).astype(np.int64)            # (n,)
        row = np.searchsorted(self.offset, token, "right") - 1                      # (n,)
        segment = np.searchsorted(self.first, row, "right") - 1                     # (n,)
        is_held_out = row >= self.train_end[segment]                                # (n,)

        # From this row on a drawn number of tokens, and on to the next end of a row; but not past
        # the last row of its kind.
        wanted = rng.integers(self.T // 16, self.T // 2, n)                         # (n,)
        after = np.searchsorted(self.offset, self.offset[row] + wanted)             # (n,)
        stop = self.first[segment + 1] if held_out else self.train_end[segment]     # (n,)
        after = np.minimum(after, stop)                                             # (n,)

        # The translation: the same rows of the same source in another language.
        other = rng.choice(len(p), n, p=self.p)                                     # (n,)
        theirs = np.where(pair, self.segment[self.source[segment], other], -1)      # (n,)
        translated = (theirs >= 0) & (other != lang)                                # (n,)
        shift = np.where(pair, self.first[theirs] - self.first[segment], 0)         # (n,) rows

        good = (end > begin) & (row < stop) & (is_held_out == held_out)             # (n,)
        good &= translated | ~pair
        row = row[good]
        after = after[good]
        shift = shift[good]
        pair = pair[good]
        start = self.offset[row]
        length = self.offset[after] - start
        their_start = self.offset[row + shift]
        their_length = np.where(pair, self.offset[after + shift] - their_start, 0)

        # A row of a batch has room for <s> A </s>, or for <s> A </s> </s> B </s>.
        room = np.where(pair, (self.T - 4) // 2, self.T - 2)
        # Of missing sentences there are rows, but no tokens.
        kept = (length > 0) & ((their_length > 0) | ~pair)
        length = np.minimum(length, room)
        their_length = np.minimum(their_length, room)
        return start[kept], length[kept], their_start[kept], their_length[kept]

    def rows(self, rng, n, p, translation, held_out=False):
        """-> ids (n, T): <s> A </s> or <s> A </s> </s> B </s>, one after the other.

        Every row begins with an example. p, translation, held_out: as in spans. Raises UserError
        if there is nothing that can be drawn.
        """
        filled = []
        need = n * self.T   # tokens still to be filled
        # A round or a few, unless much of what is drawn cannot be used.
        for _ in range(1000):
            # Enough for examples of 64 tokens. Of all rows one in HELD_OUT is held out, so it takes
            # as many more draws to hit one.
            draws = need // 16 * (HELD_OUT if held_out else 1) // 4 + 64
            starts, lengths = self.examples(*self.spans(rng, draws, p, translation, held_out))
            taken, need, broken = self.fill(lengths.sum(1), need)
            ids = self.read_examples(starts[:len(taken)], lengths[:len(taken)], taken)
            # The last row may have come out short: the next round begins it anew.
            need += broken
            filled.append(ids[:len(ids) - broken])
            if need == 0:
                ids = np.concatenate(filled).astype(np.int64)                       # (n x T,)
                return torch.from_numpy(ids).view(n, self.T)
        raise UserError("the corpus has too few rows to draw from: too few held-out rows, "
                        "or no translation")

    def examples(self, start, length, their_start, their_length):
        """Spans (examples,) -> starts and lengths (examples, 5) of an example's parts in self.ids.

        The parts: <s>, A, </s> </s> (or </s> alone), B, </s> (or nothing).
        """
        one = np.ones_like(start)
        pair = (their_length > 0).astype(start.dtype)
        starts = [self.bos * one, start, self.eos * one, their_start, self.eos * one]
        lengths = [one, length, 1 + pair, their_length, pair]
        return np.stack(starts, 1), np.stack(lengths, 1)

    def fill(self, totals, need):
        """Examples of these lengths, one after the other into rows of T: how much of each fits?

        -> (taken: of every example in use, how many of its tokens; need: tokens still to be filled;
        broken: how many tokens of a last row there are that is not full)
        """
        taken = []
        room = self.T
        for total in totals.tolist():
            if need == 0:
                break
            # The last example of a row is cut.
            taken.append(min(total, room))
            need -= taken[-1]
            room -= taken[-1]
            if room == 0:
                room = self.T
        broken = (self.T - room) if need > 0 else 0
        return np.array(taken, int), need, broken

    def read_examples(self, starts, lengths, taken):
        """Parts (examples, 5) in self.ids, of each example the first `taken` (examples,) tokens.

        -> their ids, one after the other
        """
        totals = lengths.sum(1)                                                 # (examples,)
        lengths = lengths.ravel()                                               # (examples x 5,)
        at = np.repeat(starts.ravel(), lengths) + places(lengths)               # (tokens,)
        in_use = places(totals) < np.repeat(taken, totals)                      # (tokens,)
        return self.ids[at[in_use]]


def places(lengths):
    """Places within parts of these lengths: [3, 2] -> [0, 1, 2, 0, 1]"""
    begin = lengths.cumsum() - lengths                                          # (parts,)
    return np.arange(lengths.sum()) - np.repeat(begin, lengths)
