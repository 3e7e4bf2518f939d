"""sources.py: every source's files in its own layout, with sentences made up here.

The files are served from this machine.
"""
import csv
import hashlib
import io
import itertools
import tarfile

import pytest
from conftest import ROOT, SHARED
from loopback import serve

from data_scripts import sib200
from data_scripts.pretraining import sources
from data_scripts.pretraining.sources import HOST, SOURCES, codes, read
from minirosprompt import UserError
from minirosprompt.io import download as module
from minirosprompt.io.languages import load_languages

# what real files have; the third row is missing
TRICKY = "\ufeffOne\u2028line,\x85 \t three\r\n\u3000two \x00 words  \n\nlast\n"
TIDY = ["One line, three", "two words", "", "last"]
PEOPLE = ["Ada", "Bo", "Cy", "Di", "Eli", "Flo"]


@pytest.fixture()
def host(monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01,) * 4)
    with serve() as host:
        yield host


@pytest.fixture()
def lines(monkeypatch):
    """lines(name, n): the source has so many rows, or takes at most so many."""

    def set_lines(name, n):
        monkeypatch.setitem(SOURCES, name, SOURCES[name]._replace(lines=n))

    return set_lines


def put(host, name, files):
    address = SOURCES[name].address.removeprefix(HOST)
    host.files |= {f"{address}/{file}": text.encode() for file, text in files.items()}
    return {file: f"{address}/{file}" for file in files}


def asked(host):
    return [path for method, path, _ in host.requests]


ROW_ALIGNED = {  # {file: language}, in the layout of the source
    "ntrex": {
        "newstest2019-src.eng.txt": "eng_Latn",
        "newstest2019-ref.aze-Latn.txt": "azj_Latn",
        "newstest2019-ref.swa.txt": "swh_Latn",
    },
    "nllb_seed": {"eng_Latn": "eng_Latn", "taq_Tfng": "taq_Tfng", "grn_Latn": "grn_Latn"},
}


@pytest.mark.parametrize("name", ROW_ALIGNED)
def test_row_aligned(name, host, lines, tmp_path):
    lines(name, 4)
    of = ROW_ALIGNED[name]
    at = put(host, name, dict.fromkeys(of, TRICKY))
    last = list(of)[-1]
    host.faults[at[last]] = [503, "cut"]
    want = dict.fromkeys(of.values(), TIDY)
    # a language that it does not have
    assert read(name, tmp_path, {*of.values(), "pcm_Latn"}, host.url + "/") == want
    assert set(asked(host)) == set(at.values())
    assert len(list((tmp_path / name).rglob(last))) == 1
    before = len(host.requests)
    assert read(name, tmp_path, list(of.values()), host.url) == want
    assert len(host.requests) == before  # it is there
    assert read(name, tmp_path, [of[last]], host.url) == {of[last]: TIDY}
    assert read(name, tmp_path, [], host.url) == {}


@pytest.mark.parametrize("name", ROW_ALIGNED)
@pytest.mark.parametrize(
    "text", ["one\ntwo\nthree\n", "one\ntwo\nthree\nfour\nfive", "", "404: Not Found"]
)
def test_rows_that_do_not_align(name, text, host, lines, tmp_path):
    lines(name, 4)
    of = ROW_ALIGNED[name]
    first, *_, last = of
    put(host, name, {first: TRICKY, last: text})
    with pytest.raises(UserError, match=rf"{last}: \d rows instead of 4; delete it and try again"):
        read(name, tmp_path, [of[first], of[last]], host.url)


def test_not_utf8_and_not_there(host, lines, tmp_path):
    lines("ntrex", 1)
    at = put(host, "ntrex", {"newstest2019-ref.fin.txt": "x"})
    host.files[at["newstest2019-ref.fin.txt"]] = "Pää\n".encode("latin-1")
    with pytest.raises(UserError, match=r"newstest2019-ref.fin.txt: not UTF-8 \(byte 1\)"):
        read("ntrex", tmp_path, ["fin_Latn"], host.url)
    with pytest.raises(UserError, match="newstest2019-ref.deu.txt: HTTP 404"):
        read("ntrex", tmp_path, ["deu_Latn"], host.url)


def flores():
    """FLORES-200's two splits of three people each, and SIB-200's English files.

    SIB-200 took four of the six.
    """
    files = {}
    of_split = {"dev": PEOPLE[:3], "devtest": PEOPLE[3:]}
    for lang, split in itertools.product(("eng_Latn", "swh_Latn", "nqo_Nkoo"), of_split):
        text = "".join(f"{who} buys {lang} tea.\n" for who in of_split[split])
        files[f"flores-200-{split}/{lang}.{split}"] = text
    sib = {}
    for split, people in (("train", ["Eli", "Ada"]), ("dev", ["Cy"]), ("test", ["Di"])):
        text = "index_id\tcategory\ttext\n"
        for who in people:
            text += f"{PEOPLE.index(who)}\ttravel\t{who} buys eng_Latn tea.\n"
        sib[f"eng_Latn/{split}.tsv"] = text
    return files, sib


@pytest.fixture()
def served_flores(host, lines, monkeypatch):
    def put_all(files, sib):
        put(host, "flores_nonsib", files)
        sha256 = {}
        for file, text in sib.items():
            host.files[f"{sib200.URL.removeprefix(HOST)}/{file}"] = text.encode()
            sha256[file] = hashlib.sha256(text.encode()).hexdigest()
        monkeypatch.setattr(sib200, "SHA256", sha256)

    lines("flores_nonsib", 2)
    return put_all


@pytest.mark.parametrize(
    "wanted", [["eng_Latn", "swh_Latn", "nqo_Nkoo"], ["nqo_Nkoo"], ["swh_Latn", "pcm_Latn"]]
)
def test_sib200_is_taken_out(served_flores, wanted, host, tmp_path):
    served_flores(*flores())
    want = {}
    for lang in wanted:
        if lang != "pcm_Latn":  # FLORES-200 does not have it
            want[lang] = [f"Bo buys {lang} tea.", f"Flo buys {lang} tea."]
    assert read("flores_nonsib", tmp_path, wanted, host.url) == want


def test_a_sentence_of_sib200_with_other_spaces(served_flores, host, tmp_path):
    """Cleaned, they are the same."""
    files, sib = flores()
    sib["eng_Latn/dev.tsv"] = sib["eng_Latn/dev.tsv"].replace("buys", "buys  ")
    devtest = "flores-200-devtest/eng_Latn.devtest"
    files[devtest] = files[devtest].replace("Eli buys", "Eli  buys")
    served_flores(files, sib)
    text = read("flores_nonsib", tmp_path, ["eng_Latn"], host.url)
    assert text == {"eng_Latn": ["Bo buys eng_Latn tea.", "Flo buys eng_Latn tea."]}


def test_flores_that_does_not_fit(served_flores, host, tmp_path):
    files, sib = flores()
    other = sib["eng_Latn/dev.tsv"].replace("buys", "bought")
    served_flores(files, sib | {"eng_Latn/dev.tsv": other})
    fault = "eng_Latn.devtest: without SIB-200's sentences it has 3 instead of 2"
    with pytest.raises(UserError, match=fault):
        read("flores_nonsib", tmp_path / "a", ["swh_Latn"], host.url)
    served_flores(files | {"flores-200-devtest/swh_Latn.devtest": "Only one.\n"}, sib)
    with pytest.raises(UserError, match="swh_Latn.devtest: 4 rows instead of 6"):
        read("flores_nonsib", tmp_path / "b", ["swh_Latn"], host.url)
    # another SIB-200 than the one that is known
    sib200.SHA256["eng_Latn/train.tsv"] = "0" * 64
    with pytest.raises(UserError, match="train.tsv: .* size or sha256"):
        read("flores_nonsib", tmp_path / "c", ["swh_Latn"], host.url)


def test_common_voice(host, lines, tmp_path):
    files = {
        "nb-NO/sentence-collector.txt": TRICKY + "last\r\n" * 3,
        "ha/sentence-collector.txt": "\n \n",
    }
    put(host, "common_voice", files)
    text = read("common_voice", tmp_path, ["nob_Latn", "hau_Latn"], host.url)
    # Neither empty lines nor repeats.
    assert text == {"nob_Latn": ["One line, three", "two words", "last"], "hau_Latn": []}
    lines("common_voice", 2)
    text = read("common_voice", tmp_path, ["nob_Latn"], host.url)
    assert text == {"nob_Latn": ["One line, three", "two words"]}


@pytest.mark.parametrize("n, cap", [(10, 10), (10, 11), (10, 3), (11, 10), (1000, 7), (5, 1)])
def test_a_cap_takes_lines_evenly(n, cap, host, lines, tmp_path):
    """The files are sorted: their first lines would be those with an A."""
    lines("common_voice", cap)
    put(host, "common_voice", {"fi/sentence-collector.txt": "".join(f"{i}\n" for i in range(n))})
    found = list(map(int, read("common_voice", tmp_path, ["fin_Latn"], host.url)["fin_Latn"]))
    gaps = {b - a for a, b in zip(found, found[1:])}
    assert len(found) == min(n, cap)
    assert found[0] == 0
    assert gaps <= {n // len(found), n // len(found) + 1}


def test_gatitos(host, tmp_path):
    files = {
        "fa-AF_en.tsv": "تاه\ttah\nno  ra\ta lot of\nتاه\ttoo\r\n\tnothing\nalone\n",
        "ak_en.tsv": "ko\tgo\n",
    }
    put(host, "gatitos", files)
    text = read("gatitos", tmp_path, ["prs_Arab", "twi_Latn", "eng_Latn"], host.url)
    assert text == {"prs_Arab": ["تاه", "no ra", "alone"], "twi_Latn": ["ko"]}


def tatoeba(pair, lang, text, labels=None):
    file = f"{pair}/tatoeba-test-v2021-08-07.{lang}"
    files = {file: text}
    if labels is not None:
        files[f"{file}.labels"] = labels
    return files


def test_tatoeba(host, tmp_path):
    files = tatoeba("eng-fin", "fin", "Hei Ada.\nHei Bo.\n")
    files |= tatoeba("eng-lav", "lav", "Labs Ada.\nLobs Bo.\nLabs Cy.\n", "lav\nltg\nlav\n")
    files |= tatoeba("eng-jpn_Hira", "jpn_Hira", "やあ\n")
    files |= tatoeba("eng-jpn_Hani", "jpn_Hani", "漢\n")
    files |= tatoeba("eng-jpn_Kana", "jpn_Kana", "ヤア\n")
    files |= tatoeba("deu-eng", "eng", "Hi Ada.\n")
    files |= tatoeba("eng-fra", "eng", "Hi Bo.\n")
    files |= tatoeba("eng-spa", "eng", "Hi Ada.\nHi Cy.\n")
    at = put(host, "tatoeba", files)
    text = read("tatoeba", tmp_path, ["fin_Latn", "lvs_Latn", "jpn_Jpan", "eng_Latn"], host.url)
    assert text == {
        "fin_Latn": ["Hei Ada.", "Hei Bo."],
        "lvs_Latn": ["Labs Ada.", "Labs Cy."],
        "jpn_Jpan": text["jpn_Jpan"],
        "eng_Latn": text["eng_Latn"],
    }
    assert sorted(text["jpn_Jpan"]) == ["やあ", "ヤア", "漢"]
    assert sorted(text["eng_Latn"]) == ["Hi Ada.", "Hi Bo.", "Hi Cy."]
    assert set(asked(host)) == set(at.values())  # and no labels but those


def test_tatoeba_labels_of_another_file(host, tmp_path):
    put(host, "tatoeba", tatoeba("eng-est", "est", "Tere Ada.\nTere Bo.\n", "est\n"))
    with pytest.raises(UserError, match="08-07.est.labels: 1 rows instead of 2"):
        read("tatoeba", tmp_path, ["est_Latn"], host.url)


def test_tico19(host, tmp_path):
    files = {"en-am/tico19-test.en": "en one.\nsame\n"}
    for lang in ("am", "ti", "ti_ER", "ti_ET", "pt_BR"):
        files[f"en-{lang}/tico19-test.{lang}"] = f"{lang} one.\nsame\n"
    put(host, "tico19", files)
    text = read("tico19", tmp_path, ["eng_Latn", "amh_Ethi", "tir_Ethi", "por_Latn"], host.url)
    assert text == {
        "eng_Latn": ["en one.", "same"],
        "amh_Ethi": ["am one.", "same"],
        "por_Latn": ["pt_BR one.", "same"],
        "tir_Ethi": ["ti one.", "same", "ti_ER one.", "ti_ET one."],
    }


def test_a_folder_as_mirror(lines, tmp_path):
    lines("ntrex", 4)
    folder = tmp_path / "mirror" / SOURCES["ntrex"].address.removeprefix(f"{HOST}/")
    folder.mkdir(parents=True)
    (folder / "newstest2019-ref.fin.txt").write_bytes(TRICKY.encode())
    assert read("ntrex", tmp_path / "out", ["fin_Latn"], tmp_path / "mirror") == {"fin_Latn": TIDY}
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no file .*newstest2019-ref.deu.txt"):
        read("ntrex", tmp_path / "out", ["deu_Latn"], tmp_path / "mirror")


def test_tables():
    path = ROOT / "data_scripts/pretraining/source_codes.tsv"
    with open(path, encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    rows = [(row["source"], row["theirs"], row["ours"]) for row in table]
    assert len(set(rows)) == len(rows)
    assert {name for name, _, _ in rows} == set(SOURCES) - {"flores_nonsib"}
    assert {code for _, _, code in rows} <= set(load_languages())
    assert all("eng_Latn" in codes(name) for name in SOURCES if name != "gatitos")
    for name, source in SOURCES.items():
        theirs = sum(codes(name).values(), [])
        files = {source.file.format(*word.split(":")) for word in theirs}
        assert len(files) == len(theirs), name
        assert not any("{" in file for file in files), name
        if name not in ("flores_nonsib", "tatoeba", "tico19"):
            assert all(len(of) == 1 for of in codes(name).values()), name
        assert source.address.startswith(f"{HOST}/")
        assert source.licence.startswith("CC")
    of_tatoeba = sum(codes("tatoeba").values(), [])
    assert {word.split(":")[1].split("_")[0] for word in of_tatoeba} >= sources.MIXED
    assert {name: len(codes(name)) for name in SOURCES} == {
        "ntrex": 112,
        "flores_nonsib": 205,
        "nllb_seed": 41,
        "common_voice": 83,
        "tatoeba": 87,
        "tico19": 37,
        "gatitos": 79,
    }


def unpack(archive, wanted):
    """-> {name: bytes} of these files, reading no further than the last of them."""
    found = {}
    with tarfile.open(SHARED / archive) as tar:
        for member in tar:
            if member.name in wanted:
                found[member.name] = tar.extractfile(member).read()
                if len(found) == len(wanted):
                    return found


@pytest.mark.skipif(not (SHARED / "parallel.tar.xz").exists(), reason="the real text is not here")
def test_the_real_flores_without_the_real_sib200(tmp_path):
    """FLORES-200 put together again from its two halves, and taken apart.

    SIB-200's index_id is FLORES-200's row.
    """
    langs = ("eng_Latn", "nqo_Nkoo", "zho_Hans")
    splits = ("train", "dev", "test")
    names = {f"sib200/{lang}/{split}.tsv" for lang, split in itertools.product(langs, splits)}
    sib = unpack("sib200.tar.xz", names)
    wanted = {f"parallel/flores_nonsib/{lang}.txt" for lang in langs}
    rest = {}
    for name, text in unpack("parallel.tar.xz", wanted).items():
        rest[name.split("/")[2][:-4]] = text.decode().split("\n")[:1005]
    files = {f"{sib200.URL}/{file}": sib[f"sib200/{file}"] for file in sib200.SHA256}
    for lang in langs:
        taken = {}
        for split in splits:
            text = io.StringIO(sib[f"sib200/{lang}/{split}.tsv"].decode(), newline="")
            for row in csv.DictReader(text, delimiter="\t"):
                taken[int(row["index_id"])] = row["text"]
        others = iter(rest[lang])
        rows = [taken[i] if i in taken else next(others) for i in range(2009)]
        for split, of_split in (("dev", rows[:997]), ("devtest", rows[997:])):
            address = f"{SOURCES['flores_nonsib'].address}/flores-200-{split}/{lang}.{split}"
            files[address] = "".join(f"{row}\n" for row in of_split).encode()
    for file, body in files.items():
        path = tmp_path / file.removeprefix(f"{HOST}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    found = read("flores_nonsib", tmp_path / "out", langs, tmp_path)
    assert list(found) == list(langs)
    for lang in langs:
        assert found[lang] == [" ".join(row.split()) for row in rest[lang]]
