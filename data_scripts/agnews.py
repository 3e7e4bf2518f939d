"""AG News (Zhang et al., NeurIPS 2015): English news in four sections. For non-commercial use.

    python data_scripts/agnews.py                   # 31 MB
    python data_scripts/agnews.py --limit 1000      # 1,000 texts a class and split

There is no dev split: every hundredth training text is taken for it.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import html
import re

from data_scripts.common import arguments, build, fetch, read_rows
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
FILES = {  # file: (bytes, sha256)
    "train.csv": (29470338, "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e"),
    "test.csv": (1857427, "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"),
}
CONCEPTS = {  # in the order of their labels 1 to 4
    "World": ["world", "politics"],
    "Sports": ["sports", "football"],
    "Business": ["business", "economy"],
    "Sci/Tech": ["science", "technology"],
}
# Neither "ranked #2;" nor "the result;" is an entity.
NUMBER = r"#(?:3[2-9]|[4-9]\d|\d{3,5})"
BARE_ENTITY = re.compile(rf" ?(?<!&)({NUMBER}|(?<!\w)(?:quot|apos|amp|lt|gt|nbsp));")
INLINE = ["a", "b", "em", "font", "i", "s", "small", "span", "strong", "sub", "sup", "tt", "u"]
BLOCK = ["br", "center", "div", "h[1-6]", "hr", "img", "li", "ol", "p", "table", "td", "tr", "ul"]
TAG = re.compile(rf"</?({'|'.join(INLINE + BLOCK)})(?:\s[^<>]*)?/?>", re.I)
CLASS_OF = {str(number): label for number, label in enumerate(CONCEPTS, 1)}


def rows(paths):
    """Label, title and description, without a header; the text is title and description."""
    for file, path in paths.items():
        split = file.removesuffix(".csv")
        for i, (number, title, description) in enumerate(read_rows(path, 3, delimiter=",")):
            if number not in CLASS_OF:
                raise UserError(f"{path}: row {i + 1}: {number!r} is not a label from 1 to 4")
            part = "dev" if split == "train" and i % 100 == 0 else split
            text = clean(f"{title}. {description}")
            yield part, f"{split}-{i}", text, CLASS_OF[number], "eng_Latn"


def clean(text):
    """Without the traces of web pages, and with single spaces.

    There a line break is a backslash, and the ampersand of an HTML entity has become a space
    ("Mary #39;s", "R amp;D"), got lost, or is still there. "<AAPL.O>" is no tag but a share.
    """
    text = text.replace("\\", " ")
    text = BARE_ENTITY.sub(r"&\1;", text)
    text = TAG.sub(without_tag, html.unescape(text))
    return " ".join(text.split())


def without_tag(tag):
    """What stands in a tag's place: a space if it began a line, a cell or the like."""
    return "" if tag[1].lower() in INLINE else " "


def main():
    args = arguments(__doc__, URL)
    paths = fetch(args, FILES)
    build(args, CONCEPTS, rows(paths))


if __name__ == "__main__":
    run_script(main)
