"""MTOP (Li et al., EACL 2021): requests to an assistant in 6 languages, by domain. CC BY-SA 4.0.

    python data_scripts/mtop.py                     # 8.6 MB
    python data_scripts/mtop.py --languages eng_Latn,tha_Thai
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from data_scripts.common import arguments, build, fetch, members
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://dl.fbaipublicfiles.com/mtop"
ARCHIVE = "mtop.zip"
SHA256 = "0c086500aed2ed48d3df383c91664b152e4a46e2adef6a635fa16d508ebaec0b"
LANGUAGES = {  # our code: theirs
    "eng_Latn": "en",
    "deu_Latn": "de",
    "spa_Latn": "es",
    "fra_Latn": "fr",
    "hin_Deva": "hi",
    "tha_Thai": "th",
}
SPLITS = {"train.txt": "train", "eval.txt": "dev", "test.txt": "test"}
CONCEPTS = {
    "alarm": ["alarm", "clock"],
    "calling": ["call", "telephone"],
    "event": ["event", "concert"],
    "messaging": ["message", "chat"],
    "music": ["music", "song"],
    "news": ["news", "newspaper"],
    "people": ["person", "friend"],
    "recipes": ["recipe", "cooking"],
    "reminder": ["reminder", "task"],
    "timer": ["timer", "minute"],
    "weather": ["weather", "rain"],
}


def rows(archive, languages):
    """mtop/en/train.txt and so on: tab-separated, never quoted, without a header.

    id, intent, slots, utterance, domain, locale, parse, tokens. The class is the domain.
    """
    lang_of = {LANGUAGES[lang]: lang for lang in languages}
    wanted = [f"mtop/{code}/{file}" for code in lang_of for file in SPLITS]
    for name, table in members(archive, wanted):
        _, code, file = name.split("/")
        for number, line in enumerate(table.rstrip("\n").split("\n"), 1):
            cells = line.rstrip("\r").split("\t")
            if len(cells) != 8:
                raise UserError(f"{archive}: {name}: line {number}: "
                                f"{len(cells)} columns instead of 8")
            id_, intent, _, utterance, domain, *_ = cells
            yield SPLITS[file], id_, utterance, domain, lang_of[code], intent


def main():
    args = arguments(__doc__, URL, LANGUAGES)
    paths = fetch(args, {ARCHIVE: (None, SHA256)})
    build(args, CONCEPTS, rows(paths[ARCHIVE], args.languages), ["intent"])


if __name__ == "__main__":
    run_script(main)
