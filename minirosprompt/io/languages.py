"""What is known of each language: its script, its family, how much of it an encoder has read."""
import csv
import re
from functools import cache
from pathlib import Path

from .. import UserError
from .files import read_json
from .weights import encoder_folder

LANGUAGES = Path(__file__).parent.parent / "languages.tsv"


@cache
def load_languages():
    """-> {code: {name, script, family, xlmr, cc100_gib, pocket}}: SIB-200's languages, one more.

    cc100_gib: size of the language's part of CC-100, which XLM-R was pretrained on (Conneau et al.
    2020, table 6); xlmr: "high" or "low" for the upper and lower half by that size, "no" if XLM-R
    has not seen the language.
    """
    with open(LANGUAGES, encoding="utf-8-sig", newline="") as file:
        return {row.pop("code"): row for row in csv.DictReader(file, delimiter="\t")}


def kind_of(lang, column):
    """What languages.tsv says of a language, its "family", say; "unknown" if it has no such row.

    A code that ends in a script, such as grc_Grek, tells that by itself; and a language in another
    script than the one that the table has is still of its family.
    """
    known = load_languages()
    if lang in known:
        return known[lang][column]
    language, _, script = lang.partition("_")
    if column == "script" and re.fullmatch("[A-Z][a-z]{3}", script):
        return script
    for code, row in known.items():
        if column == "family" and code.startswith(f"{language}_"):
            return row["family"]
    return "unknown"


def pretraining_text(encoder):
    """-> {language: amount of pretraining text}, in any unit: from the encoder's languages.json.

    Without such a file: XLM-R's own, in GiB.
    """
    path = encoder_folder(encoder) / "languages.json"
    if path.exists():
        amount = read_json(path)
        if not all(isinstance(value, (int, float)) for value in amount.values()):
            raise UserError(f"{path}: expected {{language: number}}")
        return amount
    found = load_languages().items()
    return {lang: float(row["cc100_gib"]) for lang, row in found if row["cc100_gib"]}


def resource_level(amount):
    """{language: amount of text} -> {language: "high" for the upper half of them, else "low"}."""
    # Half of the encoder's own languages, whatever the unit: encoders have read unlike amounts.
    ranked = sorted(amount, key=lambda lang: -amount[lang])
    half = len(ranked) // 2
    return {lang: "high" if i < half else "low" for i, lang in enumerate(ranked)}
