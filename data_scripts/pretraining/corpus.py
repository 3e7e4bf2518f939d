"""Real text in a hundred languages -> a tokenizer and packed token files, for data_scripts/pretrain.py --corpus.

    python data_scripts/corpus.py                                     # from the sources' own addresses (sources.py lists them)
    python data_scripts/corpus.py --texts FOLDER                      # from FOLDER/SOURCE/LANGUAGE.txt, a sentence a line

Languages: those that NTREX and FLORES-200 share. Row-aligned sources are taken whole; of the others every language gets up to the
same number of tokens, small sources first, so that no language and no source drowns the rest. SIB-200's texts are not among them.
"""
import argparse
import random
import sys
import tempfile
from pathlib import Path

import sentencepiece
from tqdm import tqdm

from minirosprompt import UserError
from minirosprompt.io.files import writing
from minirosprompt.io.cli import Parser, names, positive, run as run_script, whole
from minirosprompt.languages import load_languages
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.io.weights import TOKENIZER_FILE
from data_scripts.pretraining.packed import write_packed
from data_scripts.pretraining.sources import SOURCES, read

SAMPLE = 300_000   # lines the tokenizer is trained on


def read_texts(folders, languages):
    """FOLDER/SOURCE/LANGUAGE.txt -> {source: {language: [lines]}}"""
    texts = {}
    for path in sorted(path for folder in folders for path in Path(folder).glob("*/*.txt")):
        if path.stem in languages:
            try:
                texts.setdefault(path.parent.name, {})[path.stem] = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: not UTF-8 (byte {error.start})") from None
    return texts


def train_tokenizer(texts, vocab_size, rng):
    """-> XLM-R's kind of SentencePiece model, bytes. A language of n characters gives n^0.3 shares of the lines, as in XLM-R."""
    lines = {}
    for source in texts.values():
        for lang, of in source.items():
            lines.setdefault(lang, []).extend(of)
    weight = {lang: sum(map(len, of)) ** 0.3 for lang, of in lines.items()}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        with open(text, "w", encoding="utf-8") as file:
            for lang, of in sorted(lines.items()):
                share = round(SAMPLE * weight[lang] / sum(weight.values()))
                file.write("\n".join(rng.sample(of, min(share, len(of)))) + "\n")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(text), model_prefix=str(Path(folder) / "spm"), vocab_size=vocab_size - 2, model_type="unigram",
                normalization_rule_name="nmt_nfkc", character_coverage=0.9995, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                shuffle_input_sentence=False, num_threads=1, minloglevel=2)
        except (RuntimeError, OverflowError) as error:  # its message says how many are needed, or possible
            raise UserError(f"--vocab-size {vocab_size}: {str(error).split('] ')[-1]}") from None
        return (Path(folder) / "spm.model").read_bytes()


def within_budget(sizes, budget):
    """The largest cap so that sum(min(size, cap)) is within budget; sizes: numbers of tokens."""
    left, cap = budget, 0
    for i, size in enumerate(sorted(sizes)):
        cap = left // (len(sizes) - i)
        if size >= cap:
            return cap
        left -= size
    return max(sizes, default=0)


def main():
    p = Parser(description=__doc__)
    p.add_argument("--out", type=Path, default=Path("data/corpus"), help="folder to write (default: %(default)s)")
    p.add_argument("--texts", type=Path, nargs="+", help="folders with SOURCE/LANGUAGE.txt; the sources that sources.py calls parallel "
                                                         "are row-aligned (default: download)")
    p.add_argument("--languages", type=names, help="with commas (default: all that every row-aligned source but NLLB-Seed has)")
    p.add_argument("--vocab-size", type=positive, default=40_000, help="V, special tokens included (default: 40000)")
    p.add_argument("--tokens", type=positive, default=28_000_000, help="at most so many in all (default: 28000000, 56 MB)")
    p.add_argument("--seed", type=whole, default=0, help="of the tokenizer's sample")
    args = p.parse_args()
    wanted = args.languages or list(load_languages())
    texts = read_texts(args.texts, wanted) if args.texts else {name: read(name, args.out / "download", wanted) for name in SOURCES}
    parallel = [name for name in texts if name in SOURCES and SOURCES[name].parallel]
    if not args.languages:
        wanted = set.intersection(*(set(texts.get(name, ())) for name in ("ntrex", "flores_nonsib"))) or set().union(*texts.values())
    for name in texts:
        texts[name] = {lang: lines[:SOURCES[name].lines] if name in SOURCES else lines for lang, lines in texts[name].items()
                       if lang in wanted}
        if name in parallel and len(set(map(len, texts[name].values()))) > 1:
            raise UserError(f"{name}: row-aligned, but its languages differ in their number of lines")
    missing = sorted(set(wanted) - set().union(*texts.values()))
    if missing or not texts:
        raise UserError(f"no text in {', '.join(missing[:9]) or 'any language'}: expected FOLDER/SOURCE/LANGUAGE.txt below --texts")

    model, segments = train_tokenizer(texts, args.vocab_size, random.Random(args.seed)), {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TOKENIZER_FILE).write_bytes(model)
        tokenizer = Tokenizer(Path(folder) / TOKENIZER_FILE)
    with tqdm(total=sum(map(len, texts.values())), desc="tokenise", unit="file", delay=1) as bar:
        for source, of in texts.items():
            for lang, lines in of.items():
                segments[lang, source] = tokenizer.encode(lines if source in parallel else list(dict.fromkeys(filter(None, lines))))
                bar.update()
    size = {key: sum(map(len, rows)) for key, rows in segments.items()}
    aligned = sum(n for (_, source), n in size.items() if source in parallel)
    if aligned > args.tokens:
        raise UserError(f"--tokens {args.tokens}: the row-aligned text alone has {aligned}; raise it, or name fewer --languages")
    single = {lang: sum(n for (of, source), n in size.items() if of == lang and source not in parallel) for lang in wanted}
    cap = within_budget(list(single.values()), args.tokens - aligned)
    for lang in wanted:
        left = cap
        for n, source in sorted((n, source) for (of, source), n in size.items() if of == lang and source not in parallel):
            kept = []
            for row in segments[lang, source]:
                if len(row) > left:
                    break
                kept.append(row)
                left -= len(row)
            segments[lang, source] = kept
    segments = {key: rows for key, rows in segments.items() if any(rows)}
    with writing(args.out / TOKENIZER_FILE, "wb") as file:
        file.write(model)
    listed = write_packed(args.out, segments, parallel, tokenizer)
    print(f"{args.out}: {tokenizer.vocab_size:,} pieces, {sum(s['tokens'] for s in listed):,} tokens in {len(wanted)} languages, "
          f"of single texts at most {cap:,} a language\n{'source':16}{'languages':>9}{'rows':>11}{'tokens':>13}  licence")
    for name in sorted({s["source"] for s in listed}, key=lambda name: (name not in parallel, name)):
        of = [s for s in listed if s["source"] == name]
        print(f"{name:16}{len(of):9}{sum(s['rows'] for s in of):11,}{sum(s['tokens'] for s in of):13,}  "
              + (SOURCES[name].licence if name in SOURCES else "see its home"))


if __name__ == "__main__":
    run_script(main)
