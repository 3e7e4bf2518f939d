"""Taxi1500 (Ma et al. 2023): English Bible verses, by topic.

    python data_scripts/taxi1500.py                 # 0.2 MB

It is public in English alone; its other languages are had from its authors.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import csv

from data_scripts.common import SPLITS, arguments, build, fetch, read_rows
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/cisnlp/Taxi1500/main/eng_data"
CONCEPTS = {
    "Recommendation": ["recommendation", "advice"],
    "Faith": ["faith", "religion"],
    "Description": ["description", "story"],
    "Sin": ["sin", "guilt"],
    "Grace": ["grace", "mercy"],
    "Violence": ["violence", "war"],
}


def rows(paths):
    """eng_train.tsv and so on: verse number, label and text, without a header, never quoted."""
    for file, path in paths.items():
        split = file.removeprefix("eng_").removesuffix(".tsv")
        for verse, label, text in read_rows(path, 3, quoting=csv.QUOTE_NONE):
            yield split, verse, text, label, "eng_Latn"


def main():
    args = arguments(__doc__, URL)
    files = {f"eng_{split}.tsv": (None, None) for split in SPLITS}  # no sizes or hashes known
    paths = fetch(args, files)
    build(args, CONCEPTS, rows(paths))


if __name__ == "__main__":
    run_script(main)
