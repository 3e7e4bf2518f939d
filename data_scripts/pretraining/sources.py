"""Public sources of pretraining text, each read into plain lines.

None holds Bible text; FLORES-200 comes without SIB-200's sentences. `read(name, folder, languages)`
brings a source's files to folder/name, unless they are there. source_codes.tsv says what a source
calls each of our languages, and so which of its files are read.
"""
import csv
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from itertools import compress
from pathlib import Path
from typing import NamedTuple

from data_scripts import sib200
from data_scripts.common import fetch
from minirosprompt import UserError
from minirosprompt.io.languages import load_languages

HOST = "https://raw.githubusercontent.com"
ALIGNED = (f"{HOST}/common-parallel-corpora/common-parallel-corpora/"
           "dbc2cd91df89c52dffe899efe7ea4dff63e172fc/data/common-parallel-corpora")
OPUS = f"{HOST}/Helsinki-NLP/OPUS-MT-testsets/master/datasets"
# Tatoeba's files of these have several labels (dialects, scripts), in a file beside them.
MIXED = {"ara", "bel", "bul", "est", "jav", "khm", "lav", "rus", "sqi", "tat", "vie"}


def read(name, folder, languages, mirror=HOST):
    """-> {code: [lines]} of those `languages` that the source has.

    Any whitespace in a line becomes a single space. Parallel sources: SOURCES[name].lines rows in
    every language, "" where one is missing. Others: no line empty or twice, at most
    SOURCES[name].lines, taken evenly. mirror: a host, or a folder, with the same paths. Raises
    UserError, naming the file.
    """
    source = SOURCES[name]
    files = {}   # {code: [files below the source's address]}
    for code, of_language in codes(name).items():
        files[code] = [source.file.format(*theirs.split(":")) for theirs in of_language]

    def bring(wanted, address=source.address):
        """wanted: {file below the address: sha256 or None} -> {file: where it lies}."""
        address = address.replace(HOST, str(mirror).rstrip("/"), 1)
        place = Namespace(mirror=address, out=Path(folder) / name)
        return fetch(place, {file: (None, sha256) for file, sha256 in wanted.items()})

    wanted = [code for code in files if code in set(languages)]
    texts = {}
    for code, (path, lines) in source.read(files, wanted, bring).items():
        lines = [clean(line) for line in lines]
        if source.parallel:
            texts[code] = same_rows(lines, source.lines, path)
        else:
            texts[code] = evenly(without_repeats(lines), source.lines)
    return texts


def codes(name):
    """The languages of a source -> {our code: [its codes, one for each file]}."""
    if name == "flores_nonsib":
        # Our codes are its codes. It has all but Nigerian Pidgin.
        languages = [code for code in load_languages() if code != "pcm_Latn"]
        return {code: [f"dev:{code}", f"devtest:{code}"] for code in languages}
    found = {}
    table = Path(__file__).parent / "source_codes.tsv"
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["source"] == name:
                found.setdefault(row["ours"], []).append(row["theirs"])
    return found


# ---- lines ---------------------------------------------------------------------------------------

def clean(line):
    return " ".join(line.replace("\0", " ").split())


def without_repeats(lines):
    """The lines that are not empty, each once."""
    return list(dict.fromkeys(filter(None, lines)))


def evenly(lines, most):
    """At most so many lines, evenly spaced: a source may be sorted."""
    n = min(len(lines), most)
    return [lines[i * len(lines) // n] for i in range(n)]


def lines_of(path):
    """A UTF-8 file -> its lines.

    Nothing but a line feed ends one: a stray separator must not shift the rows.
    """
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); "
                        "delete it and try again") from None
    return lines[:-1] if lines[-1] == "" else lines


def same_rows(lines, n, path):
    """-> the lines. Raises UserError if they are not n."""
    if len(lines) != n:
        raise UserError(f"{path}: {len(lines):,} rows instead of {n:,}; delete it and try again")
    return lines


# ---- readers: how the files of a source are read -------------------------------------------------
# files: {code: [files]}, all that the source has; wanted: codes; bring: see `read`
# -> {code: (a file to name if its rows are too few, its lines)}

def plain(files, wanted, bring):
    """A sentence a line; of several files, one after the other."""
    all_files = []
    for code in wanted:
        all_files += files[code]
    paths = bring(dict.fromkeys(all_files))
    texts = {}
    for code in wanted:
        lines = []
        for file in files[code]:
            lines += lines_of(paths[file])
        texts[code] = (paths[files[code][-1]], lines)
    return texts


def first_column(files, wanted, bring):
    """Theirs, a tab, English."""
    texts = {}
    for code, (path, lines) in plain(files, wanted, bring).items():
        texts[code] = (path, [line.partition("\t")[0] for line in lines])
    return texts


def commonest_label(files, wanted, bring):
    """Of a file that mixes dialects or scripts: the lines with the label that most of them have."""
    texts = plain(files, wanted, bring)
    label_files = {}
    for code in wanted:
        mixed = [file for file in files[code] if file.rpartition(".")[2] in MIXED]
        if mixed:
            label_files[code] = [f"{file}.labels" for file in mixed]
    for code, (path, labels) in plain(label_files, list(label_files), bring).items():
        text_path, lines = texts[code]
        labels = [label.strip() for label in same_rows(labels, len(lines), path)]
        most = max(labels, key=Counter(labels).get, default=None)
        kept = [line for line, label in zip(lines, labels) if label == most]
        texts[code] = (text_path, kept)
    return texts


def without_sib(files, wanted, bring):
    """FLORES-200 without the rows whose English sentence is one of SIB-200's."""
    sib_paths = bring(sib200.SHA256, sib200.URL)
    taken = {clean(text) for _, _, text, _, _ in sib200.rows(sib_paths)}
    wanted_and_english = dict.fromkeys(["eng_Latn", *wanted])
    texts = plain(files, wanted_and_english, bring)
    path, english = texts["eng_Latn"]
    kept = [clean(line) not in taken for line in english]
    n = SOURCES["flores_nonsib"].lines
    if sum(kept) != n:
        raise UserError(f"{path}: without SIB-200's sentences it has {sum(kept):,} instead of "
                        f"{n:,}; delete it and try again")
    rest = {}
    for code in wanted:
        path, lines = texts[code]
        rest[code] = (path, list(compress(same_rows(lines, len(kept), path), kept)))
    return rest


# ---- the sources ---------------------------------------------------------------------------------

class Source(NamedTuple):
    parallel: bool   # row i is the same sentence in all its languages
    licence: str
    lines: int       # rows of a parallel source; of another the most lines a language
    address: str
    file: str        # below the address; {0} and {1}: the source's code, before and after its ":"
    read: Callable   # one of the readers above


SOURCES = {
    "ntrex": Source(True, "CC BY-SA 4.0", 1997,
                    f"{HOST}/MicrosoftTranslator/NTREX/main/NTREX-128",
                    "newstest2019-{0}.txt", plain),
    "flores_nonsib": Source(True, "CC BY-SA 4.0", 1005,
                            ALIGNED,
                            "flores-200-{0}/{1}.{0}", without_sib),
    "nllb_seed": Source(True, "CC BY-SA 4.0", 6193,
                        f"{ALIGNED}/multitext-nllb-seed",
                        "{0}", plain),
    "common_voice": Source(False, "CC0 1.0", 20_000,
                           f"{HOST}/common-voice/common-voice/main/server/data",
                           "{0}/sentence-collector.txt", plain),
    "tatoeba": Source(False, "CC BY 2.0 FR", 20_000,
                      f"{OPUS}/helsinki_nlp/tatoeba/testsets",
                      "{0}/tatoeba-test-v2021-08-07.{1}", commonest_label),
    "tico19": Source(False, "CC0 1.0", 20_000,
                     f"{OPUS}/tico19/testsets",
                     "en-{0}/tico19-test.{1}", plain),
    "gatitos": Source(False, "CC BY 4.0", 20_000,
                      f"{HOST}/google-research/url-nlp/main/gatitos",
                      "{0}_en.tsv", first_column),
}
