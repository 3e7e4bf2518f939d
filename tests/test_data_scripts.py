"""Every data set script against its own host's layout: real ones served from this machine, with sentences made up here."""
import csv
import gzip
import hashlib
import io
import json
import sys
import tarfile
import zipfile

import pytest

from conftest import ROOT, SHARED
from loopback import serve
from minirosprompt import download as module
from minirosprompt.io.files import read_json
from minirosprompt.data import load_label_words, load_split
from minirosprompt.languages import load_languages
from minirosprompt.languages import resource_level
from minirosprompt.io.weights import POCKET
from test_scripts import refused


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
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
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


def sib200():
    topics = ["science/technology", "travel", "politics", "sports", "health", "entertainment", "geography"]
    return {f"{lang}/{split}.tsv": table([["index_id", "category", "text"]] + [[i, label, f"{lang} {label} {i} {TRICKY}"] for i, label in enumerate(topics * 2)])
            for lang in ("eng_Latn", "swh_Latn", "nqo_Nkoo") for split in ("train", "dev", "test")}


def dbpedia14():
    return {"dbpedia_csv.tgz": tar_gz({"dbpedia_csv/classes.txt": b"x", "dbpedia_csv/link": None, "../evil": b"x", **{
        f"dbpedia_csv/{split}.csv": table([[1 + i % 14, f"Title {i}", f' About "{i}", a thing ({split}).'] for i in range(n)], ",")
        for split, n in (("train", 300), ("test", 28))}})}


def agnews():
    return {f"{split}.csv": table([[1 + i % 4, f"Title {i}", f"It#39;s &lt;b&gt;new&lt;/b&gt;\\and &amp; {i}"] for i in range(n)], ",")
            for split, n in (("train", 300), ("test", 8))}


def mtop():
    domains = "alarm calling event messaging music news people recipes reminder timer weather".split()
    return {"mtop.zip": zipped({"mtop/LICENSE.txt": "x", "../evil": "x", **{
        f"mtop/{code}/{split}.txt": "".join(f'{i}\tIN:SET\tslots\t{code} "say {i}\t{d}\t{code}_XX\tparse\t{{"tokens": []}}\n' for i, d in enumerate(domains))
        for code in ("en", "de", "es", "fr", "hi", "th") for split in ("train", "eval", "test")}})}


SCENARIOS = ("alarm audio calendar cooking datetime email general iot lists music news play qa recommendation social takeaway transport "
             "weather").split()


def massive():
    lines = {code: "".join(json.dumps({"id": str(i), "locale": code, "partition": split, "scenario": s, "intent": f"{s}_set", "utt": f"{code} {s} ü {split}",
                                       "annot_utt": "", "worker_id": "1"}, ensure_ascii=False) + "\n"
                           for i, (s, split) in enumerate((s, p) for s in SCENARIOS for p in ("train", "dev", "test")))
             for code in ("en-US", "sw-KE", "zh-TW")}
    return {"amazon-massive-dataset-1.1.tar.gz": tar_gz({"1.1/LICENSE": b"x", **{f"1.1/data/{code}.jsonl": text.encode() for code, text in lines.items()}})}


def masakhanews():
    topics = ["business", "entertainment", "health", "politics", "religion", "sports", "technology"]
    return {f"{code}/{split}.tsv": table([["category", "headline", "text", "url"]] + [[t, f"Headline {t}", f"{code} {TRICKY}", "http://example.org"] for t in topics])
            for code in ("swa", "pcm") for split in ("train", "dev", "test")}


def taxi1500():
    labels = ["Recommendation", "Faith", "Description", "Sin", "Grace", "Violence"]
    return {f"eng_{split}.tsv": "".join(f'4000{i}\t{label}\t" And number {i} , {label} .\n' for i, label in enumerate(labels)).encode()
            for split in ("train", "dev", "test")}


# script: (what its host has, flags, rows of train / dev / test, classes, languages, one text that must come out)
SETS = {
    "sib200": (sib200, ["--languages", "eng_Latn,swh_Latn,nqo_Nkoo"], (42, 42, 42), 7, 3, f"nqo_Nkoo sports 10 {TRICKY}"),
    "dbpedia14": (dbpedia14, [], (297, 3, 28), 14, 1, 'About "7", a thing (train).'),
    "agnews": (agnews, [], (297, 3, 8), 4, 1, "Title 7. It's <b>new</b> and & 7"),
    "mtop": (mtop, [], (66, 66, 66), 11, 6, 'th "say 10'),
    "massive": (massive, ["--languages", "eng_Latn,swh_Latn,zho_Hant"], (54, 54, 54), 18, 3, "zh-TW weather ü train"),
    "masakhanews": (masakhanews, ["--languages", "swh_Latn,pcm_Latn"], (14, 14, 14), 7, 2, f"Headline sports\npcm {TRICKY}"),
    "taxi1500": (taxi1500, [], (6, 6, 6), 6, 1, '" And number 5 , Violence .'),
}


def pin(files, monkeypatch):
    """The scripts know the real files' sizes and hashes; here these become those of the files that are served."""
    def download(url, path, size=None, sha256=None):
        body = next((body for file, body in files.items() if url.endswith("/" + file)), b"")
        return module.download(url, path, size and len(body), sha256 and hashlib.sha256(body).hexdigest())
    monkeypatch.setattr("common.download", download)


@pytest.mark.parametrize("name", SETS)
def test_from_the_network(name, host, run_script, tmp_path, monkeypatch):
    make, flags, rows, C, L, text = SETS[name]
    files = make()
    pin(files, monkeypatch)
    host.files |= {f"/{name}/{file}": body for file, body in files.items()}
    first = next(iter(files))
    host.files[f"/elsewhere/{first}"] = host.files.pop(f"/{name}/{first}")
    host.moved[f"/{name}/{first}"] = f"{host.url}/elsewhere/{first}"
    host.faults[f"/elsewhere/{first}"] = [503, "cut"]
    done = run_script(f"data_scripts/{name}.py", "--source", f"{host.url}/{name}", *flags)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "data" / name
    splits = {split: load_split(folder, split) for split in ("train", "dev", "test")}
    assert tuple(len(examples) for examples in splits.values()) == rows
    everything = [e for examples in splits.values() for e in examples]
    assert len({e.label for e in everything}) == C and len({e.lang for e in everything}) == L
    assert text in {e.text for e in splits["train"]}
    assert all(e.row["script"] == e.lang[-4:] and e.row["xlmr"] in ("high", "low", "no") for e in everything)
    words = load_label_words(folder / "labels.json")
    assert set(words) == {e.label for e in everything} and all(len(of) > 40 for of in words.values())
    assert f"{folder.relative_to(tmp_path)}\n" in done.stdout and f"train{rows[0]:11,}" in done.stdout and "XLM-R (" in done.stdout

    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    asked = len(host.requests)
    assert run_script(f"data_scripts/{name}.py", "--source", f"{host.url}/{name}", *flags).returncode == 0
    assert len(host.requests) == asked and {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before  # again: the same
    local = run_script(f"data_scripts/{name}.py", "--source", folder / "download", "--out", "local", *flags)  # and from a folder
    assert local.returncode == 0 and all((tmp_path / "local" / file).read_bytes() == body for file, body in before.items()), local.stderr

    limited = run_script(f"data_scripts/{name}.py", "--source", folder / "download", "--out", "one", "--limit", 1, *flags)
    assert limited.returncode == 0 and [len(load_split(tmp_path / "one", s)) for s in ("train", "test")] == [C * L] * 2, limited.stderr


@pytest.mark.parametrize("name", ["sib200", "dbpedia14", "agnews", "mtop", "massive"])
def test_a_changed_file_is_refused(name, host, run_script, tmp_path):
    """The real hashes are pinned, so the made-up files are not what they expect."""
    host.files |= {f"/{file}": body for file, body in SETS[name][0]().items()}
    refused(run_script(f"data_scripts/{name}.py", "--source", host.url, *SETS[name][1]), "size or sha256")
    assert not list(tmp_path.glob("data/*/*.tsv"))


def broken(files, change):
    first = next(iter(files))
    return files | {first: change(files[first])}


BROKEN = {
    "sib200, another header": ("sib200", lambda b: b.replace(b"index_id", b"id"), "line 1: expected the columns index_id, category, text"),
    "sib200, a column too many": ("sib200", lambda b: b + b"1\ttravel\ta\tb\n", ": 4 columns"),
    "sib200, an unknown class": ("sib200", lambda b: b + b"1\tmusic\ta\n", "unknown class 'music'"),
    "sib200, not UTF-8": ("sib200", lambda b: b + b"1\ttravel\tcaf\xe9\n", "not a UTF-8 table"),
    "sib200, NUL": ("sib200", lambda b: b + b"1\ttravel\t\0\n", None),
    "dbpedia14, cut": ("dbpedia14", lambda b: b[:-200], "not a whole, plain .zip or .tar.gz archive"),
    "dbpedia14, no archive": ("dbpedia14", lambda b: b"<html>", "not a whole, plain"),
    "dbpedia14, member missing": ("dbpedia14", lambda b: tar_gz({"dbpedia_csv/train.csv": b'1,"a","b"\n'}), "no plain file dbpedia_csv/test.csv"),
    "dbpedia14, member is a link": ("dbpedia14", lambda b: tar_gz({"dbpedia_csv/train.csv": None, "dbpedia_csv/test.csv": b'1,"a","b"\n'}), "no plain file dbpedia_csv/train.csv"),
    "dbpedia14, label 15": ("dbpedia14", lambda b: tar_gz({"dbpedia_csv/train.csv": b'15,"a","b"\n', "dbpedia_csv/test.csv": b""}), "a label from 1 to 14"),
    "agnews, label 0": ("agnews", lambda b: b + b'"0","a","b"\n', "'0' is not a label from 1 to 4"),
    "mtop, cut": ("mtop", lambda b: b[:-200], "not a whole, plain"),
    "mtop, columns": ("mtop", lambda b: zipped({f"mtop/{c}/{s}.txt": "1\t2\n" for c in ("en", "de", "es", "fr", "hi", "th") for s in ("train", "eval", "test")}), "2 columns instead of 8"),
    "massive, no JSON": ("massive", lambda b: tar_gz({f"1.1/data/{c}.jsonl": b"{" for c in ("en-US", "sw-KE", "zh-TW")}), "en-US.jsonl: line 1"),
    "massive, a key missing": ("massive", lambda b: tar_gz({f"1.1/data/{c}.jsonl": b"{}" for c in ("en-US", "sw-KE", "zh-TW")}), "KeyError('partition')"),
    "massive, a list": ("massive", lambda b: tar_gz({f"1.1/data/{c}.jsonl": b"[1]" for c in ("en-US", "sw-KE", "zh-TW")}), "line 1: TypeError"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(case, run_script, tmp_path):
    name, change, words = BROKEN[case]
    for file, body in broken(SETS[name][0](), change).items():
        (tmp_path / "from" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / file).write_bytes(body)
    done = run_script(f"data_scripts/{name}.py", "--source", "from", *SETS[name][1])
    if words is None:  # Python's csv reads NUL from 3.11 on
        assert done.returncode == 0 if sys.version_info >= (3, 11) else refused(done, "not a UTF-8 table") is None
    else:
        refused(done, words)
        assert not list(tmp_path.glob("data/*/*"))


def test_a_bomb_is_not_unpacked(run_script, tmp_path, monkeypatch):
    """An archive that says it holds more than a file may: refused by what its header says."""
    info = tarfile.TarInfo("dbpedia_csv/train.csv")
    info.size = 2**40
    (tmp_path / "dbpedia_csv.tgz").write_bytes(gzip.compress(info.tobuf() + b"\0" * 10240))
    refused(run_script("data_scripts/dbpedia14.py", "--source", "."), "holds more than")


@pytest.mark.parametrize("name, flags, words", [
    ("sib200", ["--languages", "eng_Latn,xxx_Latn"], "--languages: xxx_Latn not among"), ("sib200", ["--limit", "0"], "--limit"),
    ("massive", ["--languages", "ibo_Latn"], "--languages: ibo_Latn not among"), ("agnews", ["--source", "nowhere"], "--source nowhere: no file"),
    ("agnews", ["--source", "ftp://example.org"], "begins with https"), ("taxi1500", ["--languages", "eng_Latn"], "--languages")])
def test_bad_flags(run_script, name, flags, words):
    refused(run_script(f"data_scripts/{name}.py", *flags), words)


def test_the_first_fault_ends_it(host, run_script):
    refused(run_script("data_scripts/sib200.py", "--source", host.url), "HTTP 404")
    assert len(host.requests) < 100  # of 615 files


def test_nothing_on_the_host(host, run_script):
    refused(run_script("data_scripts/taxi1500.py", "--source", host.url), "HTTP 404")


def test_label_words_table():
    with open(ROOT / "data_scripts/label_words.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    langs = [lang for lang in rows[0] if lang != "concept"]
    assert len(langs) >= 50 and set(langs) <= set(load_languages()) and len({row["concept"] for row in rows}) == len(rows)
    for row in rows:
        assert all(row[lang] == row[lang].strip() != "" for lang in langs), row["concept"]


def test_languages_table():
    languages = load_languages()
    gib = {lang: float(row["cc100_gib"]) for lang, row in languages.items() if row["cc100_gib"]}
    assert {lang: row["xlmr"] for lang, row in languages.items()} == {lang: resource_level(gib).get(lang, "no") for lang in languages}
    assert {lang for lang, row in languages.items() if row["pocket"] == "yes"} == set(read_json(POCKET / "languages.json"))
    assert all(row["script"] == lang[-4:] and row["family"] and row["name"] for lang, row in languages.items())
    assert gib["eng_Latn"] == 300.8 and gib["swh_Latn"] == 1.6 and len(gib) == 91  # Conneau et al. 2020, table 6, less three that SIB-200 lacks
    if (SHARED / "sib200.tar.xz").exists():
        with tarfile.open(SHARED / "sib200.tar.xz") as tar:
            assert {name.split("/")[1] for name in tar.getnames() if name.endswith("train.tsv")} == set(languages) - {"pcm_Latn"}


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
                given[lang, file] = [(r["index_id"], r["category"], r["text"]) for r in csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter="\t")]
    done = run_script("data_scripts/sib200.py", "--source", "sib200")
    assert done.returncode == 0, done.stderr
    came = {}
    for file in ("train.tsv", "dev.tsv", "test.tsv"):
        for e in load_split(tmp_path / "data/sib200", file[:-4]):
            came.setdefault((e.lang, file), []).append((e.id, e.label, e.text))
    assert came == given and sum(map(len, came.values())) == 205820 and len({lang for lang, _ in came}) == 205
