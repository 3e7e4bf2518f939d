"""MasakhaNEWS (Adelani et al., IJCNLP-AACL 2023): news (headline and article) in 16 languages of Africa, by topic.

    python data_scripts/masakhanews.py
    python data_scripts/masakhanews.py --languages swh_Latn,yor_Latn
"""
from data_scripts.common import SPLITS, arguments, build, fetch, read_rows
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/masakhane-io/masakhane-news/main/data"
LANGUAGES = {"amh_Ethi": "amh", "eng_Latn": "eng", "fra_Latn": "fra", "hau_Latn": "hau", "ibo_Latn": "ibo", "lin_Latn": "lin",
             "lug_Latn": "lug", "gaz_Latn": "orm", "pcm_Latn": "pcm", "run_Latn": "run", "sna_Latn": "sna", "som_Latn": "som",
             "swh_Latn": "swa", "tir_Ethi": "tir", "xho_Latn": "xho", "yor_Latn": "yor"}
CONCEPTS = {"business": ["business", "economy"], "entertainment": ["entertainment", "film"], "health": ["health", "medicine"],
            "politics": ["politics", "government"], "religion": ["religion", "faith"], "sports": ["sports", "football"],
            "technology": ["technology", "computer"]}


def rows(paths):
    lang_of = {code: lang for lang, code in LANGUAGES.items()}
    for file, path in paths.items():
        code, split = file.removesuffix(".tsv").split("/")
        for i, (label, headline, article, url) in enumerate(read_rows(path, ["category", "headline", "text", "url"])):
            yield split, f"{code}-{split}-{i}", f"{headline}\n{article}", label, lang_of[code], url


def main():
    args = arguments(__doc__, URL, LANGUAGES)
    files = {f"{LANGUAGES[lang]}/{split}.tsv": (None, None) for split in SPLITS for lang in args.languages}
    build(args, CONCEPTS, rows(fetch(args, files)), ["url"])


if __name__ == "__main__":
    run_script(main)
