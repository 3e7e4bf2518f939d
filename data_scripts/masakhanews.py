"""MasakhaNEWS (Adelani et al., IJCNLP-AACL 2023): news in 16 languages of Africa (English and
French among them), by topic. A text is headline and article.

    python data_scripts/masakhanews.py
    python data_scripts/masakhanews.py --languages swh_Latn,yor_Latn
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from data_scripts.common import SPLITS, arguments, build, fetch, read_rows
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/masakhane-io/masakhane-news/main/data"
COLUMNS = ["category", "headline", "text", "url"]
LANGUAGES = {  # our code: theirs
    "amh_Ethi": "amh",
    "eng_Latn": "eng",
    "fra_Latn": "fra",
    "hau_Latn": "hau",
    "ibo_Latn": "ibo",
    "lin_Latn": "lin",
    "lug_Latn": "lug",
    "gaz_Latn": "orm",
    "pcm_Latn": "pcm",
    "run_Latn": "run",
    "sna_Latn": "sna",
    "som_Latn": "som",
    "swh_Latn": "swa",
    "tir_Ethi": "tir",
    "xho_Latn": "xho",
    "yor_Latn": "yor",
}
CONCEPTS = {
    "business": ["business", "economy"],
    "entertainment": ["entertainment", "film"],
    "health": ["health", "medicine"],
    "politics": ["politics", "government"],
    "religion": ["religion", "faith"],
    "sports": ["sports", "football"],
    "technology": ["technology", "computer"],
}


def rows(paths):
    """swa/train.tsv and so on: category, headline, text and url, quoted."""
    lang_of = {code: lang for lang, code in LANGUAGES.items()}
    for file, path in paths.items():
        code, split = file.removesuffix(".tsv").split("/")
        for i, (label, headline, article, url) in enumerate(read_rows(path, COLUMNS)):
            text = f"{headline}\n{article}"
            yield split, f"{code}-{split}-{i}", text, label, lang_of[code], url


def main():
    args = arguments(__doc__, URL, LANGUAGES)
    files = {}
    for split in SPLITS:
        for lang in args.languages:
            files[f"{LANGUAGES[lang]}/{split}.tsv"] = (None, None)
    paths = fetch(args, files)
    build(args, CONCEPTS, rows(paths), ["url"])


if __name__ == "__main__":
    run_script(main)
