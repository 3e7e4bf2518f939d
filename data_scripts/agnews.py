"""AG News (Zhang et al., NeurIPS 2015): English news in four sections. For non-commercial use.

    python data_scripts/agnews.py                                     # 31 MB

There is no dev split: every hundredth training text is taken for it.
"""
import html
import re

from data_scripts.common import arguments, build, fetch, read_rows
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
FILES = {"train.csv": (29470338, "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e"),
         "test.csv": (1857427, "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699")}
CONCEPTS = {"World": ["world", "politics"], "Sports": ["sports", "football"], "Business": ["business", "economy"],
            "Sci/Tech": ["science", "technology"]}  # in the order of the labels 1 to 4


def clean(text):
    """Their texts write a line break as a backslash, and HTML entities with or without the ampersand ("#39;")."""
    text = html.unescape(re.sub(r"(?<!&)#(\d+);", r"&#\1;", text.replace("\\", " ")))
    return " ".join(text.split())


def rows(paths):
    labels = list(CONCEPTS)
    for file, path in paths.items():
        split = file.removesuffix(".csv")
        for i, (label, title, description) in enumerate(read_rows(path, 3, delimiter=",")):
            if label not in map(str, range(1, 5)):
                raise UserError(f"{path}: row {i + 1}: {label!r} is not a label from 1 to 4")
            part = "dev" if split == "train" and i % 100 == 0 else split
            yield part, f"{split}-{i}", clean(f"{title}. {description}"), labels[int(label) - 1], "eng_Latn"


def main():
    args = arguments(__doc__, URL)
    build(args, CONCEPTS, rows(fetch(args, FILES)))


if __name__ == "__main__":
    run_script(main)
