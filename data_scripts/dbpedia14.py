"""DBPedia-14 (Zhang et al., NeurIPS 2015): what kind of thing an English Wikipedia abstract is about. CC BY-SA 3.0.

    python data_scripts/dbpedia14.py --limit 1000                     # a download of 68 MB; 1,000 texts a class and split
    python data_scripts/dbpedia14.py                                  # all 630,000

There is no dev split: every hundredth training text is taken for it.
"""
import csv
import io

from data_scripts.common import arguments, build, fetch, members
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://s3.amazonaws.com/fast-ai-nlp"
ARCHIVE = {"dbpedia_csv.tgz": (68341743, "42db5221ddedddb673a4cabcc5f3a7d869714c878bcfe4ba94b29d14aa38e417")}
CONCEPTS = {"Company": ["company", "business"], "EducationalInstitution": ["school", "university"],
            "Artist": ["artist", "musician"], "Athlete": ["athlete", "player"], "OfficeHolder": ["politician", "minister"],
            "MeanOfTransportation": ["vehicle", "ship"], "Building": ["building", "monument"],
            "NaturalPlace": ["mountain", "river"], "Village": ["village", "town"],
            "Animal": ["animal", "bird"], "Plant": ["plant", "flower"], "Album": ["album", "song"], "Film": ["film", "cinema"],
            "WrittenWork": ["book", "magazine"]}  # in the order of the labels 1 to 14


def rows(archive):
    labels = list(CONCEPTS)
    for name, text in members(archive, ["dbpedia_csv/train.csv", "dbpedia_csv/test.csv"]):
        split = name.split("/")[1].removesuffix(".csv")
        for i, row in enumerate(csv.reader(io.StringIO(text, newline=""))):
            if len(row) != 3 or row[0] not in map(str, range(1, 15)):
                raise UserError(f"{archive}: {name}: row {i + 1}: expected a label from 1 to 14, a title and an abstract")
            label, title, abstract = row
            part = "dev" if split == "train" and i % 100 == 0 else split
            yield part, f"{split}-{i}", abstract.strip(), labels[int(label) - 1], "eng_Latn", title


def main():
    args = arguments(__doc__, URL)
    build(args, CONCEPTS, rows(fetch(args, ARCHIVE)["dbpedia_csv.tgz"]), ["title"])


if __name__ == "__main__":
    run_script(main)
