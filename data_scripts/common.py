"""What the data set scripts share: flags, downloads, archives read without unpacking, and the files they write."""
import argparse
import csv
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minirosprompt import UserError
from minirosprompt.io.files import write_json, writing
from minirosprompt.io.cli import Parser, names, positive
from minirosprompt.io.files import write_row
from minirosprompt.languages import load_languages
from minirosprompt.io.download import download

SPLITS = ("train", "dev", "test")
MOST = 2**30  # bytes that are read from any one file of an archive


def arguments(doc, url, languages=()):
    """The flags of a data set script. doc: its docstring; url: where its files are; languages: those it has, if several."""
    p = Parser(description=doc)
    out = Path("data") / Path(sys.argv[0]).stem
    p.add_argument("--out", type=Path, default=out, help="folder to write (default: %(default)s)")
    p.add_argument("--source", default=url, help="a mirror's address, or a folder with the same files (default: %(default)s)")
    p.add_argument("--limit", type=positive, help="at most so many texts a split, language and class (default: all)")
    if languages:
        p.add_argument("--languages", type=names, default=sorted(languages), help="with commas (default: all)")
    args = p.parse_args()
    unknown = [lang for lang in getattr(args, "languages", ()) if lang not in languages]
    if unknown:
        raise UserError(f"--languages: {', '.join(unknown)} not among {', '.join(sorted(languages))}")
    return args


def fetch(args, files):
    """files: {path below --source: (bytes, sha256), either None where not known} -> {path: where it lies on this machine}."""
    if "://" not in args.source:
        found = {file: Path(args.source).expanduser() / file for file in files}
        for path in found.values():
            if not path.is_file():
                raise UserError(f"--source {args.source}: no file {path}")
        return found

    def one(file):
        return download(f"{args.source.rstrip('/')}/{file}", args.out / "download" / file, *files[file])
    with ThreadPoolExecutor(8) as pool:
        try:
            return dict(zip(files, tqdm(pool.map(one, files), total=len(files), desc="download", unit="file", delay=1)))
        except BaseException:  # the first fault ends it, not the last file
            pool.shutdown(cancel_futures=True)
            raise


def read_rows(path, columns, **csv_options):
    """A TSV (or, by csv_options, CSV) file -> lists of cells. columns: the header, or how many cells if there is none."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, **{"delimiter": "\t"} | csv_options)
            if not isinstance(columns, int) and next(reader, None) != columns:
                raise UserError(f"{path}: line 1: expected the columns {', '.join(columns)}")
            for row in reader:
                if len(row) != (columns if isinstance(columns, int) else len(columns)):
                    raise UserError(f"{path}: line {reader.line_num}: {len(row)} columns")
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a UTF-8 table ({error})") from None


def members(archive, wanted):
    """Yields (name, text) of the files `wanted` in a .zip or .tar.gz. Only these are read, and nothing is written to disk."""
    left, total = set(wanted), 0
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                for info in file.infolist():
                    if info.filename in left and info.file_size <= MOST:
                        left.remove(info.filename)
                        yield info.filename, file.read(info).decode("utf-8")
        else:
            with tarfile.open(archive, "r|gz") as file:
                for info in file:
                    total += info.size
                    if total > 8 * MOST:  # all of it has to be decompressed, wanted or not
                        raise UserError(f"{archive}: holds more than {8 * MOST:,} bytes")
                    if info.name in left and info.isreg() and info.size <= MOST:
                        left.remove(info.name)
                        yield info.name, file.extractfile(info).read().decode("utf-8")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, UnicodeError, RuntimeError) as error:
        raise UserError(f"{archive}: not a whole, plain .zip or .tar.gz archive ({type(error).__name__})") from None
    if left:
        raise UserError(f"{archive}: no plain file {sorted(left)[0]} of at most {MOST:,} bytes in it")


def label_words(concepts):
    """{class: [concepts of label_words.tsv]} -> {class: {language: [words]}}. A word of two classes speaks for neither."""
    with open(Path(__file__).parent / "label_words.tsv", encoding="utf-8", newline="") as file:
        table = {row.pop("concept"): row for row in csv.DictReader(file, delimiter="\t")}
    words = {}
    for lang in table["science"]:
        of_class = {label: {table[concept][lang] for concept in of} for label, of in concepts.items()}
        uses = Counter(word.casefold() for of in of_class.values() for word in of)
        for label, of in concepts.items():
            kept = [table[concept][lang] for concept in of if uses[table[concept][lang].casefold()] == 1]
            if kept:
                words.setdefault(label, {})[lang] = kept
    return words


def build(args, concepts, rows, columns=()):
    """Writes {train,dev,test}.tsv and labels.json to args.out, whole or not at all, and prints what they hold.

    concepts: {class: [concepts of label_words.tsv]}; rows: iterable of (split, id, text, label, lang, *columns).
    Every row also gets its language's script and class of XLM-R's pretraining text, to group by.
    """
    languages, count, lengths, empty = load_languages(), Counter(), {split: [] for split in SPLITS}, 0
    with ExitStack() as files:
        tables = {split: files.enter_context(writing(args.out / f"{split}.tsv")) for split in SPLITS}
        for table in tables.values():
            write_row(table, ["id", "text", "label", "lang", "script", "xlmr", *columns])
        for split, id_, text, label, lang, *more in tqdm(rows, desc="write", unit="row", delay=1):
            if label not in concepts:
                raise UserError(f"{args.source}: {lang} {split} {id_}: unknown class {label!r}")
            if not text.strip():
                empty += 1
            elif args.limit is None or count[split, lang, label] < args.limit:
                count[split, lang, label] += 1
                lengths[split].append(len(text))
                write_row(tables[split], [id_, text, label, lang, lang[-4:], languages[lang]["xlmr"], *more])
        for split in SPLITS:
            if not lengths[split]:
                raise UserError(f"{args.source}: not one text for {split}.tsv")
    write_json(args.out / "labels.json", label_words(concepts))

    print(f"{args.out}\nsplit      texts  languages  classes  characters: 5 %  median    95 %     max")
    for split in SPLITS:
        langs, labels = ({key[i] for key in count if key[0] == split} for i in (1, 2))
        quantiles = np.quantile(lengths[split], [0.05, 0.5, 0.95, 1])
        print(f"{split:5}{len(lengths[split]):11,}{len(langs):11}{len(labels):9}{quantiles[0]:17.0f}"
              + "".join(f"{q:8.0f}" for q in quantiles[1:]))
    total = sum(count.values())
    share = {label: sum(n for (_, _, of), n in count.items() if of == label) / total for label in concepts}
    print("classes: " + ", ".join(f"{label} {100 * n:.1f} %" for label, n in share.items()))
    for xlmr, title in (("high", "well-resourced in XLM-R"), ("low", "less-resourced in XLM-R"), ("no", "not in XLM-R")):
        langs = sorted({lang for _, lang, _ in count if languages[lang]["xlmr"] == xlmr})
        if langs:
            print(f"{title} ({len(langs)}): {' '.join(langs)}")
    if empty:
        print(f"left out: {empty} empty texts")
