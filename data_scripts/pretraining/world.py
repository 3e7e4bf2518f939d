"""The text pocket is pretrained on, generated from MiniTopics (minirosprompt/pocket/minitopics).

Documents about one topic, sentences or bare lists, some of which name their topic, alone (masked LM) or followed by their
translation (translation LM, Conneau & Lample 2019), mixed with the train split's sentences, whose topics are not read. Dev and
test sentences are never trained on.
"""
import csv
import math
import random
import sys
import tempfile
from pathlib import Path

import sentencepiece
import torch

from minirosprompt import UserError
from minirosprompt.io.files import writing
from minirosprompt.classifier import Classifier, default_settings
from minirosprompt.data import Example, MINITOPICS_SEEN, MINITOPICS_SOURCE, length_buckets, load_label_words, load_split
from minirosprompt.prompt import pad
from minirosprompt.tokenizer import BOS, EOS, Tokenizer
from minirosprompt.io.weights import TOKENIZER_FILE

# Well-resourced first: language r of this list gets a share proportional to 1 / r^ZIPF.
LANGUAGES = ["eng_Latn", "zho_Hans", "spa_Latn", "rus_Cyrl", "deu_Latn", "fra_Latn", "arb_Arab", "tur_Latn", "ind_Latn",
             "hin_Deva", "swh_Latn", "yor_Latn"]
ZIPF = 0.5
NAMED = 0.3      # share of documents that name their topic, once
UNKNOWN = -30.0  # log P of a character that is no piece
LISTS = 0.5      # share of documents that are bare lists of concepts
NOISE = 0.1      # share of concepts that come from another topic


class World:
    """MiniTopics' tables as a source of documents. A document is rendered in a language only at the end."""

    def __init__(self, folder):
        def rows(name):
            with open(Path(folder) / name, encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file, delimiter="\t"))
        self.labels, self.concepts = {}, {}   # topic -> [{lang: phrase}]
        for row in rows("concepts.tsv"):
            kind = self.labels if row["concept"].startswith("label") else self.concepts
            kind.setdefault(row["topic"], []).append(row)
        self.topics = sorted(self.concepts)
        frames = rows("frames.tsv")
        self.frames = [row for row in frames if "{0}" in row["eng_Latn"]]
        self.slots = [row["eng_Latn"].count("{") for row in self.frames]  # a frame is drawn as often as it holds concepts
        self.naming = [row for row in frames if "{topic}" in row["eng_Latn"]]
        sentences = {}
        for row in rows("sentences.tsv"):
            if row["split"] == "train":  # its label is not read
                sentences.setdefault(row["id"], {})[row["lang"]] = row["text"]
        self.sentences = list(sentences.values())
        weights = [(r + 1) ** -ZIPF for r in range(len(LANGUAGES))]
        self.share = {lang: w / sum(weights) for lang, w in zip(LANGUAGES, weights)}

    def language(self, rng, other_than=None):
        while True:
            lang = rng.choices(LANGUAGES, self.share.values())[0]
            if lang != other_than:
                return lang

    def document(self, rng, topic=None, named=None):
        """-> a function lang -> text about one topic, which it perhaps names.

        Either 3 to 6 frames filled with the topic's concepts, or a bare list of 5 to 8 of them, like the tags of a page.
        """
        topic = topic or rng.choice(self.topics)

        def concepts(n):
            return [rng.choice(self.concepts[rng.choice(self.topics)]) if rng.random() < NOISE else concept
                    for concept in rng.sample(self.concepts[topic], n)]

        if rng.random() < LISTS:
            sentences = [(None, concepts(rng.randint(5, 8)), None)]
        else:
            sentences = [(rng.choices(self.frames, self.slots)[0], concepts(3), None) for _ in range(rng.randint(3, 6))]
        if rng.random() < NAMED if named is None else named:
            where = rng.randint(0, len(sentences))
            sentences.insert(where, (rng.choice(self.naming), [], rng.choice(self.labels[topic])))

        def render(lang):
            comma = {"zho_Hans": "、", "arb_Arab": "، "}.get(lang, ", ")
            filled = (frame[lang].format(*(c[lang] for c in chosen), topic=label and label[lang]) if frame
                      else comma.join(c[lang] for c in chosen) for frame, chosen, label in sentences)
            return ("" if lang == "zho_Hans" else " ").join(capital(text, lang) for text in filled)
        return render

    def sentence(self, rng):
        """A train sentence, as a function lang -> text."""
        return rng.choice(self.sentences).__getitem__

    def texts(self, rng, translation, sentences):
        """The next training example: one text, or a text and its translation."""
        lang = self.language(rng)
        render = self.sentence(rng) if rng.random() < sentences else self.document(rng)
        if rng.random() >= translation:
            return [render(lang)]
        return [render(lang), render(self.language(rng, other_than=lang))]


def capital(text, lang):
    """The text with its first letter in upper case."""
    return ("İ" if lang == "tur_Latn" and text[0] == "i" else text[0].upper()) + text[1:]


def train_tokenizer(world, path, vocab_size, rng):
    """A unigram SentencePiece model with XLM-R's normalisation, on text in which all languages weigh the same."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        with open(text, "w", encoding="utf-8") as file:
            for lang in LANGUAGES:
                phrases = [phrase[lang] for table in (world.concepts, world.labels) for of_topic in table.values()
                           for phrase in of_topic]
                lines = phrases * (60 if lang == "zho_Hans" else 20) + [capital(phrase, lang) for phrase in phrases] * 5
                lines += [sentence[lang] for sentence in world.sentences * 5]
                lines += [world.document(rng)(lang) for _ in range(100)]
                # SentencePiece takes a piece into account only if it occurs in two different words: "word" and "word,".
                # Chinese has no spaces, so there a phrase begins in the middle of a "word".
                for line in lines:
                    two = (f"，{line}。", f"、{line}、") if lang == "zho_Hans" else (line, line.replace(" ", ", ") + ",")
                    file.write("\n".join(two) + "\n")
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(text), model_prefix=str(Path(folder) / "spm"), vocab_size=vocab_size - 2, model_type="unigram",
                normalization_rule_name="nmt_nfkc", character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                shuffle_input_sentence=False, num_threads=1, minloglevel=2)
        except (RuntimeError, OverflowError) as error:  # its message says how many are needed, or possible
            raise UserError(f"--vocab-size {vocab_size}: {str(error).split('] ')[-1]}") from None
        with writing(path, "wb") as file:
            file.write((Path(folder) / "spm.model").read_bytes())


def join(spans, max_tokens):
    """[A] -> <s> A </s>;  [A, B] -> <s> A </s> </s> B </s>, as XLM-R joins a pair."""
    ids = [BOS] + spans[0] + [EOS]
    for span in spans[1:]:
        ids += [EOS] + span + [EOS]
    return ids[:max_tokens]


class Subwords:
    """Subword regularisation (Kudo 2018): a word's segmentation is drawn with probability ~ P(segmentation)^alpha.

    Forward filtering, backward sampling over the pieces that end at each character. Pieces never cross a space, so each word is
    drawn on its own. (SentencePiece's own sampling is not the same in every process.)
    """

    def __init__(self, tokenizer, alpha):
        sp, self.tokenizer, self.alpha, self.known = tokenizer.sp, tokenizer, alpha, {}
        self.score = {sp.id_to_piece(i): sp.get_score(i) for i in range(EOS + 1, sp.get_piece_size())}  # log P of a piece

    def ends(self, word):
        """-> for every place in "▁word" the pieces that end there: (starts, weights), the weight summed over all ways to get there."""
        text, total, ends = "".join(self.tokenizer.sp.encode(word, out_type=str)), [0.0], []
        for end in range(1, len(text) + 1):
            starts = [start for start in range(end) if text[start:end] in self.score] or [end - 1]
            logs = [total[start] + self.alpha * self.score.get(text[start:end], UNKNOWN) for start in starts]
            top = max(logs)
            weights = [math.exp(log - top) for log in logs]
            total.append(top + math.log(sum(weights)))
            ends.append((starts, weights))
        return text, ends

    def __call__(self, text, rng):
        ids = []
        for word in text.split():
            if word not in self.known:
                self.known[word] = self.ends(word)
            word, ends = self.known[word]
            pieces, end = [], len(word)
            while end:
                start = rng.choices(*ends[end - 1])[0]
                pieces.append(word[start:end])
                end = start
            ids += self.tokenizer.xlmr_ids(self.tokenizer.sp.piece_to_id(pieces[::-1]))
        return ids


class Documents:
    """An endless stream of generated documents, as pretrain.py reads it (see packed.py for the other kind)."""

    def __init__(self, args):
        """Trains the tokenizer, unless a run that is resumed has done so."""
        self.args, self.world = args, World(args.minitopics)
        if not (args.resume and (args.out / TOKENIZER_FILE).exists()):
            train_tokenizer(self.world, args.out / TOKENIZER_FILE, args.vocab_size, random.Random(args.seed))
        self.tokenizer, self.share = Tokenizer(args.out / TOKENIZER_FILE), self.world.share
        self.subwords = Subwords(self.tokenizer, args.subword_alpha)
        rng = random.Random("held out")
        self.sample = [self.row(rng) for _ in range(2000)]
        self.held_out = {"all": [pad(self.sample[i:i + 32]) for i in range(0, 256, 32)]}

    def __str__(self):
        return f"{len(self.world.sentences)} train sentences a language, {len(self.world.frames)} frames"

    def row(self, rng, regularise=False):
        texts = self.world.texts(rng, self.args.translation, self.args.sentences)
        spans = [self.subwords(text, rng) for text in texts] if regularise else self.tokenizer.encode(texts)
        return join(spans, self.args.max_tokens)

    def pool(self, number, batches):
        """Batches of about args.batch_tokens tokens, of texts of similar length (so that little is padding): ids (B, T).

        Subword regularisation comes in halfway, when the words are known whole.
        """
        args, rng, rows = self.args, random.Random(f"{self.args.seed} {number}"), []
        late = number * batches * args.batch_tokens > args.tokens / 2
        while sum(map(len, rows)) < batches * args.batch_tokens:
            rows.append(self.row(rng, late and rng.random() < 0.5))
        cut = length_buckets(rows, args.batch_tokens)
        rng.shuffle(cut)
        return [pad([rows[j] for j in batch]) for batch in cut]

    def look(self, model):
        """-> numbers for the log, by which the plateau can be seen."""
        naming, dev = naming_accuracy(model, self.tokenizer, self.world), zero_shot(model, self.tokenizer, self.args.minitopics)
        return {"zero_shot": round(dev, 3), "naming": {lang: round(a, 3) for lang, a in naming.items()}}


@torch.no_grad()
def naming_accuracy(model, tokenizer, world):
    """Held-out documents with their topic's name masked: how often does the right topic score best?

    -> {lang: accuracy} over 10 documents a topic. This is the pretraining task itself; no sentence is read.
    """
    settings = default_settings(template="{text} {mask}", hard_prompt="", k=12)
    accuracy = {}
    labels = torch.arange(len(world.topics)).repeat(10)
    for lang in LANGUAGES:
        rng = random.Random(f"naming {lang}")
        naming = world.naming[1][lang].split("{topic}")[0]
        texts = [world.document(rng, topic, named=False)(lang) for topic in world.topics * 10]
        examples = [Example(f"{text} {naming}") for text in texts]
        words = {topic: [word[lang] for word in world.labels[topic]] for topic in world.topics}
        scores = Classifier(model, tokenizer, words, settings).score(examples)
        accuracy[lang] = (scores.argmax(1) == labels).float().mean().item()
    return accuracy


@torch.no_grad()
def zero_shot(model, tokenizer, folder):
    """Accuracy of a plain hard prompt on dev sentences: all topics compete, chance is 1 in 12.

    Seen classes in source languages only, which is what train.py itself selects on.
    """
    words = load_label_words(Path(folder) / "labels.json")
    dev = [e for e in load_split(folder, "dev")
           if e.label in MINITOPICS_SEEN and e.lang in MINITOPICS_SOURCE]
    labels = torch.tensor([list(words).index(e.label) for e in dev])
    classifier = Classifier(model, tokenizer, words, default_settings(k=12))
    return (classifier.score(dev).argmax(1) == labels).float().mean().item()
