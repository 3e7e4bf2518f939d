"""Public sources of pretraining text, each read into plain lines. None holds Bible text; FLORES-200 comes without SIB-200's.

`read(name, folder, languages)` brings a source's files to folder/name, unless they are there. source_codes.tsv says what
a source calls each of our languages, and so which of its files are read.
"""
import csv
from argparse import Namespace
from collections import Counter, namedtuple
from itertools import compress
from pathlib import Path

from data_scripts import sib200
from data_scripts.common import fetch
from minirosprompt import UserError
from minirosprompt.languages import load_languages

HOST = "https://raw.githubusercontent.com"
ALIGNED = (f"{HOST}/common-parallel-corpora/common-parallel-corpora/dbc2cd91df89c52dffe899efe7ea4dff63e172fc"
           "/data/common-parallel-corpora")
OPUS = f"{HOST}/Helsinki-NLP/OPUS-MT-testsets/master/datasets"
MIXED = {"ara", "bel", "bul", "est", "jav", "khm", "lav", "rus", "sqi", "tat", "vie"}  # Tatoeba's files with several labels


def read(name, folder, languages, mirror=HOST):
    """-> {code: [lines]} of those `languages` that the source has, any whitespace in a line as single spaces.

    Parallel: SOURCES[name].lines rows in every language, "" where one is missing. Else: no line empty or twice, at most
    SOURCES[name].lines, taken evenly. mirror: a host, or a folder, with the same paths. Raises UserError, naming the file.
    """
    source, texts = SOURCES[name], {}
    files = {code: [source.file.format(*theirs.split(":")) for theirs in of] for code, of in codes(name).items()}

    def bring(wanted, address=source.address):
        """wanted: {file below the address: sha256 or None} -> {file: where it lies on this machine}."""
        at = Namespace(source=address.replace(HOST, str(mirror).rstrip("/"), 1), out=Path(folder) / name)
        return fetch(at, {file: (None, sha256) for file, sha256 in wanted.items()})

    wanted = [code for code in files if code in set(languages)]
    for code, (path, lines) in source.read(files, wanted, bring).items():
        lines = [clean(line) for line in lines]
        if source.parallel:
            texts[code] = same_rows(lines, source.lines, path)
        else:
            lines = list(dict.fromkeys(filter(None, lines)))
            n = min(len(lines), source.lines)
            texts[code] = [lines[i * len(lines) // n] for i in range(n)]
    return texts


def codes(name):
    """The languages of a source -> {our code: [its codes, one for each file]}."""
    if name == "flores_nonsib":  # our codes are its codes; it has no Nigerian Pidgin
        return {code: [f"dev:{code}", f"devtest:{code}"] for code in load_languages() if code != "pcm_Latn"}
    found = {}
    with open(Path(__file__).parent / "source_codes.tsv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["source"] == name:
                found.setdefault(row["ours"], []).append(row["theirs"])
    return found


def clean(line):
    return " ".join(line.replace("\0", " ").split())


def lines_of(path):
    """A UTF-8 file -> its lines. Nothing but a line feed ends one: a stray separator must not shift the rows."""
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); delete it and try again") from None
    return lines[:-1] if lines[-1] == "" else lines


def same_rows(lines, n, path):
    if len(lines) != n:
        raise UserError(f"{path}: {len(lines):,} rows instead of {n:,}; delete it and try again")
    return lines


# Readers: (the source's files by language, languages wanted, how to bring files) -> {language: (a file to name, its lines)}


def plain(files, wanted, bring):
    paths = bring(dict.fromkeys(file for code in wanted for file in files[code]))
    return {code: (paths[files[code][-1]], [line for file in files[code] for line in lines_of(paths[file])]) for code in wanted}


def first_column(files, wanted, bring):
    """Theirs, a tab, English."""
    texts = plain(files, wanted, bring)
    return {code: (path, [line.partition("\t")[0] for line in lines]) for code, (path, lines) in texts.items()}


def commonest_label(files, wanted, bring):
    """Of a file that mixes dialects or scripts: the lines with the label that most of its lines have."""
    labels = {code: [f"{file}.labels" for file in files[code] if file.rpartition(".")[2] in MIXED] for code in wanted}
    texts, labels = plain(files, wanted, bring), plain(labels, [code for code in wanted if labels[code]], bring)
    for code, (path, of) in labels.items():
        of = [label.strip() for label in same_rows(of, len(texts[code][1]), path)]
        most = max(of, key=Counter(of).get, default=None)
        texts[code] = path, [line for line, label in zip(texts[code][1], of) if label == most]
    return texts


def without_sib(files, wanted, bring):
    taken = {clean(text) for _, _, text, _, _ in sib200.rows(bring(sib200.SHA256, sib200.URL))}
    texts = plain(files, dict.fromkeys(["eng_Latn", *wanted]), bring)
    path, english = texts["eng_Latn"]
    kept, n = [clean(line) not in taken for line in english], SOURCES["flores_nonsib"].lines
    if sum(kept) != n:
        raise UserError(f"{path}: without SIB-200's sentences it has {sum(kept):,} instead of {n:,}; delete it and try again")
    return {code: (texts[code][0], compress(same_rows(texts[code][1], len(kept), texts[code][0]), kept)) for code in wanted}


# lines: the rows of a parallel source, the most lines a language of another. {0}, {1}: the source's code, before and after ":"
Source = namedtuple("Source", "parallel licence lines address file read")
SOURCES = {
    "ntrex": Source(True, "CC BY-SA 4.0", 1997, f"{HOST}/MicrosoftTranslator/NTREX/main/NTREX-128",
                    "newstest2019-{0}.txt", plain),
    "flores_nonsib": Source(True, "CC BY-SA 4.0", 1005, ALIGNED, "flores-200-{0}/{1}.{0}", without_sib),
    "nllb_seed": Source(True, "CC BY-SA 4.0", 6193, f"{ALIGNED}/multitext-nllb-seed", "{0}", plain),
    "common_voice": Source(False, "CC0 1.0", 20_000, f"{HOST}/common-voice/common-voice/main/server/data",
                           "{0}/sentence-collector.txt", plain),
    "tatoeba": Source(False, "CC BY 2.0 FR", 20_000, f"{OPUS}/helsinki_nlp/tatoeba/testsets",
                      "{0}/tatoeba-test-v2021-08-07.{1}", commonest_label),
    "tico19": Source(False, "CC0 1.0", 20_000, f"{OPUS}/tico19/testsets", "en-{0}/tico19-test.{1}", plain),
    "gatitos": Source(False, "CC BY 4.0", 20_000, f"{HOST}/google-research/url-nlp/main/gatitos", "{0}_en.tsv", first_column),
}
