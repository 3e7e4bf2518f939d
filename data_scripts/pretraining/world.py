"""The text pocket is pretrained on, generated from MiniTopics (minirosprompt/pocket/minitopics).

Documents about one topic, sentences or bare lists, some of which name their topic, alone (masked
LM) or followed by their translation (translation LM, Conneau & Lample 2019), mixed with the train
split's sentences, whose topics are not read. Dev and test sentences are never trained on.
"""
import csv
import math
import random
import tempfile
from pathlib import Path

import sentencepiece
import torch

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, default_settings
from minirosprompt.data import (
    MINITOPICS_SEEN,
    MINITOPICS_SOURCE,
    Example,
    length_buckets,
    load_label_words,
    load_split,
)
from minirosprompt.io.files import writing
from minirosprompt.io.weights import TOKENIZER_FILE
from minirosprompt.prompt import pad
from minirosprompt.tokenizer import BOS, EOS, Tokenizer

# Well-resourced first: language r of this list gets a share proportional to 1 / r^ZIPF.
LANGUAGES = ["eng_Latn", "zho_Hans", "spa_Latn", "rus_Cyrl", "deu_Latn", "fra_Latn", "arb_Arab",
             "tur_Latn", "ind_Latn", "hin_Deva", "swh_Latn", "yor_Latn"]
ZIPF = 0.5
NAMED = 0.3      # share of documents that name their topic, once
LISTS = 0.5      # share of documents that are bare lists of concepts
NOISE = 0.1      # share of concepts that come from another topic
UNKNOWN = -30.0  # log P of a character that is no piece


# ---- documents -----------------------------------------------------------------------------------

class World:
    """MiniTopics' tables as a source of documents.

    A document is a function lang -> text: it is rendered in a language only at the end.
    labels, concepts: {topic: [{lang: phrase}]}; frames, naming, sentences: [{lang: text}];
    share: {lang: probability of being drawn}.
    """

    def __init__(self, folder):
        folder = Path(folder)
        self.labels = {}
        self.concepts = {}
        for row in read_table(folder / "concepts.tsv"):
            kind = self.labels if row["concept"].startswith("label") else self.concepts
            kind.setdefault(row["topic"], []).append(row)
        self.topics = sorted(self.concepts)

        frames = read_table(folder / "frames.tsv")
        self.frames = [row for row in frames if "{0}" in row["eng_Latn"]]
        self.naming = [row for row in frames if "{topic}" in row["eng_Latn"]]
        # A frame is drawn the more often, the more concepts it holds.
        self.slots = [row["eng_Latn"].count("{") for row in self.frames]

        sentences = {}
        for row in read_table(folder / "sentences.tsv"):
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

    def draw_concepts(self, rng, topic, n):
        """-> n concepts of the topic, a few of them replaced by concepts of any topic."""
        chosen = rng.sample(self.concepts[topic], n)
        for i in range(n):
            if rng.random() < NOISE:
                any_topic = rng.choice(self.topics)
                chosen[i] = rng.choice(self.concepts[any_topic])
        return chosen

    def document(self, rng, topic=None, named=None):
        """-> a function lang -> text about one topic, which it perhaps names.

        Either 3 to 6 frames filled with the topic's concepts, or a bare list of 5 to 8 of them,
        like the tags of a page. named: does it name its topic? None: the dice say.
        """
        topic = topic or rng.choice(self.topics)
        sentences = []   # (frame, or None for a list; concepts; name of the topic, or None)
        if rng.random() < LISTS:
            concepts = self.draw_concepts(rng, topic, rng.randint(5, 8))
            sentences.append((None, concepts, None))
        else:
            for _ in range(rng.randint(3, 6)):
                frame = rng.choices(self.frames, self.slots)[0]
                concepts = self.draw_concepts(rng, topic, 3)
                sentences.append((frame, concepts, None))
        if named is None:
            named = rng.random() < NAMED
        if named:
            place = rng.randint(0, len(sentences))
            frame = rng.choice(self.naming)
            label = rng.choice(self.labels[topic])
            sentences.insert(place, (frame, [], label))

        def render(lang):
            texts = [render_sentence(*sentence, lang) for sentence in sentences]
            space = "" if lang == "zho_Hans" else " "
            return space.join(capital(text, lang) for text in texts)
        return render

    def sentence(self, rng):
        """A train sentence, as a function lang -> text."""
        return rng.choice(self.sentences).__getitem__

    def texts(self, rng, translation, sentences):
        """The next training example: one text, or a text and its translation.

        translation, sentences: shares of translation pairs and of train sentences.
        """
        lang = self.language(rng)
        render = self.sentence(rng) if rng.random() < sentences else self.document(rng)
        if rng.random() >= translation:
            return [render(lang)]
        other = self.language(rng, other_than=lang)
        return [render(lang), render(other)]


def read_table(path):
    """A TSV file of MiniTopics -> [{column: cell}]."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def render_sentence(frame, concepts, label, lang):
    """A frame filled with concepts and the topic's name, or (no frame) the concepts alone."""
    phrases = [concept[lang] for concept in concepts]
    if frame is None:
        comma = {"zho_Hans": "、", "arb_Arab": "، "}.get(lang, ", ")
        return comma.join(phrases)
    return frame[lang].format(*phrases, topic=label and label[lang])


def capital(text, lang):
    """The text with its first letter in upper case."""
    first = "İ" if lang == "tur_Latn" and text[0] == "i" else text[0].upper()
    return first + text[1:]


# ---- tokens --------------------------------------------------------------------------------------

def train_sentencepiece(text_file, vocab_size, character_coverage):
    """A file with a text a line -> XLM-R's kind of SentencePiece model, bytes.

    Unigram, XLM-R's normalisation. vocab_size: V, special tokens included. Raises UserError for a
    size that the text does not allow.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "spm"
        try:
            sentencepiece.SentencePieceTrainer.train(
                input=str(text_file), model_prefix=str(prefix), model_type="unigram",
                # XLM-R has two ids more: <pad> and <mask> (minirosprompt/tokenizer.py).
                vocab_size=vocab_size - 2, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                normalization_rule_name="nmt_nfkc", character_coverage=character_coverage,
                # One thread and no shuffling, so that its pieces are the same each time.
                shuffle_input_sentence=False, num_threads=1, minloglevel=2)
        except (RuntimeError, OverflowError) as error:
            # Its message says how many are needed, or possible.
            fault = str(error).split("] ")[-1]
            raise UserError(f"--vocab-size {vocab_size}: {fault}") from None
        return prefix.with_suffix(".model").read_bytes()


def train_tokenizer(world, path, vocab_size, rng):
    """Writes a SentencePiece model, trained on text in which all languages weigh the same."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        with open(text, "w", encoding="utf-8") as file:
            for lang in LANGUAGES:
                for line in tokenizer_lines(world, lang, rng):
                    # SentencePiece takes a piece into account only if it occurs in two different
                    # words: "word" and "word,". Chinese has no spaces, so there a phrase begins in
                    # the middle of a "word".
                    if lang == "zho_Hans":
                        file.write(f"，{line}。\n、{line}、\n")
                    else:
                        with_commas = line.replace(" ", ", ") + ","
                        file.write(f"{line}\n{with_commas}\n")
        model = train_sentencepiece(text, vocab_size, character_coverage=1.0)
    with writing(path, "wb") as file:
        file.write(model)


def tokenizer_lines(world, lang, rng):
    """-> lines of one language: every phrase many times, train sentences, documents."""
    phrases = []
    for table in (world.concepts, world.labels):
        for of_topic in table.values():
            phrases += [phrase[lang] for phrase in of_topic]
    lines = phrases * (60 if lang == "zho_Hans" else 20)
    lines += [capital(phrase, lang) for phrase in phrases] * 5
    lines += [sentence[lang] for sentence in world.sentences] * 5
    lines += [world.document(rng)(lang) for _ in range(100)]
    return lines


def join(spans, max_tokens):
    """[A] -> <s> A </s>;  [A, B] -> <s> A </s> </s> B </s>, as XLM-R joins a pair."""
    ids = [BOS] + spans[0] + [EOS]
    for span in spans[1:]:
        ids += [EOS] + span + [EOS]
    return ids[:max_tokens]


class Subwords:
    """Subword regularisation (Kudo 2018): a word is cut with probability ~ P(segmentation)^alpha.

    Forward filtering, backward sampling over the pieces that end at each character. Pieces never
    cross a space, so each word is drawn on its own. (SentencePiece's own sampling is not the same
    in every process.)
    """

    def __init__(self, tokenizer, alpha):
        self.tokenizer = tokenizer
        self.alpha = alpha
        sp = tokenizer.sp
        ordinary = range(EOS + 1, sp.get_piece_size())
        self.score = {sp.id_to_piece(i): sp.get_score(i) for i in ordinary}   # log P of a piece
        self.known = {}   # what `ends` has answered, by word

    def ends(self, word):
        """-> ("▁word", for every place in it the pieces that end there: (starts, weights)).

        A weight is summed over all ways to get to that piece's start.
        """
        text = "".join(self.tokenizer.sp.encode(word, out_type=str))
        total = [0.0]   # log of the sum over all ways to get to each place
        ends = []
        for end in range(1, len(text) + 1):
            starts = [start for start in range(end) if text[start:end] in self.score]
            starts = starts or [end - 1]   # a character that is no piece
            logs = []
            for start in starts:
                score = self.score.get(text[start:end], UNKNOWN)
                logs.append(total[start] + self.alpha * score)
            top = max(logs)
            weights = [math.exp(log - top) for log in logs]
            total.append(top + math.log(sum(weights)))
            ends.append((starts, weights))
        return text, ends

    def __call__(self, text, rng):
        """Text -> ids without <s> and </s>, cut at random."""
        ids = []
        for word in text.split():
            if word not in self.known:
                self.known[word] = self.ends(word)
            word, ends = self.known[word]
            pieces = []   # from the last to the first
            end = len(word)
            while end > 0:
                starts, weights = ends[end - 1]
                start = rng.choices(starts, weights)[0]
                pieces.append(word[start:end])
                end = start
            spm_ids = self.tokenizer.sp.piece_to_id(pieces[::-1])
            ids += self.tokenizer.xlmr_ids(spm_ids)
        return ids


# ---- what pretrain.py reads ----------------------------------------------------------------------

class Documents:
    """An endless stream of generated documents (packed.py has the other kind)."""

    def __init__(self, args):
        """args: pretrain.py's. Trains the tokenizer, unless a run that is resumed has done so."""
        self.args = args
        self.world = World(args.minitopics)
        self.share = self.world.share
        path = args.out / TOKENIZER_FILE
        trained = args.resume and path.exists()
        if not trained:
            train_tokenizer(self.world, path, args.vocab_size, random.Random(args.seed))
        self.tokenizer = Tokenizer(path)
        self.subwords = Subwords(self.tokenizer, args.subword_alpha)
        rng = random.Random("held out")
        self.sample = [self.row(rng) for _ in range(2000)]
        self.held_out = {"all": [pad(self.sample[i:i + 32]) for i in range(0, 256, 32)]}

    def __str__(self):
        sentences = len(self.world.sentences)
        return f"{sentences} train sentences a language, {len(self.world.frames)} frames"

    def row(self, rng, regularise=False):
        """-> the next example, a list of ids."""
        texts = self.world.texts(rng, self.args.translation, self.args.sentences)
        if regularise:
            spans = [self.subwords(text, rng) for text in texts]
        else:
            spans = self.tokenizer.encode(texts)
        return join(spans, self.args.max_tokens)

    def pool(self, number, batches):
        """About so many batches of about args.batch_tokens tokens: list of ids (B, T).

        Texts of like length go together, so that little is padding. A pool depends on the seed and
        its number alone.
        """
        rng = random.Random(f"{self.args.seed} {number}")
        wanted = batches * self.args.batch_tokens
        # Subword regularisation comes in halfway, when the words are known whole.
        late = number * wanted > self.args.tokens / 2
        rows = []
        tokens = 0
        while tokens < wanted:
            regularise = late and rng.random() < 0.5
            rows.append(self.row(rng, regularise))
            tokens += len(rows[-1])
        buckets = length_buckets(rows, self.args.batch_tokens)
        rng.shuffle(buckets)
        return [pad([rows[i] for i in bucket]) for bucket in buckets]

    def look(self, model):
        """-> numbers for the log, by which the plateau can be seen."""
        naming = naming_accuracy(model, self.tokenizer, self.world)
        dev = zero_shot(model, self.tokenizer, self.args.minitopics)
        rounded = {lang: round(accuracy, 3) for lang, accuracy in naming.items()}
        return {"zero_shot": round(dev, 3), "naming": rounded}

    def describe(self, more):
        """The same in words."""
        naming = more["naming"]
        mean = sum(naming.values()) / len(naming)
        lowest = min(naming, key=naming.get)
        return (f", dev sentences {more['zero_shot']:.0%}, naming {mean:.0%}, "
                f"lowest {lowest} {naming[lowest]:.0%}")


# ---- what a model has learnt ---------------------------------------------------------------------

@torch.no_grad()
def naming_accuracy(model, tokenizer, world):
    """Held-out documents, their topic's name masked: how often does the right topic score best?

    -> {lang: accuracy} over 10 documents a topic. This is the pretraining task itself; no sentence
    is read.
    """
    settings = default_settings(template="{text} {mask}", hard_prompt="", k=12)
    labels = torch.arange(len(world.topics)).repeat(10)                             # (N,)
    accuracy = {}
    for lang in LANGUAGES:
        rng = random.Random(f"naming {lang}")
        naming = world.naming[1][lang].split("{topic}")[0]
        examples = []
        for topic in world.topics * 10:
            document = world.document(rng, topic, named=False)
            examples.append(Example(f"{document(lang)} {naming}"))
        words = {}
        for topic in world.topics:
            words[topic] = [label[lang] for label in world.labels[topic]]
        scores = Classifier(model, tokenizer, words, settings).score(examples)      # (N, C)
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
    classifier = Classifier(model, tokenizer, words, default_settings(k=12))
    labels = torch.tensor([classifier.classes.index(e.label) for e in dev])         # (N,)
    scores = classifier.score(dev)                                                  # (N, C)
    return (scores.argmax(1) == labels).float().mean().item()
