"""Taxi1500 (Ma et al. 2023): topics of Bible verses. Public in English; its other languages are had from its authors.

    python data_scripts/taxi1500.py
"""
import csv

from data_scripts.common import SPLITS, arguments, build, fetch, read_rows
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/cisnlp/Taxi1500/main/eng_data"
CONCEPTS = {"Recommendation": ["recommendation", "advice"], "Faith": ["faith", "religion"],
            "Description": ["description", "story"],
            "Sin": ["sin", "guilt"], "Grace": ["grace", "mercy"], "Violence": ["violence", "war"]}


def rows(paths):
    for file, path in paths.items():
        split = file.removeprefix("eng_").removesuffix(".tsv")
        for verse, label, text in read_rows(path, 3, quoting=csv.QUOTE_NONE):
            yield split, verse, text, label, "eng_Latn"


def main():
    args = arguments(__doc__, URL)
    build(args, CONCEPTS, rows(fetch(args, {f"eng_{split}.tsv": (None, None) for split in SPLITS})))


if __name__ == "__main__":
    run_script(main)
