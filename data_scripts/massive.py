"""MASSIVE 1.1 (FitzGerald et al., ACL 2023): requests to an assistant in 52 languages, by scenario.
CC BY 4.0.

    python data_scripts/massive.py                  # 40 MB, 860,000 requests
    python data_scripts/massive.py --languages eng_Latn,swh_Latn,khm_Khmr --limit 200
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import json

from data_scripts.common import arguments, build, fetch, members
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://amazon-massive-nlu-dataset.s3.amazonaws.com"
ARCHIVE = "amazon-massive-dataset-1.1.tar.gz"
BYTES = 40251390
SHA256 = "4cba5faa11c71437928e17cb1b9b3d8b8e727e7ea363a3a9a8045e19c0491577"
LANGUAGES = {  # our code: theirs
    "afr_Latn": "af-ZA", "als_Latn": "sq-AL", "amh_Ethi": "am-ET", "arb_Arab": "ar-SA",
    "azj_Latn": "az-AZ", "ben_Beng": "bn-BD", "cat_Latn": "ca-ES", "cym_Latn": "cy-GB",
    "dan_Latn": "da-DK", "deu_Latn": "de-DE", "ell_Grek": "el-GR", "eng_Latn": "en-US",
    "fin_Latn": "fi-FI", "fra_Latn": "fr-FR", "heb_Hebr": "he-IL", "hin_Deva": "hi-IN",
    "hun_Latn": "hu-HU", "hye_Armn": "hy-AM", "ind_Latn": "id-ID", "isl_Latn": "is-IS",
    "ita_Latn": "it-IT", "jav_Latn": "jv-ID", "jpn_Jpan": "ja-JP", "kan_Knda": "kn-IN",
    "kat_Geor": "ka-GE", "khk_Cyrl": "mn-MN", "khm_Khmr": "km-KH", "kor_Hang": "ko-KR",
    "lvs_Latn": "lv-LV", "mal_Mlym": "ml-IN", "mya_Mymr": "my-MM", "nld_Latn": "nl-NL",
    "nob_Latn": "nb-NO", "pes_Arab": "fa-IR", "pol_Latn": "pl-PL", "por_Latn": "pt-PT",
    "ron_Latn": "ro-RO", "rus_Cyrl": "ru-RU", "slv_Latn": "sl-SL", "spa_Latn": "es-ES",
    "swe_Latn": "sv-SE", "swh_Latn": "sw-KE", "tam_Taml": "ta-IN", "tel_Telu": "te-IN",
    "tgl_Latn": "tl-PH", "tha_Thai": "th-TH", "tur_Latn": "tr-TR", "urd_Arab": "ur-PK",
    "vie_Latn": "vi-VN", "zho_Hans": "zh-CN", "zho_Hant": "zh-TW", "zsm_Latn": "ms-MY",
}
CONCEPTS = {
    "alarm": ["alarm", "clock"],
    "audio": ["volume", "sound"],
    "calendar": ["calendar", "appointment"],
    "cooking": ["cooking", "recipe"],
    "datetime": ["time", "date"],
    "email": ["email", "message"],
    "general": ["conversation", "joke"],
    "iot": ["light", "appliance"],
    "lists": ["list", "task"],
    "music": ["music", "song"],
    "news": ["news", "newspaper"],
    "play": ["radio", "game"],
    "qa": ["question", "answer"],
    "recommendation": ["recommendation", "event"],
    "social": ["network", "post"],
    "takeaway": ["food", "restaurant"],
    "transport": ["transport", "train"],
    "weather": ["weather", "rain"],
}


def rows(archive, languages):
    """1.1/data/en-US.jsonl and so on: one JSON object a line, of all splits; ids are shared."""
    lang_of = {f"1.1/data/{LANGUAGES[lang]}.jsonl": lang for lang in languages}
    for name, lines in members(archive, lang_of):
        lang = lang_of[name]
        for number, line in enumerate(lines.rstrip("\n").split("\n"), 1):
            try:
                row = json.loads(line)
                yield row["partition"], row["id"], row["utt"], row["scenario"], lang, row["intent"]
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(f"{archive}: {name}: line {number}: {error!r}") from None


def main():
    args = arguments(__doc__, URL, LANGUAGES)
    paths = fetch(args, {ARCHIVE: (BYTES, SHA256)})
    build(args, CONCEPTS, rows(paths[ARCHIVE], args.languages), ["intent"])


if __name__ == "__main__":
    run_script(main)
