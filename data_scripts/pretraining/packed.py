"""Packed token files: text that is tokenised once and then read by position. corpus.py writes them, pretrain.py --corpus reads.

    tokens.bin                 every row's ids, one after the other: uint16 (uint32 for more than 65,536 pieces)
    rows.bin                   every row's number of tokens, uint16
    corpus.json                the segments in order, one a language and source, and what the files' sha256 are
    sentencepiece.bpe.model    the tokenizer they were made with

Languages follow each other; of a language the row-aligned sources come first. Row i of such a source is the same sentence in all
its languages, and a missing one has no tokens. The last rows of every segment are held out.
"""
import hashlib
import sys
from pathlib import Path

import numpy as np
import torch

from minirosprompt import UserError
from minirosprompt.io.files import read_json, write_json, writing
from minirosprompt.languages import resource_level
from minirosprompt.tokenizer import BOS, EOS, Tokenizer
from minirosprompt.io.weights import TOKENIZER_FILE

HELD_OUT = 50    # of a segment's rows the last one in so many is never trained on
LONGEST = 1000   # tokens of a row: a longer paragraph is cut


def write_packed(folder, segments, parallel, tokenizer):
    """segments: {(lang, source): lists of ids, one a row}, in any order; parallel: names of the row-aligned sources."""
    vocab, listed, hashes = tokenizer.vocab_size, [], {}
    order = sorted(segments, key=lambda key: (key[0], key[1] not in parallel, key[1]))
    with writing(folder / "tokens.bin", "wb") as tokens, writing(folder / "rows.bin", "wb") as rows:
        digests = [hashlib.sha256(), hashlib.sha256()]
        for lang, source in order:
            cut = [ids[:LONGEST] for ids in segments[lang, source]]
            parts = (np.array([i for ids in cut for i in ids], "<u2" if vocab <= 2**16 else "<u4"),
                     np.array([len(ids) for ids in cut], "<u2"))
            for file, digest, part in zip((tokens, rows), digests, parts):
                file.write(part.tobytes())
                digest.update(part.tobytes())
            listed.append({"lang": lang, "source": source, "rows": len(cut), "tokens": len(parts[0])})
    hashes = {name: digest.hexdigest() for name, digest in zip(("tokens.bin", "rows.bin"), digests)}
    hashes[TOKENIZER_FILE] = hashlib.sha256((folder / TOKENIZER_FILE).read_bytes()).hexdigest()
    write_json(folder / "corpus.json", {"vocab_size": vocab, "parallel": sorted(parallel), "sha256": hashes, "segments": listed})
    return listed


class Packed:
    """An endless stream of packed rows, as pretrain.py reads it (world.py has the other kind).

    A row holds T tokens and no padding: examples one after the other, the last one cut. An example is a span of one language, a
    few sentences long, or such a span and its translation. Languages are drawn with probability n^alpha, n their tokens.
    """

    def __init__(self, folder, batch_tokens, max_tokens, alpha, translation, seed):
        """Raises UserError if a file is missing or is not what corpus.json says."""
        if max_tokens < 16:
            raise UserError(f"--max-tokens {max_tokens}: a packed row needs at least 16")
        about, data = read_json(folder / "corpus.json"), {}
        for name in ("tokens.bin", "rows.bin", TOKENIZER_FILE):
            data[name] = (folder / name).read_bytes()
            if hashlib.sha256(data[name]).hexdigest() != about.get("sha256", {}).get(name):
                raise UserError(f"{folder / name}: damaged, or of another corpus.json; build it again with corpus.py")
        try:
            segments = about["segments"]
            tokens = np.frombuffer(data["tokens.bin"], "<u2" if about["vocab_size"] <= 2**16 else "<u4")
            lengths = np.frombuffer(data["rows.bin"], "<u2").astype(np.int64)
            langs, sources = (list(dict.fromkeys(s[key] for s in segments)) for key in ("lang", "source"))
            rows, parallel = np.array([s["rows"] for s in segments]), about["parallel"]
            in_lang = np.array([langs.index(s["lang"]) for s in segments])
            in_source = np.array([sources.index(s["source"]) for s in segments])
            self.size = {lang: sum(s["tokens"] for s in segments if s["lang"] == lang) for lang in langs}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{folder / 'corpus.json'}: not written by corpus.py; build it again") from None
        self.tokenizer = Tokenizer(folder / TOKENIZER_FILE)
        self.T, self.B, self.translation, self.seed = max_tokens, max(1, batch_tokens // max_tokens), translation, seed
        self.ids = np.append(tokens, np.array([BOS, EOS, EOS], tokens.dtype))       # special tokens are spans of it, too
        self.offset = np.append(0, lengths.cumsum())                                # (rows + 1,) where a row begins in ids
        self.first = np.append(0, rows.cumsum())                                    # (segments + 1,) a segment's first row
        self.train_end = self.first[1:] - rows // HELD_OUT                          # (segments,) its first held-out row
        self.source, self.lang = in_source, in_lang                                 # (segments,)
        self.at = np.full((len(sources), len(langs)), -1)                           # the segment of a source and language
        self.at[in_source, in_lang] = np.arange(len(segments))
        aligned = np.isin(in_source, [sources.index(name) for name in parallel])
        bounds = [self.first[:-1][in_lang == i][0] for i in range(len(langs))] + [len(lengths)]
        self.begin, self.end = np.array(bounds[:-1]), np.array(bounds[1:])          # (langs,) a language's rows
        self.aligned_end = self.begin + np.bincount(in_lang[aligned], rows[aligned], len(langs)).astype(int)
        weight = np.array([self.size[lang] for lang in langs], float) ** alpha
        self.p = weight / weight.sum()                                              # (langs,)
        self.share = dict(zip(langs, self.p.tolist()))
        rng, classes = np.random.default_rng([seed, 2**32]), resource_level(self.size)
        groups = {name: np.array([classes[lang] == name for lang in langs]) * self.p for name in ("high", "low")}
        n = max(4, 2**14 // self.T)                                                 # rows a group
        self.sample = self.rows(rng, 2 * n, self.p, translation).tolist()
        self.held_out = {name: [self.rows(rng, n, p / p.sum(), 0.0, True)] for name, p in groups.items() if p.sum()}
        if aligned.any() and len(langs) > 1:
            self.held_out["pairs"] = [self.rows(rng, n, self.p, 1.0, True)]
        self.held_out = {name: list(of[0].split(self.B)) for name, of in self.held_out.items()}

    def __str__(self):
        return f"{self.offset[-1]:,} tokens in {len(self.share)} languages"

    def pool(self, number, batches):
        """So many batches of ids (B, T). A pool depends on (seed, its number) alone."""
        return self.rows(np.random.default_rng([self.seed, number]), batches * self.B, self.p, self.translation).split(self.B)

    def look(self, model):
        return {}

    def spans(self, rng, n, p, translation, held_out):
        """-> (start, length) of n examples' first spans and of their translations (length 0: none), 4 x (n,)"""
        lang = rng.choice(len(p), n, p=p)
        pair = (rng.random(n) < translation) & (self.aligned_end > self.begin)[lang]
        last = np.where(pair, self.aligned_end[lang], self.end[lang])               # rows [begin, last) may be drawn
        from_, to = self.offset[self.begin[lang]], self.offset[last]
        row = np.searchsorted(self.offset, from_ + (rng.random(n) * (to - from_)).astype(np.int64), "right") - 1
        segment = np.searchsorted(self.first, row, "right") - 1
        stop = self.first[segment + 1] if held_out else self.train_end[segment]     # a span ends before this row
        wanted = rng.integers(self.T // 16, self.T // 2, n)                         # tokens; to the next end of a row
        end = np.minimum(np.searchsorted(self.offset, self.offset[row] + wanted), stop)
        good = (to > from_) & (row < stop) & ((row >= self.train_end[segment]) == held_out)
        other = rng.choice(len(p), n, p=self.p)                                     # the translation's language
        there = np.where(pair, self.at[self.source[segment], other], -1)
        good &= ~pair | (there >= 0) & (other != lang)
        shift = np.where(pair, self.first[there] - self.first[segment], 0)
        row, end, shift, pair = row[good], end[good], shift[good], pair[good]
        start, start2 = self.offset[row], self.offset[row + shift]
        length, length2 = self.offset[end] - start, np.where(pair, self.offset[end + shift] - start2, 0)
        room = np.where(pair, (self.T - 4) // 2, self.T - 2)
        whole = (length > 0) & (~pair | (length2 > 0))
        return start[whole], np.minimum(length, room)[whole], start2[whole], np.minimum(length2, room)[whole]

    def rows(self, rng, n, p, translation, held_out=False):
        """-> (n, T) ids: <s> A </s> or <s> A </s> </s> B </s>, one after the other; every row begins with an example."""
        filled, need = [], n * self.T
        for _ in range(1000):  # one round, unless much of what is drawn cannot be used
            draws = need // 16 * (HELD_OUT if held_out else 1) // 4 + 64
            start, length, start2, length2 = self.spans(rng, draws, p, translation, held_out)
            special = len(self.ids) - 3
            two = length2 > 0                                                       # </s> </s> B </s>, or </s> alone
            starts = np.stack([0 * start + special, start, 0 * start + special + 1, start2, 0 * start + special + 1], 1)
            lengths = np.stack([0 * start + 1, length, 1 + two, length2, 0 + two], 1)       # (examples, 5 pieces)
            take, room = [], self.T
            for whole in lengths.sum(1).tolist():
                if need:
                    take.append(min(whole, room))
                    need -= take[-1]
                    room = room - take[-1] or self.T
            if not take:
                continue
            starts, lengths, take = starts[:len(take)].ravel(), lengths[:len(take)], np.array(take)
            total, flat = lengths.sum(1), lengths.ravel()
            within = np.arange(flat.sum()) - np.repeat(flat.cumsum() - flat, flat)  # place in its piece
            kept = np.arange(total.sum()) - np.repeat(total.cumsum() - total, total) < np.repeat(take, total)
            filled.append(self.ids[(np.repeat(starts, flat) + within)[kept]])
            if room < self.T and need:
                need += self.T - room                                               # begin the broken row anew
                filled[-1] = filled[-1][:len(filled[-1]) - (self.T - room)]
            if not need:
                return torch.from_numpy(np.concatenate(filled).astype(np.int64)).view(n, self.T)
        raise UserError("the corpus has too few rows to draw from: too few held-out rows, or no translation")
