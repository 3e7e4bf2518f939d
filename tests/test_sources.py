"""data_scripts/sources.py: every source's files in its own layout, served from this machine, with sentences made up here."""
import csv
import hashlib
import io
import sys
import tarfile

import pytest

from conftest import ROOT, SHARED
from loopback import serve
from minirosprompt import UserError
from minirosprompt.io import download as module
from minirosprompt.languages import load_languages

sys.path.insert(0, str(ROOT / "data_scripts"))
import sources  # noqa: E402
from sources import HOST, SOURCES, codes, read  # noqa: E402

TRICKY = "\ufeffOne\u2028line,\x85 \t three\r\n\u3000two \x00 words  \n\nlast\n"  # what real files have; the third row is missing
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
    "ntrex": {"newstest2019-src.eng.txt": "eng_Latn", "newstest2019-ref.aze-Latn.txt": "azj_Latn", "newstest2019-ref.swa.txt": "swh_Latn"},
    "nllb_seed": {"eng_Latn": "eng_Latn", "taq_Tfng": "taq_Tfng", "grn_Latn": "grn_Latn"}}


@pytest.mark.parametrize("name", ROW_ALIGNED)
def test_row_aligned(name, host, lines, tmp_path):
    lines(name, 4)
    of = ROW_ALIGNED[name]
    at = put(host, name, dict.fromkeys(of, TRICKY))
    last = list(of)[-1]
    host.faults[at[last]] = [503, "cut"]
    want = dict.fromkeys(of.values(), TIDY)
    assert read(name, tmp_path, {*of.values(), "pcm_Latn"}, host.url + "/") == want  # a language that it does not have
    assert set(asked(host)) == set(at.values()) and len(list((tmp_path / name).rglob(last))) == 1
    before = len(host.requests)
    assert read(name, tmp_path, list(of.values()), host.url) == want and len(host.requests) == before  # it is there
    assert read(name, tmp_path, [of[last]], host.url) == {of[last]: TIDY} and read(name, tmp_path, [], host.url) == {}


@pytest.mark.parametrize("name", ROW_ALIGNED)
@pytest.mark.parametrize("text", ["one\ntwo\nthree\n", "one\ntwo\nthree\nfour\nfive", "", "404: Not Found"])
def test_rows_that_do_not_align(name, text, host, lines, tmp_path):
    lines(name, 4)
    first, *_, last = of = ROW_ALIGNED[name]
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


def flores(text=lambda lang, who: f"{who} buys {lang} tea."):
    """FLORES-200's two splits of three people each, and SIB-200's English files, which took four of the six."""
    files = {f"flores-200-{split}/{lang}.{split}": "".join(text(lang, who) + "\n" for who in people)
             for lang in ("eng_Latn", "swh_Latn", "nqo_Nkoo") for split, people in (("dev", PEOPLE[:3]), ("devtest", PEOPLE[3:]))}
    sib = {f"eng_Latn/{split}.tsv": "index_id\tcategory\ttext\n" + "".join(f"{PEOPLE.index(who)}\ttravel\t{text('eng_Latn', who)}\n" for who in people)
           for split, people in (("train", ["Eli", "Ada"]), ("dev", ["Cy"]), ("test", ["Di"]))}
    return files, sib


@pytest.fixture()
def served_flores(host, lines, monkeypatch):
    def put_all(files, sib):
        put(host, "flores_nonsib", files)
        host.files |= {f"{sources.sib200.URL.removeprefix(HOST)}/{file}": text.encode() for file, text in sib.items()}
        monkeypatch.setattr(sources.sib200, "SHA256", {file: hashlib.sha256(text.encode()).hexdigest() for file, text in sib.items()})
    lines("flores_nonsib", 2)
    return put_all


@pytest.mark.parametrize("wanted", [["eng_Latn", "swh_Latn", "nqo_Nkoo"], ["nqo_Nkoo"], ["swh_Latn", "pcm_Latn"]])
def test_sib200_is_taken_out(served_flores, wanted, host, tmp_path):
    served_flores(*flores())
    text = read("flores_nonsib", tmp_path, wanted, host.url)
    assert text == {lang: [f"Bo buys {lang} tea.", f"Flo buys {lang} tea."] for lang in wanted if lang != "pcm_Latn"}


def test_a_sentence_of_sib200_with_other_spaces(served_flores, host, tmp_path):
    """Cleaned, they are the same."""
    files, sib = flores()
    sib["eng_Latn/dev.tsv"] = sib["eng_Latn/dev.tsv"].replace("buys", "buys  ")
    files["flores-200-devtest/eng_Latn.devtest"] = files["flores-200-devtest/eng_Latn.devtest"].replace("Eli buys", "Eli  buys")
    served_flores(files, sib)
    assert read("flores_nonsib", tmp_path, ["eng_Latn"], host.url) == {"eng_Latn": ["Bo buys eng_Latn tea.", "Flo buys eng_Latn tea."]}


def test_flores_that_does_not_fit(served_flores, host, tmp_path):
    files, sib = flores()
    served_flores(files, sib | {"eng_Latn/dev.tsv": sib["eng_Latn/dev.tsv"].replace("buys", "bought")})
    with pytest.raises(UserError, match="eng_Latn.devtest: without SIB-200's sentences it has 3 instead of 2"):
        read("flores_nonsib", tmp_path / "a", ["swh_Latn"], host.url)
    served_flores(files | {"flores-200-devtest/swh_Latn.devtest": "Only one.\n"}, sib)
    with pytest.raises(UserError, match="swh_Latn.devtest: 4 rows instead of 6"):
        read("flores_nonsib", tmp_path / "b", ["swh_Latn"], host.url)
    sources.sib200.SHA256["eng_Latn/train.tsv"] = "0" * 64  # another SIB-200 than the one that is known
    with pytest.raises(UserError, match="train.tsv: .* size or sha256"):
        read("flores_nonsib", tmp_path / "c", ["swh_Latn"], host.url)


def test_common_voice(host, lines, tmp_path):
    put(host, "common_voice", {"nb-NO/sentence-collector.txt": TRICKY + "last\r\n" * 3, "ha/sentence-collector.txt": "\n \n"})
    assert read("common_voice", tmp_path, ["nob_Latn", "hau_Latn"], host.url) == {
        "nob_Latn": ["One line, three", "two words", "last"], "hau_Latn": []}  # neither empty lines nor repeats
    lines("common_voice", 2)
    assert read("common_voice", tmp_path, ["nob_Latn"], host.url) == {"nob_Latn": ["One line, three", "two words"]}


@pytest.mark.parametrize("n, cap", [(10, 10), (10, 11), (10, 3), (11, 10), (1000, 7), (5, 1)])
def test_a_cap_takes_lines_evenly(n, cap, host, lines, tmp_path):
    """The files are sorted: their first lines would be those with an A."""
    lines("common_voice", cap)
    put(host, "common_voice", {"fi/sentence-collector.txt": "".join(f"{i}\n" for i in range(n))})
    found = list(map(int, read("common_voice", tmp_path, ["fin_Latn"], host.url)["fin_Latn"]))
    gaps = {b - a for a, b in zip(found, found[1:])}
    assert len(found) == min(n, cap) and found[0] == 0 and gaps <= {n // len(found), n // len(found) + 1}


def test_gatitos(host, tmp_path):
    put(host, "gatitos", {"fa-AF_en.tsv": "تاه\ttah\nno  ra\ta lot of\nتاه\ttoo\r\n\tnothing\nalone\n", "ak_en.tsv": "ko\tgo\n"})
    assert read("gatitos", tmp_path, ["prs_Arab", "twi_Latn", "eng_Latn"], host.url) == {
        "prs_Arab": ["تاه", "no ra", "alone"], "twi_Latn": ["ko"]}


def tatoeba(pair, lang, text, labels=None):
    file = f"{pair}/tatoeba-test-v2021-08-07.{lang}"
    return {file: text} | ({f"{file}.labels": labels} if labels is not None else {})


def test_tatoeba(host, tmp_path):
    at = put(host, "tatoeba", tatoeba("eng-fin", "fin", "Hei Ada.\nHei Bo.\n") | tatoeba("eng-lav", "lav", "Labs Ada.\nLobs Bo.\nLabs Cy.\n", "lav\nltg\nlav\n")
             | tatoeba("eng-jpn_Hira", "jpn_Hira", "やあ\n") | tatoeba("eng-jpn_Hani", "jpn_Hani", "漢\n") | tatoeba("eng-jpn_Kana", "jpn_Kana", "ヤア\n")
             | tatoeba("deu-eng", "eng", "Hi Ada.\n") | tatoeba("eng-fra", "eng", "Hi Bo.\n") | tatoeba("eng-spa", "eng", "Hi Ada.\nHi Cy.\n"))
    text = read("tatoeba", tmp_path, ["fin_Latn", "lvs_Latn", "jpn_Jpan", "eng_Latn"], host.url)
    assert text == {"fin_Latn": ["Hei Ada.", "Hei Bo."], "lvs_Latn": ["Labs Ada.", "Labs Cy."], "jpn_Jpan": text["jpn_Jpan"],
                    "eng_Latn": text["eng_Latn"]}
    assert sorted(text["jpn_Jpan"]) == ["やあ", "ヤア", "漢"] and sorted(text["eng_Latn"]) == ["Hi Ada.", "Hi Bo.", "Hi Cy."]
    assert set(asked(host)) == set(at.values())  # and no labels but those


def test_tatoeba_labels_of_another_file(host, tmp_path):
    put(host, "tatoeba", tatoeba("eng-est", "est", "Tere Ada.\nTere Bo.\n", "est\n"))
    with pytest.raises(UserError, match="08-07.est.labels: 1 rows instead of 2"):
        read("tatoeba", tmp_path, ["est_Latn"], host.url)


def test_tico19(host, tmp_path):
    put(host, "tico19", {f"en-{pair}/tico19-test.{lang}": f"{lang} one.\nsame\n"
                         for pair, lang in (("am", "en"), ("am", "am"), ("ti", "ti"), ("ti_ER", "ti_ER"), ("ti_ET", "ti_ET"), ("pt_BR", "pt_BR"))})
    text = read("tico19", tmp_path, ["eng_Latn", "amh_Ethi", "tir_Ethi", "por_Latn"], host.url)
    assert text == {"eng_Latn": ["en one.", "same"], "amh_Ethi": ["am one.", "same"], "por_Latn": ["pt_BR one.", "same"],
                    "tir_Ethi": ["ti one.", "same", "ti_ER one.", "ti_ET one."]}


def test_a_folder_as_mirror(lines, tmp_path):
    lines("ntrex", 4)
    folder = tmp_path / "mirror" / SOURCES["ntrex"].address.removeprefix(f"{HOST}/")
    folder.mkdir(parents=True)
    (folder / "newstest2019-ref.fin.txt").write_bytes(TRICKY.encode())
    assert read("ntrex", tmp_path / "out", ["fin_Latn"], tmp_path / "mirror") == {"fin_Latn": TIDY} and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no file .*newstest2019-ref.deu.txt"):
        read("ntrex", tmp_path / "out", ["deu_Latn"], tmp_path / "mirror")


def test_tables():
    with open(ROOT / "data_scripts/source_codes.tsv", encoding="utf-8", newline="") as file:
        rows = [(row["source"], row["theirs"], row["ours"]) for row in csv.DictReader(file, delimiter="\t")]
    assert len(set(rows)) == len(rows) and {name for name, _, _ in rows} == set(SOURCES) - {"flores_nonsib"}
    assert {code for _, _, code in rows} <= set(load_languages()) and all("eng_Latn" in codes(name) for name in SOURCES if name != "gatitos")
    for name, source in SOURCES.items():
        theirs = [word for of in codes(name).values() for word in of]
        files = {source.file.format(*word.split(":")) for word in theirs}
        assert len(files) == len(theirs) and not any("{" in file for file in files), name
        assert all(len(of) == 1 for of in codes(name).values()) or name in ("flores_nonsib", "tatoeba", "tico19")
        assert source.address.startswith(f"{HOST}/") and source.licence.startswith("CC")
    assert {word.split(":")[1].split("_")[0] for of in codes("tatoeba").values() for word in of} >= sources.MIXED
    assert {name: len(codes(name)) for name in SOURCES} == {"ntrex": 112, "flores_nonsib": 205, "nllb_seed": 41, "common_voice": 83,
                                                            "tatoeba": 87, "tico19": 37, "gatitos": 79}


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
    """FLORES-200 put together again from its two halves, and taken apart: SIB-200's index_id is FLORES-200's row."""
    langs, splits = ("eng_Latn", "nqo_Nkoo", "zho_Hans"), ("train", "dev", "test")
    sib = unpack("sib200.tar.xz", {f"sib200/{lang}/{split}.tsv" for lang in langs for split in splits})
    rest = {name.split("/")[2][:-4]: text.decode().split("\n")[:1005]
            for name, text in unpack("parallel.tar.xz", {f"parallel/flores_nonsib/{lang}.txt" for lang in langs}).items()}
    files = {f"{sources.sib200.URL}/{file}": sib[f"sib200/{file}"] for file in sources.sib200.SHA256}
    for lang in langs:
        taken = {int(row["index_id"]): row["text"] for split in splits
                 for row in csv.DictReader(io.StringIO(sib[f"sib200/{lang}/{split}.tsv"].decode(), newline=""), delimiter="\t")}
        others = iter(rest[lang])
        rows = [taken[i] if i in taken else next(others) for i in range(2009)]
        for split, of in (("dev", rows[:997]), ("devtest", rows[997:])):
            files[f"{SOURCES['flores_nonsib'].address}/flores-200-{split}/{lang}.{split}"] = "".join(f"{row}\n" for row in of).encode()
    for file, body in files.items():
        path = tmp_path / file.removeprefix(f"{HOST}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    assert read("flores_nonsib", tmp_path / "out", langs, tmp_path) == {lang: [" ".join(row.split()) for row in rest[lang]] for lang in langs}
