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
from argparse import Namespace
from collections import namedtuple

import pytest
from conftest import ROOT, SHARED, refused
from filelock import FileLock
from loopback import serve

from data_scripts import common
from data_scripts.agnews import clean
from minirosprompt import UserError
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


# What real files have of characters that are not seen: spaces of all kinds, joiners, a byte-order
# mark amid the text, a line separator, a stray control.
UNSEEN = "\xa0\u200b\u200c\u200d\ufeff\u2028\x97\u3000"
TRICKY = f'They said "yes",\tand\nthen  no; <mask> </s> ’“ é{UNSEEN}.'
THREE = ("train", "dev", "test")


def sib200():
    topics = ["science/technology", "travel", "politics", "sports", "health", "entertainment"]
    topics.append("geography")
    files = {}
    for lang, split in itertools.product(("eng_Latn", "swh_Latn", "nqo_Nkoo"), THREE):
        rows = [["index_id", "category", "text"]]
        for i, label in enumerate(topics * 2):
            rows.append([i, label, f' "{lang}" {label} {i} {split} {TRICKY}'])
        # as in the real one: a text of train in test, too, and one with two topics
        if split == "test":
            rows.append([14, "travel", f' "{lang}" travel 1 train  {TRICKY}'])
        if split == "train":
            rows.append([15, "travel", rows[1][2]])
        files[f"{lang}/{split}.tsv"] = table(rows)
    return files


def dbpedia14():
    files = {"dbpedia_csv/classes.txt": b"x", "dbpedia_csv/link": None, "../evil": b"x"}
    for split, n in (("train", 300), ("test", 28)):
        rows = [[1 + i % 14, f"Title {i}", f' "{i}" is é, a thing ({split}).'] for i in range(n)]
        files[f"dbpedia_csv/{split}.csv"] = table(rows, ",")
    return {"dbpedia_csv.tgz": tar_gz(files)}


# Ampersands became spaces, got lost or are there; tags are encoded; line breaks are backslashes.
NEWS = (
    r"\\It #39;s  quot;new, quot; R amp;D for  #36;10\by &lt;b&gt;Acme&lt;/b&gt; "
    r'&lt;A HREF="http://example.org/q.aspx?t=ACM.N target=/q"&gt;ACM.N&lt;/A&gt; '
    r'&lt;F.N&gt; &lt;FONT face="verdana"\color="#666"&gt;2 &lt; 3&lt;br /&gt;ok&lt;/FONT&gt;\\'
)
TIDY_NEWS = 'It\'s "new," R&D for $10 by Acme ACM.N <F.N> 2 < 3 ok'


def agnews():
    files = {}
    for split, n in (("train", 300), ("test", 8)):
        rows = []
        for i in range(n):
            rows.append([1 + i % 4, f"Title {i}", f"{split} {i}: {NEWS}"])
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
            if code != "en-US":  # of translations there is more
                row["slot_method"] = [{"slot": "time", "method": "localization"}]
                row["judgments"] = [{"worker_id": "2", "intent_score": 1}]
            text[code] += json.dumps(row, ensure_ascii=False) + "\n"
    return {"amazon-massive-dataset-1.1.tar.gz": massive_tar(text)}


def masakhanews():
    topics = ["business", "entertainment", "health", "politics", "religion", "sports", "technology"]
    files = {}
    for code, split in itertools.product(("swa", "pcm"), THREE):
        rows = [["category", "headline", "text", "url"]]
        for i, topic in enumerate(topics):
            # an article may come again, in its split and in another, with another topic
            article = f"{code} {split if i else 'again'} {TRICKY}\n\n {TRICKY} "
            rows.append([topic, f'"Headline" {topic}', article, f"http://example.org/?a={i}"])
        rows.append(rows[1])
        files[f"{code}/{split}.tsv"] = table(rows)
    return files


def taxi1500():
    labels = ["Recommendation", "Faith", "Description", "Sin", "Grace", "Violence"]
    text = ""
    for i, label in enumerate(labels):
        text += f'4000{i}\t{label}\t" And number {i} , {label} .\n'
    # the real files' last lines have no end
    return {f"eng_{split}.tsv": text.removesuffix("\n").encode() for split in THREE}


# What a data set's host has, flags, how many rows train, dev and test get, how many classes and
# languages, and one text that must come out.
Set = namedtuple("Set", "make flags rows C L text")
SETS = {
    "sib200": Set(sib200, ["--languages", "eng_Latn,swh_Latn,nqo_Nkoo"], (45, 42, 45), 7, 3,
                  f' "nqo_Nkoo" sports 10 train {TRICKY}'),
    "dbpedia14": Set(dbpedia14, [], (297, 3, 28), 14, 1, '"7" is é, a thing (train).'),
    "agnews": Set(agnews, [], (297, 3, 8), 4, 1, f"Title 7. train 7: {TIDY_NEWS}"),
    "mtop": Set(mtop, [], (66, 66, 66), 11, 6, 'th "say 10'),
    "massive": Set(massive, ["--languages", "eng_Latn,swh_Latn,zho_Hant"], (54, 54, 54), 18, 3,
                   "zh-TW weather ü train"),
    "masakhanews": Set(masakhanews, ["--languages", "swh_Latn,pcm_Latn"], (16, 16, 16), 7, 2,
                       f'"Headline" sports\npcm train {TRICKY}\n\n {TRICKY} '),
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


def put(folder, files):
    for file, body in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(body)


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
    "sib200, a column too many": ("sib200", lambda b: b + b"1\ttravel\ta\tb\n",
                                  "3 columns expected, not 4"),
    "sib200, a lone mark": ("sib200", lambda b: b + b'1\ttravel\t"a\n2\ttravel\tb\n',
                            "a quotation mark opens a text here, and none closes it"),
    "sib200, two": ("sib200", lambda b: b + b'1\ttravel\t"a\n2\ttravel\tb"\n',
                    "over what look like rows of their own"),
    "sib200, an unknown class": ("sib200", lambda b: b + b"1\tmusic\ta\n", "unknown class 'music'"),
    "sib200, not UTF-8": ("sib200", lambda b: b + b"1\ttravel\tcaf\xe9\n", "tsv: not UTF-8 (byte"),
    "sib200, NUL": ("sib200", lambda b: b + b"1\ttravel\t\0\n", None),
    "dbpedia14, cut": ("dbpedia14", lambda b: b[:-200],
                       "not a whole, plain .zip or .tar.gz archive"),
    "dbpedia14, no archive": ("dbpedia14", lambda b: b"<html>", "not a whole, plain"),
    "dbpedia14, member missing": ("dbpedia14", lambda b: dbpedia_tar(ROW),
                                  "no plain file dbpedia_csv/test.csv"),
    "dbpedia14, member is a link": ("dbpedia14", lambda b: dbpedia_tar(None, ROW),
                                    "no plain file dbpedia_csv/train.csv"),
    "dbpedia14, label 15": ("dbpedia14", lambda b: dbpedia_tar(b'15,"a","b"\n', b""),
                            "train.csv: line 1: '15' is not a label from 1 to 14"),
    "dbpedia14, a lone mark": ("dbpedia14", lambda b: dbpedia_tar(ROW + b'1,"a","b\n', ROW),
                               "train.csv: line 2: a quotation mark opens a text"),
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
        refused(done, "line contains NUL")


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
        ("sib200", ["--languages", "xx"],
         "--languages: xx not among ace_Arab, ace_Latn, acm_Arab, acq_Arab, aeb_Arab, afr_Latn, "
         "ajp_Arab, aka_Latn, als_Latn, amh_Ethi, … and 195 more"),
        ("sib200", ["--limit", "0"], "--limit"),
        ("massive", ["--languages", "ibo_Latn"], "--languages: ibo_Latn not among"),
        ("agnews", ["--mirror", "nowhere"],
         "--mirror nowhere: no file nowhere/train.csv; below that folder 2 of 2 files are missing: "
         "train.csv, test.csv"),
        ("sib200", ["--mirror", "nowhere"],
         "615 of 615 files are missing: ace_Arab/train.tsv, ace_Latn/train.tsv, "),
        ("agnews", ["--mirror", "ftp://example.org"], "begins with https"),
        ("taxi1500", ["--languages", "eng_Latn"], "--languages"),
    ],
)
def test_bad_flags(run_script, name, flags, words):
    refused(run_script(f"data_scripts/{name}.py", *flags), words)


def test_what_others_have_written_is_not_overwritten(tmp_path):
    """A labels.json that somebody has edited; a table that lies there without one: a mirror's."""
    args = Namespace(mirror="m", out=tmp_path, limit=None, drop_duplicates=False)
    rows = [(split, split, "a text", "sports", "eng_Latn") for split in common.SPLITS]
    common.build(args, {"sports": ["sports"]}, rows)
    common.build(args, {"sports": ["sports"]}, rows)  # again: nothing is lost
    labels = tmp_path / "labels.json"
    labels.write_text('{"sports": {"eng_Latn": ["mine"]}}')
    with pytest.raises(UserError, match="labels.json: somebody has changed it"):
        common.build(args, {"sports": ["sports"]}, rows)
    assert "mine" in labels.read_text()
    labels.unlink()
    with pytest.raises(UserError, match="train.tsv: not this script's"):
        common.build(args, {"sports": ["sports"]}, rows)


@pytest.mark.parametrize("name", ["train", "dev", "test", "sentences"])
def test_tables_of_others_are_not_overwritten(run_script, tmp_path, name):
    put(tmp_path / "from", taxi1500())
    (tmp_path / "mine").mkdir()
    (tmp_path / f"mine/{name}.tsv").write_text("mine")
    done = run_script("data_scripts/taxi1500.py", "--mirror", "from", "--out", "mine")
    refused(done, f"mine/{name}.tsv: not this script's")
    assert [p.name for p in (tmp_path / "mine").glob("*.*") if p.name != ".lock"] == [f"{name}.tsv"]


def test_one_folder_for_one_script_at_a_time(host, run_script, tmp_path):
    put(tmp_path / "from", taxi1500())
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        for mirror in ("from", host.url):
            done = run_script("data_scripts/taxi1500.py", "--mirror", mirror, "--out", "out")
            refused(done, "out: another process is working in it")
    assert not host.requests
    done = run_script("data_scripts/taxi1500.py", "--mirror", "from", "--out", "out")
    assert done.returncode == 0, done.stderr


def test_a_script_that_fails_leaves_no_empty_folder(host, run_script, tmp_path):
    refused(run_script("data_scripts/masakhanews.py", "--mirror", host.url, "--out", "out"), "404")
    assert not (tmp_path / "out").exists()
    put(tmp_path / "from", taxi1500() | {"eng_dev.tsv": b"no table"})
    (tmp_path / "mine").mkdir()
    for out in ("out", "mine"):
        done = run_script("data_scripts/taxi1500.py", "--mirror", "from", "--out", out)
        refused(done, "from/eng_dev.tsv: line 1: 3 columns expected, not 1")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine").exists()  # it was there before


PAGES = {"a login page": b"<html>\n<body>welcome to our network</body></html>\n", "nothing": b"",
         "not UTF-8": b"\x89PNG\xff", "one line": b"Not Found"}


@pytest.mark.parametrize("name, file", [("taxi1500", "eng_test.tsv"),
                                        ("masakhanews", "swa/dev.tsv")])
@pytest.mark.parametrize("page", PAGES)
def test_a_wrong_page_with_status_200_is_not_kept(host, run_script, tmp_path, name, file, page):
    """Before, it was: every later try failed, too, and none asked for it again."""
    files = SETS[name].make()
    host.files |= {f"/{other}": body for other, body in files.items()}
    host.files = dict.fromkeys(host.files, PAGES[page])
    flags = [f"data_scripts/{name}.py", "--mirror", host.url, "--out", "out", *SETS[name].flags]
    path = tmp_path / "out/download" / file
    done = run_script(*flags)
    refused(done, "out/download/")
    assert "not what was asked for, and deleted; look at your connection, and try" in done.stderr
    assert not (tmp_path / "out").exists()
    assert run_script(*flags).stderr == done.stderr  # all of them, so it is asked for again
    host.files |= {f"/{other}": body for other, body in files.items()}
    # left by an earlier version of this repository
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PAGES[page])
    refused(run_script(*flags), "; delete it (or all of out/download), and it is fetched anew")
    assert path.exists()
    path.unlink()
    done = run_script(*flags)
    assert done.returncode == 0, done.stderr


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
    (tmp_path / "words.tsv").write_text(table, encoding="utf-8-sig")  # as a spreadsheet may
    monkeypatch.setattr(common, "LABEL_WORDS", tmp_path / "words.tsv")
    words = common.label_words({"a": ["science", "sports"], "b": ["health"]})
    assert words == {"a": {"eng_Latn": ["science", "sport"], "new_Latn": ["sayans"]},
                     "b": {"eng_Latn": ["health"]}}


# ---- what the summary says -----------------------------------------------------------------------

REPEATS = [  # (split, id, text, label, lang)
    ("train", "1", "one text", "a", "eng_Latn"),
    ("train", "2", "one  text ", "a", "eng_Latn"),           # twice
    ("train", "3", "of two classes", "a", "eng_Latn"),
    ("train", "4", "of two classes", "b", "eng_Latn"),       # twice, and of two classes
    ("train", "5", "in test, too", "a", "eng_Latn"),
    ("train", "6", "in dev, too", "a", "eng_Latn"),
    ("train", "7", "of two classes", "b", "grc_Grek"),       # another language
    ("dev", "8", "in dev, too", "a", "eng_Latn"),
    ("dev", "9", "in dev and test", "a", "eng_Latn"),
    ("test", "10", "in dev and test", "a", "eng_Latn"),
    ("test", "11", "in test, too", "b", "eng_Latn"),         # of two classes
    ("test", "12", "in test, too", "b", "eng_Latn"),         # twice
    ("train", "13", " ", "a", "eng_Latn"),
    ("train", "14", " ", "a", "eng_Latn"),
]
CLASSES = {"a": ["science"], "b": ["sports"]}


def built(monkeypatch, folder, *flags, rows=REPEATS):
    """A data set of these rows. -> {split: the ids in its table}"""
    monkeypatch.setattr(sys, "argv", ["mine.py", "--out", str(folder), *flags])
    args = common.arguments("", "https://example.org")
    common.build(args, CLASSES, iter(rows))
    return {split: [e.id for e in load_split(folder, split)] for split in THREE}


def test_repeats_and_contradictions_are_counted(tmp_path, monkeypatch, capsys):
    ids = built(monkeypatch, tmp_path)
    assert list(map(len, ids.values())) == [7, 2, 3]
    said = capsys.readouterr().out
    assert ("texts twice in one split: train 2, dev 0, test 1; in two: test and train 1, "
            "dev and train 1, dev and test 1; with several classes: 2\n") in said
    assert said.index("--drop-duplicates leaves these out of train\n")
    assert "left out: 2 empty texts\n" in said
    # what is not written is not counted
    built(monkeypatch, tmp_path, "--limit", "1")
    assert "no text comes twice\n" in capsys.readouterr().out
    alone = [row for row in REPEATS if row[1] in ("1", "3", "8", "10")]
    built(monkeypatch, tmp_path, rows=alone)
    assert "no text comes twice\n" in capsys.readouterr().out


def test_drop_duplicates(tmp_path, monkeypatch, capsys):
    """Train alone loses texts: second copies, those of two classes, those of dev or test."""
    ids = built(monkeypatch, tmp_path, "--drop-duplicates")
    assert ids == {"train": ["1", "7"], "dev": ["8", "9"], "test": ["10", "11", "12"]}
    said = capsys.readouterr().out
    assert "left out: 5 texts of train (--drop-duplicates)\n" in said
    assert "left out: 2 empty texts\n" in said
    assert ("train 0, dev 0, test 1; in two: test and train 0, dev and train 0, "
            "dev and test 1; with several classes: 0\n") in said
    assert "leaves these out" not in said


def test_a_language_that_the_tables_do_not_know(tmp_path, monkeypatch, capsys):
    """As in a script of one's own: its script is its code's, and the summary says what it lacks."""
    built(monkeypatch, tmp_path)
    (greek,) = [e for e in load_split(tmp_path, "train") if e.lang == "grc_Grek"]
    assert greek.columns["script"] == "Grek"
    assert greek.columns["xlmr"] == "unknown"
    said = capsys.readouterr().out
    assert "not in languages.tsv (1): grc_Grek\n" in said
    assert "without label words of their own (1): grc_Grek\n" in said


def test_a_scripts_summary(run_script, tmp_path):
    """The real sets' repeats and gaps, in their fixtures."""
    for name in ("sib200", "masakhanews", "agnews"):
        for file, body in SETS[name].make().items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(body)
    said = {}
    for name in ("sib200", "masakhanews", "agnews"):
        done = run_script(f"data_scripts/{name}.py", "--mirror", name, *SETS[name].flags)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert "without label words of their own (1): nqo_Nkoo\n" in said["sib200"]
    assert "without label words of their own (1): pcm_Latn\n" in said["masakhanews"]
    assert "without label words" not in said["agnews"]
    assert ("train 3, dev 0, test 0; in two: test and train 3, dev and train 0, dev and test 0; "
            "with several classes: 3\n") in said["sib200"]
    assert ("train 2, dev 2, test 2; in two: test and train 2, dev and train 2, dev and test 2; "
            "with several classes: 0\n") in said["masakhanews"]
    assert "no text comes twice\n" in said["agnews"]


@pytest.mark.parametrize(
    "text, tidy",
    [
        ("The world #39;s  quot;largest quot; firm", 'The world\'s "largest" firm'),
        ("It#39;s R amp;D,  amp;c.", "It's R&D, &c."),
        ("Q &amp; A &lt;3", "Q & A <3"),
        (" lt;p gt;one lt;/p gt;two", "one two"),
        ("for  #36;10; a #151; b", "for $10; a— b"),
        ("ranked #2; a result; the default; one stamp;",) * 2,
        ("1 &lt; 2 and 3 &gt; 2", "1 < 2 and 3 > 2"),
        ("&lt;B.N&gt;, &lt;A&gt;x&lt;/a&gt;", "<B.N>, x"),
        ("&lt;strong&gt;Bold&lt;/strong&gt;, &lt;em&gt;he&lt;/em&gt;", "Bold, he"),
        ("one&lt;BR/&gt;two&lt;img src=x&gt;three", "one two three"),
        ("a\\\\b\\", "a b"),
        # entities by other names, and escaped twice
        ("A vote &amp;mdash; the third  mdash; due hellip; now", "A vote — the third — due… now"),
        ("AT&amp;amp;T,  amp;quot;deep quot;, &amp;quot;deep&amp;quot;", 'AT&T, "deep", "deep"'),
        ("Jos eacute; and Caf&eacute;  ndash; se ntilde;or", "José and Café – señor"),
        ("Free trade; the euro; an acute; a raging bull; and; or; a copy; the pound;",) * 2,
        ("Barnes &amp;notable, R&amp;D", "Barnes &notable, R&D"),
        # what is no text, and tags of any kind
        ("one &lt;!-- a > b --&gt;two&lt;!-- x --&gt;", "one two"),
        ("one&lt;iframe src=x width=1&gt;&lt;/iframe&gt;two", "one two"),
        ('&lt;img alt="a > b" src=x&gt;one &lt;a href="x>two&lt;/a&gt; "three" &lt;b&gt;four',
         'one two "three" four'),
        ("&lt;script type=x&gt;if (a < b) go()&lt;/script&gt;one", "one"),
        ("&lt;MAIN.O&gt; and &lt;HEAD&gt;x, 1 &lt; 2 p", "<MAIN.O> and x, 1 < 2 p"),
    ],
)
def test_ag_news_without_the_traces_of_web_pages(text, tidy):
    assert clean(text) == tidy
