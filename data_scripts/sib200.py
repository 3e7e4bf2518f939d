"""SIB-200 (Adelani et al., EACL 2024): the same 1,004 sentences in 205 languages, by topic.
CC BY-SA 4.0.

    python data_scripts/sib200.py                   # all of it: 46 MB in 615 files
    python data_scripts/sib200.py --languages eng_Latn,swh_Latn
    python data_scripts/sib200.py --mirror FOLDER   # from FOLDER/eng_Latn/train.tsv and so on
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from data_scripts.common import SPLITS, arguments, build, fetch, read_rows
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.languages import load_languages

COMMIT = "593cea88519930f776c1a4a1980b6a35b39dca57"
URL = f"https://raw.githubusercontent.com/dadelani/sib-200/{COMMIT}/data/annotated"
COLUMNS = ["index_id", "category", "text"]
CONCEPTS = {
    "science/technology": ["science", "technology"],
    "travel": ["travel", "tourism"],
    "politics": ["politics", "government"],
    "sports": ["sports", "football"],
    "health": ["health", "medicine"],
    "entertainment": ["entertainment", "cinema"],
    "geography": ["geography", "landscape"],
}
SHA256 = {  # of the English files; of the others the commit in the address says the version
    "eng_Latn/train.tsv": "056c2989673d0724cb27edb0d9ee5c6305b2548c17f9fd8f2092f40c98ac0156",
    "eng_Latn/dev.tsv": "48fe23ed3c66e6978c6cdeff3f661ab9ea6451001d967e23d94796b009777181",
    "eng_Latn/test.tsv": "fd7012f846f5a8caead1e7419023d64a28351893f3d9c7ebcde4c5481ca5d326",
}


def rows(paths):
    """eng_Latn/train.tsv and so on: index_id, category and text.

    They are quoted, for a text may hold a tab. A sentence has one id in all languages.
    """
    for file, path in paths.items():
        lang, split = file.removesuffix(".tsv").split("/")
        for index, label, text in read_rows(path, COLUMNS):
            yield split, index, text, label, lang


def main():
    # languages.tsv has SIB-200's 205, and Nigerian Pidgin for MasakhaNEWS.
    languages = [lang for lang in load_languages() if lang != "pcm_Latn"]
    args = arguments(__doc__, URL, languages)
    files = {}
    for split in SPLITS:
        for lang in args.languages:
            file = f"{lang}/{split}.tsv"
            files[file] = (None, SHA256.get(file))
    paths = fetch(args, files)
    build(args, CONCEPTS, rows(paths))


if __name__ == "__main__":
    run_script(main)
