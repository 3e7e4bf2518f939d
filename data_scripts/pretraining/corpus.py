"""Real text in a hundred languages -> a tokenizer and packed token files.

    python data_scripts/pretraining/corpus.py                   # from the sources' own addresses
    python data_scripts/pretraining/corpus.py --texts FOLDER    # from FOLDER/SOURCE/LANGUAGE.txt
    python data_scripts/pretraining/corpus.py --tokenizer multilingual-e5-small   # XLM-R's pieces
    python data_scripts/pretraining/pretrain.py --corpus data/corpus --out runs/mini

sources.py lists the sources; packed.py says what is written. FOLDER/SOURCE/LANGUAGE.txt holds a
sentence a line.

Languages: those that NTREX and FLORES-200 share. Row-aligned sources are taken whole; of the others
every language gets up to the same number of tokens, small sources first, so that no language and no
source drowns the rest. SIB-200's texts are not among them.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import random
import tempfile
from pathlib import Path

from tqdm import tqdm

from data_scripts.pretraining.packed import write_packed
from data_scripts.pretraining.sources import SOURCES, read, without_repeats
from data_scripts.pretraining.world import train_sentencepiece
from minirosprompt import UserError
from minirosprompt.io.cli import Parser, names, positive, whole
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.files import writing
from minirosprompt.io.languages import load_languages
from minirosprompt.io.pieces import read_model
from minirosprompt.io.weights import TOKENIZER_FILE, encoder_folder
from minirosprompt.tokenizer import Tokenizer

SAMPLE = 300_000   # lines the tokenizer is trained on


# ---- flags ---------------------------------------------------------------------------------------

def arguments():
    p = Parser(description=__doc__)
    p.add_argument("--out", type=Path, default=Path("data/corpus"),
                   help="folder to write (default: %(default)s)")
    p.add_argument("--texts", type=Path, nargs="+", help="folders with SOURCE/LANGUAGE.txt; the "
                   "sources that sources.py calls parallel are row-aligned (default: download)")
    p.add_argument("--languages", type=names, help="with commas "
                   "(default: all that every row-aligned source but NLLB-Seed has)")
    p.add_argument("--without", type=names, default=[],
                   help="sources that are left out, with commas (default: none)")
    p.add_argument("--tokenizer", help="an encoder's name or folder: its tokenizer, for "
                   "add_head.py --encoder (default: train one)")
    p.add_argument("--vocab-size", type=positive, default=40_000,
                   help="V, special tokens included, of a tokenizer that is trained "
                   "(default: 40000)")
    p.add_argument("--tokens", type=positive, default=28_000_000,
                   help="at most so many in all (default: 28000000; two bytes each, four with "
                   "more than 65,536 pieces)")
    p.add_argument("--seed", type=whole, default=0, help="of the tokenizer's sample")
    return p.parse_args()


# ---- steps ---------------------------------------------------------------------------------------
# texts: {source: {language: [lines]}}; segments: {(language, source): [ids of a line]}

def read_texts(folders, languages):
    """FOLDER/SOURCE/LANGUAGE.txt -> texts"""
    paths = []
    for folder in folders:
        paths += Path(folder).glob("*/*.txt")
    texts = {}
    for path in sorted(paths):
        source = path.parent.name
        lang = path.stem
        if lang not in languages:
            continue
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 (byte {error.start})") from None
        texts.setdefault(source, {})[lang] = content.removesuffix("\n").split("\n")
    return texts


def choose_languages(texts):
    """Those that NTREX and FLORES-200 share; or, where these are not among the texts, all."""
    shared = set(texts.get("ntrex", ())) & set(texts.get("flores_nonsib", ()))
    return shared or set().union(*texts.values())


def leave_out(texts, without):
    """-> texts but for the sources `without`. Raises UserError if one of these is not there."""
    for source in without:
        if source not in texts:
            raise UserError(f"--without {source}: not among {', '.join(texts)}")
    return {source: by_lang for source, by_lang in texts.items() if source not in without}


def restrict(texts, wanted, parallel):
    """-> the texts in the languages `wanted`, no more lines than the source may give.

    Raises UserError for a language without text, or if row-aligned texts differ in their length.
    """
    restricted = {}
    for source, by_lang in texts.items():
        most = SOURCES[source].lines if source in SOURCES else None
        of_source = {lang: lines[:most] for lang, lines in by_lang.items() if lang in wanted}
        lengths = {len(lines) for lines in of_source.values()}
        if source in parallel and len(lengths) > 1:
            raise UserError(f"{source}: row-aligned, but its languages differ in their number of "
                            "lines")
        restricted[source] = of_source
    missing = sorted(set(wanted) - set().union(*restricted.values()))
    if missing or not restricted:
        named = ", ".join(missing[:9]) or "any language"
        raise UserError(f"no text in {named}: expected FOLDER/SOURCE/LANGUAGE.txt below --texts")
    return restricted


def train_tokenizer(texts, vocab_size, rng):
    """-> XLM-R's kind of SentencePiece model, bytes.

    A language of n characters gives n^0.3 shares of the lines, as in XLM-R.
    """
    by_lang = {}
    for source in texts.values():
        for lang, lines in source.items():
            by_lang.setdefault(lang, []).extend(lines)
    weight = {lang: sum(map(len, lines)) ** 0.3 for lang, lines in by_lang.items()}
    total = sum(weight.values())
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        with open(text, "w", encoding="utf-8") as file:
            for lang, lines in sorted(by_lang.items()):
                share = round(SAMPLE * weight[lang] / total)
                sample = rng.sample(lines, min(share, len(lines)))
                file.write("\n".join(sample) + "\n")
        return train_sentencepiece(text, vocab_size, character_coverage=0.9995)


def load_tokenizer(model):
    """Bytes of a SentencePiece model -> Tokenizer"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TOKENIZER_FILE
        path.write_bytes(model)
        return Tokenizer(path)


def tokenise(texts, tokenizer, parallel):
    """texts -> segments. Row-aligned ones keep every row, others lose empty and repeated lines."""
    segments = {}
    files = sum(map(len, texts.values()))
    with tqdm(total=files, desc="tokenise", unit="file", delay=1) as bar:
        for source, by_lang in texts.items():
            for lang, lines in by_lang.items():
                if source not in parallel:
                    lines = without_repeats(lines)
                segments[lang, source] = tokenizer.encode(lines)
                bar.update()
    return segments


def within_budget(sizes, budget):
    """The largest cap so that sum(min(size, cap)) is within budget; sizes: numbers of tokens."""
    left = budget
    for i, size in enumerate(sorted(sizes)):
        cap = left // (len(sizes) - i)
        if size >= cap:
            return cap
        left -= size
    return max(sizes, default=0)


def cut_to_budget(segments, languages, parallel, budget):
    """-> (segments of at most `budget` tokens in all, the cap of a language's single texts).

    Row-aligned segments stay whole. Of the others a language keeps rows up to the cap, those of
    small sources first.
    """
    aligned = 0
    single = {lang: [] for lang in languages}   # {language: [(tokens, source)]}
    for (lang, source), rows in segments.items():
        tokens = sum(map(len, rows))
        if source in parallel:
            aligned += tokens
        else:
            single[lang].append((tokens, source))
    if aligned > budget:
        raise UserError(f"--tokens {budget}: the row-aligned text alone has {aligned}; raise it, "
                        "or name fewer --languages")
    sizes = [sum(tokens for tokens, _ in of_lang) for of_lang in single.values()]
    cap = within_budget(sizes, budget - aligned)

    cut = dict(segments)
    for lang, of_lang in single.items():
        left = cap
        for _, source in sorted(of_lang):
            kept = []
            for row in segments[lang, source]:
                if len(row) > left:
                    break
                kept.append(row)
                left -= len(row)
            cut[lang, source] = kept
    return {key: rows for key, rows in cut.items() if any(rows)}, cap


def print_table(listed, parallel):
    """listed: the segments of corpus.json. One line a source, row-aligned ones first."""
    print(f"{'source':16}{'languages':>9}{'rows':>11}{'tokens':>13}  licence")
    sources = {segment["source"] for segment in listed}
    for source in sorted(sources, key=lambda source: (source not in parallel, source)):
        of_source = [segment for segment in listed if segment["source"] == source]
        rows = sum(segment["rows"] for segment in of_source)
        tokens = sum(segment["tokens"] for segment in of_source)
        licence = SOURCES[source].licence if source in SOURCES else "see its home"
        print(f"{source:16}{len(of_source):9}{rows:11,}{tokens:13,}  {licence}")


# ---- from texts to token files -------------------------------------------------------------------

def main():
    args = arguments()
    languages = args.languages or list(load_languages())
    if args.texts:
        texts = read_texts(args.texts, languages)
    else:
        download = args.out / "download"
        texts = {source: read(source, download, languages) for source in SOURCES}
    if not args.languages:
        languages = choose_languages(texts)
    texts = leave_out(texts, args.without)
    parallel = [source for source in texts if source in SOURCES and SOURCES[source].parallel]
    texts = restrict(texts, languages, parallel)

    if args.tokenizer:
        model = read_model(encoder_folder(args.tokenizer) / TOKENIZER_FILE)
    else:
        model = train_tokenizer(texts, args.vocab_size, random.Random(args.seed))
    tokenizer = load_tokenizer(model)
    segments = tokenise(texts, tokenizer, parallel)
    segments, cap = cut_to_budget(segments, languages, parallel, args.tokens)

    with writing(args.out / TOKENIZER_FILE, "wb") as file:
        file.write(model)
    listed = write_packed(args.out, segments, parallel, tokenizer)
    tokens = sum(segment["tokens"] for segment in listed)
    print(f"{args.out}: {tokenizer.vocab_size:,} pieces, {tokens:,} tokens in {len(languages)} "
          f"languages, of single texts at most {cap:,} a language")
    print_table(listed, parallel)


if __name__ == "__main__":
    run_script(main)
