"""AG News (Zhang et al., NeurIPS 2015): English news in four sections. For non-commercial use.

    python data_scripts/agnews.py                   # 31 MB
    python data_scripts/agnews.py --limit 1000      # 1,000 texts a class and split

There is no dev split: every hundredth training text is taken for it.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import html
import html.entities
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
ENTITY = re.compile(r"&(?:#\d+|#[xX][\da-fA-F]+|[A-Za-z]+\d*);")
# Neither "ranked #2;" nor "the result;" is an entity; "free trade;", "the euro;" are words.
NUMBER = r"#(?:3[2-9]|[4-9]\d|\d{3,5})"
SIGNS = ["quot", "apos", "amp", "lt", "gt", "nbsp", "ensp", "emsp", "thinsp", "mdash", "ndash",
         "hellip", "lsquo", "rsquo", "sbquo", "ldquo", "rdquo", "bdquo", "laquo", "raquo", "lsaquo",
         "rsaquo", "iexcl", "iquest", "middot", "reg", "deg", "frac12", "frac14", "frac34"]
ACCENTS = ("acute", "grave", "circ", "uml", "tilde", "cedil", "ring", "slash", "lig", "caron")
LETTERS = [name for name in html.entities.name2codepoint
           if name.endswith(ACCENTS) and name not in ACCENTS]  # eacute, but not acute
BARE_ENTITY = re.compile(
    rf" ?(?<!&)(?<!amp;)({NUMBER}|(?<!\w)(?:{'|'.join(SIGNS + LETTERS)}));")
INLINE = """a abbr acronym b bdo big cite code del dfn em font i ins kbd label mark nobr q s samp
small span strike strong sub sup tt u var wbr""".split()
BLOCK = """address applet area article aside audio base blink blockquote body br button canvas
caption center col colgroup dd dir div dl dt embed fieldset figcaption figure footer form frame
frameset h[1-6] head header hr html iframe img input legend li link main map marquee menu meta nav
noframes noscript object ol optgroup option p param picture pre script section select source style
svg table tbody td textarea tfoot th thead title tr track ul video""".split()
# In quotation marks an attribute may hold anything; where they do not match, the first ">" ends it.
ATTRIBUTES = r"""(?:[^<>"']|=\s*"[^"]{0,999}"|=\s*'[^']{0,999}')*"""
TAG = re.compile(rf"</?({'|'.join(INLINE + BLOCK)})(?:\s{ATTRIBUTES}|\s[^<>]*)?/?>", re.I)
NO_TEXT = re.compile(r"<!--.*?-->|<!doctype[^<>]*>|<(script|style)\b[^<>]*>.*?</\1\s*>",
                     re.I | re.S)
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
    ("Mary #39;s", "R amp;D"), got lost, or is still there, once or twice ("AT&amp;amp;T").
    "<AAPL.O>" is no tag but a share.
    """
    text = html.unescape(text.replace("\\", " "))
    before = None
    while text != before:
        before = text
        text = ENTITY.sub(lambda entity: html.unescape(entity[0]), BARE_ENTITY.sub(r"&\1;", text))
    text = TAG.sub(without_tag, NO_TEXT.sub(" ", text))
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
