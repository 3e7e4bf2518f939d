"""What the data set scripts share.

A script reads as a recipe. It says where the files are, what they must be (size and sha256), and
which concepts of label_words.tsv make each class's label words; then it calls

    args = arguments(__doc__, URL)      the flags
    paths = fetch(args, FILES)          the files, from the network or from a folder
    build(args, CONCEPTS, rows(paths))  train.tsv, dev.tsv, test.tsv and labels.json

where its own `rows` turns a row of the files into (split, id, text, label, lang), with the help of
read_rows for tables and members for archives. taxi1500.py is the shortest one.
"""
import csv
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from minirosprompt import UserError
from minirosprompt.io.cli import Parser, names, positive, some, some_path
from minirosprompt.io.download import download
from minirosprompt.io.files import (
    listed,
    quoted_rows,
    read_json,
    read_text,
    table_lines,
    write_json,
    write_row,
    writing,
)
from minirosprompt.io.languages import kind_of
from minirosprompt.io.runs import alone_in, remove_if_empty

SPLITS = ("train", "dev", "test")
LABEL_WORDS = Path(__file__).parent / "label_words.tsv"
# Bytes that are read of any one file of an archive: a small archive can hold more than a disk.
MOST = 2**30
MOST_IN_ALL = 8 * MOST
# RuntimeError: a .zip with a password, or packed in a way that Python does not know.
BROKEN_ARCHIVE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, UnicodeError,
                  RuntimeError)


# ---- flags and files -----------------------------------------------------------------------------

def arguments(doc, url, languages=()):
    """The flags of a data set script.

    doc: its docstring; url: where its files are; languages: those that it has, if several.
    """
    p = Parser(description=doc)
    out = Path("data") / Path(sys.argv[0]).stem
    p.add_argument("--out", type=some_path, default=out,
                   help="folder to write (default: %(default)s)")
    p.add_argument("--mirror", type=some, default=url, help="a mirror's address, or a folder with "
                   "the same files (default: %(default)s)")
    p.add_argument("--limit", type=positive,
                   help="at most so many texts a split, language and class (default: all)")
    p.add_argument("--drop-duplicates", action="store_true",
                   help="leave out of train: texts that dev or test has, second copies, and texts "
                        "with several classes")
    if languages:
        p.add_argument("--languages", type=names, default=sorted(languages),
                       help="with commas (default: all)")
    args = p.parse_args()
    unknown = [lang for lang in getattr(args, "languages", ()) if lang not in languages]
    if unknown:
        raise UserError(f"--languages: {listed(unknown)} not among {listed(sorted(languages))}")
    return args


def fetch(args, files):
    """Brings files from args.mirror to args.out/download, unless the mirror is a folder.

    files: {path below the mirror: (bytes, sha256)}, either of them None where it is not known.
    -> {path below the mirror: where the file lies on this machine}. Raises UserError.
    """
    if "://" not in args.mirror:
        return find(args.mirror, files)
    # {file whose sha256 is not known: has it come just now?}, for no_wrong_page
    downloaded = vars(args).setdefault("downloaded", {})

    def bring(file):
        size, sha256 = files[file]
        address = f"{args.mirror.rstrip('/')}/{file}"
        path = args.out / "download" / file
        if sha256 is None:
            downloaded[path] = not path.exists()
        return download(address, path, size, sha256)

    with alone_in(args.out), ThreadPoolExecutor(8) as pool:
        try:
            paths = pool.map(bring, files)
            bar = tqdm(paths, total=len(files), desc="download", unit="file", delay=1)
            return dict(zip(files, bar))
        except BaseException:
            # The first fault (or Ctrl-C) ends it; else all the other files would be tried first.
            pool.shutdown(cancel_futures=True)
            raise


def find(folder, files):
    """{path below a folder: anything} -> {path: the whole path}. Raises UserError for a gap."""
    paths = {file: Path(folder).expanduser() / file for file in files}
    missing = [file for file, path in paths.items() if not path.is_file()]
    if missing:
        raise UserError(f"--mirror {folder}: no file {paths[missing[0]]}; below that folder "
                        f"{len(missing)} of {len(paths)} files are missing: {listed(missing, 4)}")
    return paths


# ---- reading -------------------------------------------------------------------------------------

def read_rows(path, columns, **csv_options):
    """Yields the rows of a TSV file (or, by csv_options, of another table) as lists of cells.

    columns: the header, or the number of cells a row if the file has no header.
    Raises UserError, naming file and line.
    """
    has_header = not isinstance(columns, int)
    width = len(columns) if has_header else columns
    lines = table_lines(read_text(path))
    if not lines:
        raise UserError(f"{path}: empty")
    if has_header and list(csv.reader(lines[:1], delimiter="\t")) != [columns]:
        raise UserError(f"{path}: line 1: expected the columns {listed(columns)}")
    rows = quoted_rows(path, lines, width, **csv_options)
    if has_header:
        next(rows)
    for _, cells in rows:
        yield cells


def members(archive, wanted):
    """Yields (name, text) of the files `wanted` in a .zip or .tar.gz.

    Only these are read, and nothing is unpacked to the disk. Raises UserError for a damaged
    archive, or if a file is missing, too large, or a link.
    """
    left = set(wanted)
    try:
        if zipfile.is_zipfile(archive):
            yield from zip_members(archive, left)
        else:
            yield from tar_members(archive, left)
    except BROKEN_ARCHIVE as error:
        raise UserError(f"{archive}: not a whole, plain .zip or .tar.gz archive "
                        f"({type(error).__name__})") from None
    if left:
        first = sorted(left)[0]
        raise UserError(f"{archive}: no plain file {first} of at most {MOST:,} bytes in it")


def zip_members(archive, left):
    """members() of a .zip. left: a set of names, from which those that are found are removed."""
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.filename in left and info.file_size <= MOST:
                left.remove(info.filename)
                yield info.filename, file.read(info).decode("utf-8-sig")


def tar_members(archive, left):
    """members() of a .tar.gz, which is decompressed from front to back."""
    total = 0
    with tarfile.open(archive, "r|gz") as file:
        for info in file:
            # To come to the next file all of this one is decompressed, wanted or not.
            total += info.size
            if total > MOST_IN_ALL:
                raise UserError(f"{archive}: holds more than {MOST_IN_ALL:,} bytes")
            if info.name in left and info.isreg() and info.size <= MOST:
                left.remove(info.name)
                yield info.name, file.extractfile(info).read().decode("utf-8-sig")


# ---- writing -------------------------------------------------------------------------------------

def check_out(args, words):
    """Raises UserError if the folder holds what somebody else has written.

    The sign of our own tables is the labels.json beside them.
    """
    path = args.out / "labels.json"
    for name in (*SPLITS, "sentences"):  # of a mirror, say
        table = args.out / f"{name}.tsv"
        if table.exists() and not path.exists():
            raise UserError(f"{table}: not this script's, and would be overwritten, or stand "
                            "beside others; choose another --out")
    if path.exists() and read_json(path) != words:
        raise UserError(f"{path}: somebody has changed it, or another version has written it; "
                        "delete it, or choose another --out")


def build(args, concepts, rows, columns=()):
    """Writes train.tsv, dev.tsv, test.tsv and labels.json to args.out; prints what they hold.

    concepts: {class: [concepts of label_words.tsv]}
    rows: iterable of (split, id, text, label, lang, *columns)
    columns: names of what a row has beyond these
    Every row also gets its language's script and level of XLM-R's pretraining text, to group by.
    The tables appear whole or not at all. Raises UserError for an unknown class or an empty split.
    """
    with alone_in(args.out), no_wrong_page(args):
        write(args, concepts, rows, columns)


@contextmanager
def no_wrong_page(args):
    """Within, a downloaded file that cannot be read is deleted, or the error says to do it.

    Otherwise the login page that a network has sent in its place would be read for ever after.
    """
    try:
        yield
    except UserError as error:
        downloaded = vars(args).get("downloaded", {})
        at_fault = [path for path in downloaded if str(error).startswith(f"{path}: ")]
        if not at_fault:
            raise
        if not downloaded[at_fault[0]]:
            raise UserError(f"{error}; delete it (or all of {args.out / 'download'}), and it is "
                            "fetched anew") from None
        for path in downloaded:  # those that came with it may be such pages, too
            if downloaded[path]:
                path.unlink(missing_ok=True)
        remove_if_empty(args.out)
        raise UserError(f"{error}: not what was asked for, and deleted; look at your connection, "
                        "and try again") from None


def write(args, concepts, rows, columns):
    """build(), in a folder of its own."""
    words = label_words(concepts)
    check_out(args, words)
    counts = Counter()                          # (split, language, class): texts written
    lengths = {split: [] for split in SPLITS}   # characters of each text written
    repeats = Repeats()
    empty = 0
    dropped = 0
    rows = tqdm(rows, desc="write", unit="row", delay=1)
    if args.drop_duplicates:
        every_row = list(rows)
        rows = without_duplicates(every_row)
        dropped = len(every_row) - len(rows)
    with ExitStack() as files:
        tables = {}
        for split in SPLITS:
            tables[split] = files.enter_context(writing(args.out / f"{split}.tsv"))
            write_row(tables[split], ["id", "text", "label", "lang", "script", "xlmr", *columns])
        for split, id_, text, label, lang, *more in rows:
            if label not in concepts:
                raise UserError(f"{args.mirror}: {lang} {split} {id_}: unknown class {label!r}")
            if not text.strip():
                empty += 1
                continue
            if args.limit is not None and counts[split, lang, label] >= args.limit:
                continue
            counts[split, lang, label] += 1
            lengths[split].append(len(text))
            repeats.add(split, text, label, lang)
            script = kind_of(lang, "script")
            level = kind_of(lang, "xlmr")
            write_row(tables[split], [id_, text, label, lang, script, level, *more])
        for split in SPLITS:
            if not lengths[split]:
                raise UserError(f"{args.mirror}: not one text for {split}.tsv")
    write_json(args.out / "labels.json", words)

    print(args.out)
    print_lengths(counts, lengths)
    print_classes(counts, concepts)
    print_languages(counts)
    print_without_words(counts, words)
    repeats.print()
    if dropped:
        print(f"left out: {dropped:,} texts of train (--drop-duplicates)")
    if empty:
        print(f"left out: {empty} empty texts")


# ---- texts that come twice -----------------------------------------------------------------------

def key_of(text, lang):
    """The same for what is one text but for its spaces. A number, for they are many."""
    return hash((lang, " ".join(text.split())))


def without_duplicates(rows):
    """The rows, but of train's those alone whose text is nowhere else and has one class.

    Of copies within train the first one stays.
    """
    elsewhere = set()
    labels = {}  # {text: its classes}
    for split, _, text, label, lang, *_ in rows:
        labels.setdefault(key_of(text, lang), set()).add(label)
        if split != "train":
            elsewhere.add(key_of(text, lang))
    kept = []
    for row in rows:
        split, _, text, _, lang, *_ = row
        key = key_of(text, lang)
        if split == "train" and text.strip():  # build counts the empty ones
            if key in elsewhere or len(labels[key]) > 1:
                continue
            elsewhere.add(key)
        kept.append(row)
    return kept


class Repeats:
    """Counts the texts of each language that come twice, in a split or in two of them."""

    def __init__(self):
        self.texts = {split: set() for split in SPLITS}
        self.within = Counter()     # split: copies beyond the first
        self.label_of = {}          # {text: the first class it came with}
        self.ambiguous = set()      # texts that came with another one, too

    def add(self, split, text, label, lang):
        key = key_of(text, lang)
        self.within[split] += key in self.texts[split]
        self.texts[split].add(key)
        if self.label_of.setdefault(key, label) != label:
            self.ambiguous.add(key)

    def print(self):
        train, dev, test = (self.texts[split] for split in SPLITS)
        if not (self.within.total() or self.ambiguous or train & dev or (train | dev) & test):
            print("no text comes twice")
            return
        within = ", ".join(f"{split} {self.within[split]:,}" for split in SPLITS)
        print(f"texts twice in one split: {within}; in two: test and train {len(test & train):,}, "
              f"dev and train {len(dev & train):,}, dev and test {len(dev & test):,}; "
              f"with several classes: {len(self.ambiguous):,}")
        if self.within["train"] or train & (dev | test | self.ambiguous):
            print("--drop-duplicates leaves these out of train")


# ---- label words ---------------------------------------------------------------------------------

def label_words(concepts):
    """{class: [concepts of label_words.tsv]} -> {class: {language: [words]}}.

    A word that two classes would share in a language speaks for neither of them.
    """
    with open(LABEL_WORDS, encoding="utf-8-sig", newline="") as file:
        table = {row.pop("concept"): row for row in csv.DictReader(file, delimiter="\t")}
    words = {}
    for lang in table["science"]:
        of_class = {}
        uses = Counter()  # word: how many classes it stands for
        for label, its_concepts in concepts.items():
            cells = [table[concept][lang] or "" for concept in its_concepts]
            of_class[label] = [word for word in cells if word.strip()]  # a language may lack some
            uses.update(word.casefold() for word in set(of_class[label]))
        for label in concepts:
            kept = [word for word in of_class[label] if uses[word.casefold()] == 1]
            if kept:
                words.setdefault(label, {})[lang] = kept
    return words


def print_lengths(counts, lengths):
    """One line a split: how many texts, languages and classes, and how long the texts are."""
    print("split      texts  languages  classes  characters: 5 %  median    95 %     max")
    for split in SPLITS:
        langs = {lang for of, lang, _ in counts if of == split}
        labels = {label for of, _, label in counts if of == split}
        short, median, long, longest = np.quantile(lengths[split], [0.05, 0.5, 0.95, 1])
        print(f"{split:5}{len(lengths[split]):11,}{len(langs):11}{len(labels):9}"
              f"{short:17.0f}{median:8.0f}{long:8.0f}{longest:8.0f}")


def print_classes(counts, concepts):
    """Each class's share of all texts: accuracy means little where one class is most of them."""
    of_class = Counter()
    for (_, _, label), n in counts.items():
        of_class[label] += n
    total = of_class.total()
    shares = [f"{label} {100 * of_class[label] / total:.1f} %" for label in concepts]
    print("classes: " + ", ".join(shares))


def print_languages(counts):
    """The languages by how much of them XLM-R was pretrained on."""
    titles = {
        "high": "well-resourced in XLM-R",
        "low": "less-resourced in XLM-R",
        "no": "not in XLM-R",
        "unknown": "not in languages.tsv",
    }
    langs = sorted({lang for _, lang, _ in counts})
    for level, title in titles.items():
        of_level = [lang for lang in langs if kind_of(lang, "xlmr") == level]
        if of_level:
            print(f"{title} ({len(of_level)}): {' '.join(of_level)}")


def print_without_words(counts, words):
    """The languages in which some class has no label word: other languages' stand in for them."""
    without = []
    for lang in sorted({lang for _, lang, _ in counts}):
        if not all(lang in of_class for of_class in words.values()):
            without.append(lang)
    if without:
        print(f"without label words of their own ({len(without)}): {' '.join(without)}")
