"""Every data set script against its own host's layout, with sentences made up here.

The files are served from this machine.
"""
import csv
import gzip
import hashlib
import io
import itertools
import json
import sys
import tarfile
import zipfile
from collections import namedtuple

import pytest
from conftest import ROOT, SHARED, refused
from loopback import serve

from data_scripts import common
from minirosprompt.data import load_label_words, load_split
from minirosprompt.io import download as module
from minirosprompt.io.files import read_json
from minirosprompt.io.languages import load_languages, resource_level
from minirosprompt.io.weights import POCKET


@pytest.fixture()
def host(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01,) * 4)
    with serve() as host:
        yield host


def table(rows, delimiter="\t"):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def tar_gz(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, body in files.items():
            info = tarfile.TarInfo(name)
            if body is None:
                info.type = tarfile.SYMTYPE
                info.linkname = "/etc/passwd"
                tar.addfile(info)
            else:
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return out.getvalue()


TRICKY = 'They said "yes",\tand\nthen  no; <mask> </s> ’“ é'
THREE = ("train", "dev", "test")


def sib200():
    topics = ["science/technology", "travel", "politics", "sports", "health", "entertainment"]
    topics.append("geography")
    files = {}
    for lang, split in itertools.product(("eng_Latn", "swh_Latn", "nqo_Nkoo"), THREE):
        rows = [["index_id", "category", "text"]]
        for i, label in enumerate(topics * 2):
            rows.append([i, label, f"{lang} {label} {i} {TRICKY}"])
        files[f"{lang}/{split}.tsv"] = table(rows)
    return files


def dbpedia14():
    files = {"dbpedia_csv/classes.txt": b"x", "dbpedia_csv/link": None, "../evil": b"x"}
    for split, n in (("train", 300), ("test", 28)):
        rows = [[1 + i % 14, f"Title {i}", f' About "{i}", a thing ({split}).'] for i in range(n)]
        files[f"dbpedia_csv/{split}.csv"] = table(rows, ",")
    return {"dbpedia_csv.tgz": tar_gz(files)}


def agnews():
    files = {}
    for split, n in (("train", 300), ("test", 8)):
        rows = []
        for i in range(n):
            text = f"It#39;s &lt;b&gt;new&lt;/b&gt;\\and &amp; {i}"
            rows.append([1 + i % 4, f"Title {i}", text])
        files[f"{split}.csv"] = table(rows, ",")
    return files


MTOP = list(itertools.product(("en", "de", "es", "fr", "hi", "th"), ("train", "eval", "test")))
DOMAINS = (
    "alarm", "calling", "event", "messaging", "music", "news", "people", "recipes", "reminder",
    "timer", "weather",
)


def mtop():
    files = {"mtop/LICENSE.txt": "x", "../evil": "x"}
    for code, split in MTOP:
        text = ""
        for i, domain in enumerate(DOMAINS):
            said = f'{code} "say {i}'
            text += f'{i}\tIN:SET\tslots\t{said}\t{domain}\t{code}_XX\tparse\t{{"tokens": []}}\n'
        files[f"mtop/{code}/{split}.txt"] = text
    return {"mtop.zip": zipped(files)}


MASSIVE = ("en-US", "sw-KE", "zh-TW")
SCENARIOS = (
    "alarm", "audio", "calendar", "cooking", "datetime", "email", "general", "iot", "lists",
    "music", "news", "play", "qa", "recommendation", "social", "takeaway", "transport", "weather",
)


def massive_tar(text):
    """text: {code: the .jsonl of a language}"""
    files = {"1.1/LICENSE": b"x"}
    for code in MASSIVE:
        files[f"1.1/data/{code}.jsonl"] = text[code].encode()
    return tar_gz(files)


def massive():
    text = dict.fromkeys(MASSIVE, "")
    for code in MASSIVE:
        for i, (scenario, split) in enumerate(itertools.product(SCENARIOS, THREE)):
            row = {
                "id": str(i),
                "locale": code,
                "partition": split,
                "scenario": scenario,
                "intent": f"{scenario}_set",
                "utt": f"{code} {scenario} ü {split}",
                "annot_utt": "",
                "worker_id": "1",
            }
            text[code] += json.dumps(row, ensure_ascii=False) + "\n"
    return {"amazon-massive-dataset-1.1.tar.gz": massive_tar(text)}


def masakhanews():
    topics = ["business", "entertainment", "health", "politics", "religion", "sports", "technology"]
    files = {}
    for code, split in itertools.product(("swa", "pcm"), THREE):
        rows = [["category", "headline", "text", "url"]]
        for topic in topics:
            rows.append([topic, f"Headline {topic}", f"{code} {TRICKY}", "http://example.org"])
        files[f"{code}/{split}.tsv"] = table(rows)
    return files


def taxi1500():
    labels = ["Recommendation", "Faith", "Description", "Sin", "Grace", "Violence"]
    text = ""
    for i, label in enumerate(labels):
        text += f'4000{i}\t{label}\t" And number {i} , {label} .\n'
    return {f"eng_{split}.tsv": text.encode() for split in THREE}


# What a data set's host has, flags, how many rows train, dev and test get, how many classes and
# languages, and one text that must come out.
Set = namedtuple("Set", "make flags rows C L text")
SETS = {
    "sib200": Set(sib200, ["--languages", "eng_Latn,swh_Latn,nqo_Nkoo"], (42, 42, 42), 7, 3,
                  f"nqo_Nkoo sports 10 {TRICKY}"),
    "dbpedia14": Set(dbpedia14, [], (297, 3, 28), 14, 1, 'About "7", a thing (train).'),
    "agnews": Set(agnews, [], (297, 3, 8), 4, 1, "Title 7. It's <b>new</b> and & 7"),
    "mtop": Set(mtop, [], (66, 66, 66), 11, 6, 'th "say 10'),
    "massive": Set(massive, ["--languages", "eng_Latn,swh_Latn,zho_Hant"], (54, 54, 54), 18, 3,
                   "zh-TW weather ü train"),
    "masakhanews": Set(masakhanews, ["--languages", "swh_Latn,pcm_Latn"], (14, 14, 14), 7, 2,
                       f"Headline sports\npcm {TRICKY}"),
    "taxi1500": Set(taxi1500, [], (6, 6, 6), 6, 1, '" And number 5 , Violence .'),
}


def pin(files, monkeypatch):
    """The scripts know the real files' sizes and hashes; here they become those of `files`."""
    def download(url, path, size=None, sha256=None):
        body = next((body for file, body in files.items() if url.endswith("/" + file)), b"")
        size = size and len(body)
        sha256 = sha256 and hashlib.sha256(body).hexdigest()
        return module.download(url, path, size, sha256)

    monkeypatch.setattr("data_scripts.common.download", download)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize("name", SETS)
def test_from_the_network(name, host, run_script, tmp_path, monkeypatch):
    script = f"data_scripts/{name}.py"
    make, flags, rows, C, L, text = SETS[name]
    files = make()
    pin(files, monkeypatch)
    host.files |= {f"/{name}/{file}": body for file, body in files.items()}
    first = next(iter(files))
    host.files[f"/elsewhere/{first}"] = host.files.pop(f"/{name}/{first}")
    host.moved[f"/{name}/{first}"] = f"{host.url}/elsewhere/{first}"
    host.faults[f"/elsewhere/{first}"] = [503, "cut"]
    done = run_script(script, "--mirror", f"{host.url}/{name}", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / name
    splits = {split: load_split(folder, split) for split in THREE}
    assert tuple(len(examples) for examples in splits.values()) == rows
    everything = sum(splits.values(), [])
    assert len({e.label for e in everything}) == C
    assert len({e.lang for e in everything}) == L
    assert text in {e.text for e in splits["train"]}
    for e in everything:
        assert e.columns["script"] == e.lang[-4:]
        assert e.columns["xlmr"] in ("high", "low", "no")
    words = load_label_words(folder / "labels.json")
    assert set(words) == {e.label for e in everything}
    assert all(len(of) > 40 for of in words.values())
    assert f"{folder.relative_to(tmp_path)}\n" in done.stdout
    assert f"train{rows[0]:11,}" in done.stdout
    assert "XLM-R (" in done.stdout

    # Again: nothing is asked for, and the files are the same.
    before = contents(folder)
    asked = len(host.requests)
    assert run_script(script, "--mirror", f"{host.url}/{name}", *flags).returncode == 0
    assert len(host.requests) == asked
    assert contents(folder) == before
    # From a folder: the same, too.
    from_folder = ["--mirror", folder / "download", *flags]
    local = run_script(script, *from_folder, "--out", "local")
    assert local.returncode == 0, local.stderr
    for file, body in before.items():
        assert (tmp_path / "local" / file).read_bytes() == body, file

    limited = run_script(script, *from_folder, "--out", "one", "--limit", 1)
    assert limited.returncode == 0, limited.stderr
    assert [len(load_split(tmp_path / "one", s)) for s in ("train", "test")] == [C * L] * 2


@pytest.mark.parametrize("name", ["sib200", "dbpedia14", "agnews", "mtop", "massive"])
def test_a_changed_file_is_refused(name, host, run_script, tmp_path):
    """The real hashes are pinned, so the made-up files are not what they expect."""
    host.files |= {f"/{file}": body for file, body in SETS[name].make().items()}
    done = run_script(f"data_scripts/{name}.py", "--mirror", host.url, *SETS[name].flags)
    refused(done, "size or sha256")
    assert not list(tmp_path.glob("data/*/*.tsv"))


def dbpedia_tar(train, test=None):
    files = {"dbpedia_csv/train.csv": train}
    if test is not None:
        files["dbpedia_csv/test.csv"] = test
    return tar_gz(files)


MTOP_COLUMNS = zipped({f"mtop/{code}/{split}.txt": "1\t2\n" for code, split in MTOP})
ROW = b'1,"a","b"\n'
# case: (data set, {its first file's bytes before: after}, what the line must say)
BROKEN = {
    "sib200, another header": ("sib200", lambda b: b.replace(b"index_id", b"id"),
                               "line 1: expected the columns index_id, category, text"),
    "sib200, a column too many": ("sib200", lambda b: b + b"1\ttravel\ta\tb\n", ": 4 columns"),
    "sib200, an unknown class": ("sib200", lambda b: b + b"1\tmusic\ta\n", "unknown class 'music'"),
    "sib200, not UTF-8": ("sib200", lambda b: b + b"1\ttravel\tcaf\xe9\n", "not a UTF-8 table"),
    "sib200, NUL": ("sib200", lambda b: b + b"1\ttravel\t\0\n", None),
    "dbpedia14, cut": ("dbpedia14", lambda b: b[:-200],
                       "not a whole, plain .zip or .tar.gz archive"),
    "dbpedia14, no archive": ("dbpedia14", lambda b: b"<html>", "not a whole, plain"),
    "dbpedia14, member missing": ("dbpedia14", lambda b: dbpedia_tar(ROW),
                                  "no plain file dbpedia_csv/test.csv"),
    "dbpedia14, member is a link": ("dbpedia14", lambda b: dbpedia_tar(None, ROW),
                                    "no plain file dbpedia_csv/train.csv"),
    "dbpedia14, label 15": ("dbpedia14", lambda b: dbpedia_tar(b'15,"a","b"\n', b""),
                            "a label from 1 to 14"),
    "agnews, label 0": ("agnews", lambda b: b + b'"0","a","b"\n', "'0' is not a label from 1 to 4"),
    "mtop, cut": ("mtop", lambda b: b[:-200], "not a whole, plain"),
    "mtop, columns": ("mtop", lambda b: MTOP_COLUMNS, "2 columns instead of 8"),
    "massive, no JSON": ("massive", lambda b: massive_tar(dict.fromkeys(MASSIVE, "{")),
                         "en-US.jsonl: line 1"),
    "massive, a key missing": ("massive", lambda b: massive_tar(dict.fromkeys(MASSIVE, "{}")),
                               "KeyError('partition')"),
    "massive, a list": ("massive", lambda b: massive_tar(dict.fromkeys(MASSIVE, "[1]")),
                        "line 1: TypeError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case, run_script, tmp_path):
    name, change, words = BROKEN[case]
    files = SETS[name].make()
    first = next(iter(files))
    files[first] = change(files[first])
    for file, body in files.items():
        (tmp_path / "from" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / file).write_bytes(body)
    done = run_script(f"data_scripts/{name}.py", "--mirror", "from", *SETS[name].flags)
    if words is not None:
        refused(done, words)
        assert not list(tmp_path.glob("data/*/*"))
    elif sys.version_info >= (3, 11):  # from then on Python's csv reads NUL
        assert done.returncode == 0, done.stderr
    else:
        refused(done, "not a UTF-8 table")


def test_a_bomb_is_not_unpacked(run_script, tmp_path, monkeypatch):
    """An archive that says it holds more than a file may: refused by what its header says."""
    info = tarfile.TarInfo("dbpedia_csv/train.csv")
    info.size = 2**40
    (tmp_path / "dbpedia_csv.tgz").write_bytes(gzip.compress(info.tobuf() + b"\0" * 10240))
    refused(run_script("data_scripts/dbpedia14.py", "--mirror", "."), "holds more than")


@pytest.mark.parametrize(
    "name, flags, words",
    [
        ("sib200", ["--languages", "eng_Latn,xxx_Latn"], "--languages: xxx_Latn not among"),
        ("sib200", ["--limit", "0"], "--limit"),
        ("massive", ["--languages", "ibo_Latn"], "--languages: ibo_Latn not among"),
        ("agnews", ["--mirror", "nowhere"], "--mirror nowhere: no file"),
        ("agnews", ["--mirror", "ftp://example.org"], "begins with https"),
        ("taxi1500", ["--languages", "eng_Latn"], "--languages"),
    ],
)
def test_bad_flags(run_script, name, flags, words):
    refused(run_script(f"data_scripts/{name}.py", *flags), words)


def test_the_first_fault_ends_it(host, run_script):
    refused(run_script("data_scripts/sib200.py", "--mirror", host.url), "HTTP 404")
    assert len(host.requests) < 100  # of 615 files


def test_nothing_on_the_host(host, run_script):
    refused(run_script("data_scripts/taxi1500.py", "--mirror", host.url), "HTTP 404")


def test_label_words_table():
    with open(ROOT / "data_scripts/label_words.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    langs = [lang for lang in rows[0] if lang != "concept"]
    assert len(langs) >= 50
    assert set(langs) <= set(load_languages())
    assert len({row["concept"] for row in rows}) == len(rows)
    for row in rows:
        assert all(row[lang] == row[lang].strip() != "" for lang in langs), row["concept"]


def test_languages_table():
    languages = load_languages()
    gib = {lang: float(row["cc100_gib"]) for lang, row in languages.items() if row["cc100_gib"]}
    level = resource_level(gib)
    for lang, row in languages.items():
        assert row["xlmr"] == level.get(lang, "no"), lang
        assert row["script"] == lang[-4:], lang
        assert row["family"] and row["name"], lang
    of_pocket = {lang for lang, row in languages.items() if row["pocket"] == "yes"}
    assert of_pocket == set(read_json(POCKET / "languages.json"))
    assert gib["eng_Latn"] == 300.8
    assert gib["swh_Latn"] == 1.6
    assert len(gib) == 91  # Conneau et al. 2020, table 6, less three that SIB-200 lacks
    if (SHARED / "sib200.tar.xz").exists():
        with tarfile.open(SHARED / "sib200.tar.xz") as tar:
            files = [name for name in tar.getnames() if name.endswith("train.tsv")]
        assert {name.split("/")[1] for name in files} == set(languages) - {"pcm_Latn"}


@pytest.mark.skipif(not (SHARED / "sib200.tar.xz").exists(), reason="the real SIB-200 is not here")
def test_the_real_sib200_row_for_row(run_script, tmp_path):
    given = {}
    with tarfile.open(SHARED / "sib200.tar.xz") as tar:
        for member in tar:
            if member.name.endswith(".tsv"):
                body = tar.extractfile(member).read()
                path = tmp_path / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
                _, lang, file = member.name.split("/")
                rows = csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter="\t")
                given[lang, file] = [(r["index_id"], r["category"], r["text"]) for r in rows]
    done = run_script("data_scripts/sib200.py", "--mirror", "sib200")
    assert done.returncode == 0, done.stderr
    came = {}
    for file in ("train.tsv", "dev.tsv", "test.tsv"):
        for e in load_split(tmp_path / "data/sib200", file[:-4]):
            came.setdefault((e.lang, file), []).append((e.id, e.label, e.text))
    assert came == given
    assert sum(map(len, came.values())) == 205820
    assert len({lang for lang, _ in came}) == 205


def test_a_language_that_lacks_some_words(tmp_path, monkeypatch):
    """A half-filled column of label_words.tsv, a short row at the file's end: nothing empty."""
    rows = ["concept\teng_Latn\tnew_Latn", "science\tscience\tsayans", "sports\tsport\t ",
            "health\thealth"]
    table = "\n".join(rows) + "\n"
    (tmp_path / "words.tsv").write_text(table, encoding="utf-8")
    monkeypatch.setattr(common, "LABEL_WORDS", tmp_path / "words.tsv")
    words = common.label_words({"a": ["science", "sports"], "b": ["health"]})
    assert words == {"a": {"eng_Latn": ["science", "sport"], "new_Latn": ["sayans"]},
                     "b": {"eng_Latn": ["health"]}}
