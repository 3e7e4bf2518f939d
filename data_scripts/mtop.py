"""MTOP (Li et al., EACL 2021): requests to an assistant in 6 languages, by domain. CC BY-SA 4.0.

    python data_scripts/mtop.py                                       # 8.6 MB
    python data_scripts/mtop.py --languages eng_Latn,tha_Thai
"""
from data_scripts.common import arguments, build, fetch, members
from minirosprompt import UserError
from minirosprompt.io.cli import run as run_script

URL = "https://dl.fbaipublicfiles.com/mtop"
ARCHIVE = {"mtop.zip": (None, "0c086500aed2ed48d3df383c91664b152e4a46e2adef6a635fa16d508ebaec0b")}
LANGUAGES = {"eng_Latn": "en", "deu_Latn": "de", "spa_Latn": "es", "fra_Latn": "fr", "hin_Deva": "hi", "tha_Thai": "th"}
SPLITS = {"train.txt": "train", "eval.txt": "dev", "test.txt": "test"}
CONCEPTS = {"alarm": ["alarm", "clock"], "calling": ["call", "telephone"], "event": ["event", "concert"],
            "messaging": ["message", "chat"], "music": ["music", "song"], "news": ["news", "newspaper"],
            "people": ["person", "friend"], "recipes": ["recipe", "cooking"],
            "reminder": ["reminder", "task"], "timer": ["timer", "minute"], "weather": ["weather", "rain"]}


def rows(archive, languages):
    lang_of = {LANGUAGES[lang]: lang for lang in languages}
    for name, text in members(archive, [f"mtop/{code}/{file}" for code in lang_of for file in SPLITS]):
        _, code, file = name.split("/")
        for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
            cells = line.rstrip("\r").split("\t")  # id, intent, slots, utterance, domain, locale, parse, tokens; never quoted
            if len(cells) != 8:
                raise UserError(f"{archive}: {name}: line {number}: {len(cells)} columns instead of 8")
            yield SPLITS[file], cells[0], cells[3], cells[4], lang_of[code], cells[1]


def main():
    args = arguments(__doc__, URL, LANGUAGES)
    build(args, CONCEPTS, rows(fetch(args, ARCHIVE)["mtop.zip"], args.languages), ["intent"])


if __name__ == "__main__":
    run_script(main)
