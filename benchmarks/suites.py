"""What ablations.py runs: for every data set its tables, and what their rows change."""
from dataclasses import dataclass, field


def each(flag, *values):
    """("--k", 3, 12) -> ["--k 3", "--k 12"]"""
    return [f"{flag} {value}" for value in values]


@dataclass
class Suite:
    """Tables that share a data set.

    tables: {name: (what is changed, what the default is called or None, flags of the other rows)};
    flags: of every row; cells: {cell of ablations.value: name of the column}; tested_on: {table:
    data folder} where that is not the one trained on; about: the head of the Markdown file.
    """
    encoder: str
    tables: dict
    cells: dict
    about: str
    flags: list = field(default_factory=list)
    languages: str = None
    tested_on: dict = field(default_factory=dict)


# ---- MiniTopics with pocket ----------------------------------------------------------------------

FOUR = "eng_Latn,spa_Latn,rus_Cyrl,zho_Hans"  # MiniTopics' source languages
TWELVE = f"{FOUR},deu_Latn,fra_Latn,arb_Arab,tur_Latn,ind_Latn,hin_Deva,swh_Latn,yor_Latn"
UNEQUAL = "eng_Latn,zho_Hans,swh_Latn,yor_Latn"

MINITOPICS = {
    "length": ("prompt length P", "--prompt-length 8", each("--prompt-length", 1, 2, 4, 16, 32)),
    "init": ("initialisation", "--init words", each("--init", "vocab", "normal")),
    "placement": (
        "template", "--template '{prompt} {mask} {text}'",
        each("--template", "'{text} {prompt} {mask}'", "'{text} {mask} {prompt}'",
             "'{prompt} {text} {mask}'")),
    "eta": ("step size of q", "--eta 0.3", each("--eta", 0.01, 0.1, 1, 3)),
    "calibration": (
        "calibration", "none",
        ["--calibration contextual", "--stacking 0.5", "--stacking 1", "--stacking 2"]),
    "shots": ("shots a class and language", "--shots 8", each("--shots", 1, 2, 4)),
    "labels": (
        "languages of the label words", "all twelve", each("--label-languages", FOUR, "eng_Latn")),
    "k": ("neighbours K", "--k 1", each("--k", 3, 12, 30)),
    "groups": (
        "groups", "--group-by lang", each("--group-by", "label", "lang,label", "domain")),
    "source": (
        "source languages", f"--source {FOUR}",
        each("--source", "eng_Latn", "eng_Latn,spa_Latn", f"{FOUR},deu_Latn,arb_Arab", TWELVE)),
    "unequal": (
        "two well- and two low-resource source languages", None,
        each("--source", UNEQUAL, f"{UNEQUAL} --eta 3", f"{UNEQUAL} --eta 3 --steps 30",
             f"{UNEQUAL} --eta 3 --steps 300")),
    "steps": ("steps", "--steps 100", each("--steps", 20, 50, 200, 400)),
    "lr": ("learning rate", "--lr 0.01", each("--lr", 0.003, 0.03, 0.1)),
    "verbalizer": (
        "verbalizer", "--verbalizer words",
        # As many seeds and steps as the words have.
        each("--verbalizer states --label-languages all --seeds 0 1 2 --steps 100",
             "--combine max", "--combine mean",
             "--pooling mask --template '{prompt} {mask} {text}'")),
}
MINITOPICS_ABOUT = """
Three seeds, mean ± sd; accuracy in %, all classes compete. *unseen*: unseen classes, target
languages; *harmonic*: of seen and unseen classes, target languages; *worst*: unseen classes, the
worst language. The first row of a table is the default, where a table has one. **Nothing has been
chosen by these tables**: the defaults were chosen on dev ([`log.md`](log.md)), the template
when an earlier table of this kind had shown how much it matters.

A language has 40 texts of unseen classes, so 2.5 points of *worst* are one text; the eight target
languages have 320: differences of five points and less are noise.
"""

# ---- SIB-200 -------------------------------------------------------------------------------------

SEEN = ["science/technology", "politics", "sports", "health"]
SOURCE = ["eng_Latn", "deu_Latn", "spa_Latn", "rus_Cyrl", "arb_Arab", "zho_Hans"]
SIX = ",".join(SOURCE)
SIB200_FLAGS = ["--data", "data/sib200", "--shots", "16", "--dtype", "bfloat16",
                "--seen", ",".join(SEEN), "--source", SIX]
# Eight target languages with much text in XLM-R, eight with little, eight with none, drawn at
# random: all 205 would take nine times as long.
SAMPLE = ("bul_Cyrl,kat_Geor,lit_Latn,pes_Arab,pol_Latn,por_Latn,swe_Latn,tam_Taml,"
          "amh_Ethi,hye_Armn,kan_Knda,mar_Deva,mkd_Cyrl,mya_Mymr,plt_Latn,san_Deva,"
          "ajp_Arab,fao_Latn,kea_Latn,knc_Arab,lua_Latn,lus_Latn,tat_Cyrl,vec_Latn")
SIB200 = {
    "length": ("prompt length P", "--prompt-length 8", each("--prompt-length", 1, 2, 4, 16, 32)),
    "init": ("initialisation", "--init words",
             each("--init", "vocab", "normal", "words --hard-prompt query:")),
    "shots": ("shots a class and language", "--shots 16", each("--shots", 1, 2, 4, 8, 32, 64)),
    "source": (
        "source languages", f"--source {SIX}",
        each("--source", "eng_Latn", "eng_Latn,deu_Latn,spa_Latn",
             f"{SIX},fra_Latn,hin_Deva,ind_Latn,swh_Latn,tur_Latn,yor_Latn")),
    "placement": (
        "template and pooling", "--template '{prompt} {text}'",
        each("--template", "'{text} {prompt}'", "'{prompt} {mask} {text}' --pooling mask",
             "'{prompt} {text} {mask}' --pooling mask")),
    "temperature": ("temperature", "--temperature 0.05", each("--temperature", 0.02, 0.1)),
    "labels": (
        "label words", "two English words, the best", [
            "--label-words 1", "--combine mean", f"--label-languages {SIX}",
            f"--label-languages {SIX} --combine mean", "--label-languages all",
            "--label-languages all --combine mean"]),
    "steps": ("steps", "--steps 20", each("--steps", 10, 40, 80)),
    "lr": ("learning rate", "--lr 0.01", each("--lr", 0.003, 0.03)),
    "dro": (
        "group DRO", "--objective erm",
        each("--objective group-dro", "--eta 0.3", "--eta 0.03", "--eta 3", "--group-by label",
             "--group-by lang,label")),
}
SIB200_ABOUT = """
Three seeds, mean ± sd; accuracy in %, **dev** split (the test split is for RESULTS.md's tables
alone), ERM, 24 target languages drawn at random, eight of each kind (SAMPLE in
benchmarks/suites.py). *seen*, *unseen*: classes; *harmonic*: of the two; *worst*: unseen classes,
the worst language. A language has 99 texts, 37 of them of unseen classes, and all have the same
sentences: differences of five points and less are noise. **Nothing has been chosen by these
tables** ([`log.md`](log.md) says what was chosen, and by what).
"""

# ---- sources of unequal size, as real data have them ---------------------------------------------

# 64 texts a class in two of the source languages, 4 in the other three.
UNBALANCED_FLAGS = [
    *SIB200_FLAGS[:-1], "eng_Latn,spa_Latn,swh_Latn,yor_Latn,khm_Khmr",
    "--shots", "64", "64", "4", "4", "4", "--steps", "40", "--seeds", *"01234"]
UNBALANCED = {
    "batches": ("plain mean over batches", None, [
        "--sampler natural --objective erm", "--sampler balanced --objective erm"]),
    "dro": ("group DRO, batches balanced but for the last row", None, each(
        "--objective group-dro", "--eta 0.03", "--eta 0.3", "--eta 3", "--group-by label",
        "--group-by lang,label", "--sampler natural")),
}
UNBALANCED_ABOUT = """
64 texts a class in English and Spanish, 4 in Swahili, Yoruba and Khmer. Five seeds, mean ± sd;
accuracy in %, test split of SIB-200, 24 target languages drawn at random, eight of each kind, and
the five source languages. *all*, *unseen*: classes, target languages; *worst*: the worst target
language, all classes; *sources*, *worst source*: source languages, all classes.
"""

# ---- words at the mask, of an encoder that has learnt to say them --------------------------------

WORDS_FLAGS = [
    *SIB200_FLAGS, "--split", "dev", "--steps", "40", "--label-languages", "eng_Latn",
    "--label-words", "2", "--template", "{prompt} {mask} . {text}", "--hard-prompt",
    "This is about", "--combine", "mean", "--seeds", *"01234"]
WORDS = {
    "words": ("over a class's two words", "--combine mean", ["--combine max"]),
    "states": ("names that the encoder reads itself", None, [
        "--verbalizer states --combine max --template '{prompt} {text}' --hard-prompt "
        "'query: news:' --steps 20"]),
    "k": ("neighbours K", "--k 1", each("--k", 4, 8, 32)),
    "labels": ("label words, two a language", "English", [
        f"--label-languages {SIX}", f"--label-languages {SIX} --k 8"]),
    "calibration": ("at test time", "none", ["--calibration contextual"]),
}
WORDS_ABOUT = """
SIB-200, **dev** split, 24 target languages drawn at random, eight of each kind (SAMPLE in
benchmarks/suites.py); mean ± sd over five seeds; accuracy in %. *seen*, *unseen*: classes; *all*:
all texts; *worst*: the worst language, all classes. The encoder is
data_scripts/pretraining/add_head.py's; the README beside it says what it has read. **Nothing has
been chosen by these tables.**
"""

# ---- trained on MiniTopics, tested on other data -------------------------------------------------

CROSS = {name: (f"trained on MiniTopics, tested on {name}", None,
                ["--shots 8", "--source eng_Latn"])
         for name in ("sib200", "masakhanews", "taxi1500", "agnews", "massive", "mtop")}
CROSS_ABOUT = """
Trained on MiniTopics' seven seen classes (in four languages; in English alone), tested on the test
split of another data set, with its own classes and names. Five seeds, mean ± sd; accuracy in %, the
mean over languages, and the worst of them. *gain*: over the hard prompt, mean over texts, with its
95 % interval over sentences (translations together).
"""

SUITES = {
    "minitopics": Suite(
        "pocket", MINITOPICS,
        {"target unseen": "unseen", "target harmonic": "harmonic", "worst unseen": "worst"},
        MINITOPICS_ABOUT),
    "sib200": Suite(
        "multilingual-e5-small", SIB200,
        {"target seen": "seen", "target unseen": "unseen", "target harmonic": "harmonic",
         "worst unseen": "worst"},
        SIB200_ABOUT,
        [*SIB200_FLAGS, "--split", "dev", "--seeds", *"012", "--objective", "erm"], SAMPLE),
    "unbalanced": Suite(
        "multilingual-e5-small", UNBALANCED,
        {"target all": "all", "target unseen": "unseen", "worst target all": "worst",
         "source all": "sources", "worst source all": "worst source"},
        UNBALANCED_ABOUT, UNBALANCED_FLAGS,
        f"{SAMPLE},eng_Latn,spa_Latn,swh_Latn,yor_Latn,khm_Khmr"),
    "words": Suite(
        "runs/me5-mlm", WORDS,
        {"target seen": "seen", "target unseen": "unseen", "target all": "all",
         "worst all": "worst"},
        WORDS_ABOUT, WORDS_FLAGS, SAMPLE),
    "cross": Suite(
        "multilingual-e5-small", CROSS,
        {"all": "all", "worst all": "worst", "gain": "gain (95 %)"}, CROSS_ABOUT,
        ["--dtype", "bfloat16", "--seeds", *"01234"],
        tested_on={name: f"data/{name}" for name in CROSS}),
}
