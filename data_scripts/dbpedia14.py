"""DBPedia-14 (Zhang et al., NeurIPS 2015): English Wikipedia abstracts, by the kind of thing they
are about. CC BY-SA 3.0.

    python data_scripts/dbpedia14.py                # all 630,000; a download of 68 MB
    python data_scripts/dbpedia14.py --limit 1000   # 1,000 texts a class and split

There is no dev split: every hundredth training text is taken for it.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from data_scripts.common import arguments, build, fetch, members
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.files import quoted_rows, table_lines

URL = "https://s3.amazonaws.com/fast-ai-nlp"
ARCHIVE = "dbpedia_csv.tgz"
BYTES = 68341743
SHA256 = "42db5221ddedddb673a4cabcc5f3a7d869714c878bcfe4ba94b29d14aa38e417"
CONCEPTS = {  # in the order of their labels 1 to 14
    "Company": ["company", "business"],
    "EducationalInstitution": ["school", "university"],
    "Artist": ["artist", "musician"],
    "Athlete": ["athlete", "player"],
    "OfficeHolder": ["politician", "minister"],
    "MeanOfTransportation": ["vehicle", "ship"],
    "Building": ["building", "monument"],
    "NaturalPlace": ["mountain", "river"],
    "Village": ["village", "town"],
    "Animal": ["animal", "bird"],
    "Plant": ["plant", "flower"],
    "Album": ["album", "song"],
    "Film": ["film", "cinema"],
    "WrittenWork": ["book", "magazine"],
}
CLASS_OF = {str(number): label for number, label in enumerate(CONCEPTS, 1)}


def rows(archive):
    """Label, title and abstract, as CSV without a header.

    The text is the abstract alone; the title becomes a column.
    """
    for name, table in members(archive, ["dbpedia_csv/train.csv", "dbpedia_csv/test.csv"]):
        split = name.removeprefix("dbpedia_csv/").removesuffix(".csv")
        lines = quoted_rows(f"{archive}: {name}", table_lines(table), 3, delimiter=",")
        for i, (line, (number, title, abstract)) in enumerate(lines):
            if number not in CLASS_OF:
                raise UserError(f"{archive}: {name}: line {line}: "
                                f"{number!r} is not a label from 1 to 14")
            part = "dev" if split == "train" and i % 100 == 0 else split
            yield part, f"{split}-{i}", abstract.strip(), CLASS_OF[number], "eng_Latn", title


def main():
    args = arguments(__doc__, URL)
    paths = fetch(args, {ARCHIVE: (BYTES, SHA256)})
    build(args, CONCEPTS, rows(paths[ARCHIVE]), ["title"])


if __name__ == "__main__":
    run_script(main)
