"""Pretrain a small XLM-R from scratch: where the encoder's knowledge comes from.

    python data_scripts/pretrain.py --out runs/pocket                 # what made minirosprompt/pocket, under an hour on 2 cores
    python data_scripts/pretrain.py --out runs/try --tokens 3000000   # a look at the first plateau
    python data_scripts/pretrain.py --out runs/pocket --resume        # after an interruption

The text is generated from MiniTopics (minirosprompt/pocket/minitopics): documents about one topic, sentences
or bare lists, some of which name their topic, alone (masked LM) or followed by their translation (translation LM, Conneau &
Lample 2019), mixed with the train split's sentences, whose topics are not read. Dev and test sentences are never trained on.
"""
import argparse
import csv
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import sentencepiece
import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from eval import score
from minirosprompt import UserError
from minirosprompt.checkpoint import load_state, pick_device, save_state, write_json, writing
from minirosprompt.cli import Parser, below_one, nonnegative, positive, run as run_script, whole
from minirosprompt.data import (MINITOPICS, MINITOPICS_SEEN, MINITOPICS_SOURCE, length_buckets, load_label_words,
                                load_split)
from minirosprompt.prompt import PromptedEncoder, Template, pad
from minirosprompt.tokenizer import BOS, EOS, PAD, Tokenizer
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.weights import TOKENIZER_FILE, save_encoder
from minirosprompt.xlmr import Config, XLMR

# Well-resourced first: language r of this list gets a share proportional to 1 / r^ZIPF.
LANGUAGES = ["eng_Latn", "zho_Hans", "spa_Latn", "rus_Cyrl", "deu_Latn", "fra_Latn", "arb_Arab", "tur_Latn", "ind_Latn",
             "hin_Deva", "swh_Latn", "yor_Latn"]
ZIPF = 0.5
NAMED = 0.3      # share of documents that name their topic, once
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


def encode(tokenizer, texts, sample, max_tokens):
    """[A] -> <s> A </s>;  [A, B] -> <s> A </s> </s> B </s>, as XLM-R joins a pair."""
    spans = tokenizer.encode(texts, sample)
    ids = [BOS] + spans[0] + [EOS]
    for span in spans[1:]:
        ids += [EOS] + span + [EOS]
    return ids[:max_tokens]


POOL = 16  # batches that are generated, sorted by length and shuffled together


def batches(world, tokenizer, args, pool=0, skip=0):
    """Endless batches of about args.batch_tokens tokens, of texts of similar length (so that little is padding).

    Yields (ids (B, T), number of its pool, number in its pool). A pool depends on (seed, its number) alone, so a resumed run
    goes on with the batches it would have had. Subword regularisation comes in halfway, when the words are known whole.
    """
    while True:
        rng = random.Random(f"{args.seed} {pool}")
        sentencepiece.set_random_generator_seed(rng.randrange(2**31))
        late, rows = pool * POOL * args.batch_tokens > args.tokens / 2, []
        while sum(map(len, rows)) < POOL * args.batch_tokens:
            sample = args.subword_alpha if late and rng.random() < 0.5 else None
            rows.append(encode(tokenizer, world.texts(rng, args.translation, args.sentences), sample, args.max_tokens))
        cut = length_buckets(rows, args.batch_tokens)
        rng.shuffle(cut)
        for i, batch in enumerate(cut):
            if i >= skip:
                yield pad([rows[j] for j in batch]), pool, i
        pool, skip = pool + 1, 0


def word_starts(tokenizer):
    """(V,) bool: does this id begin a word? "▁" does, and so does every piece of a script that is written without spaces."""
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    return torch.tensor([i in tokenizer.special or piece.startswith("▁") or "\u3000" <= piece[0] <= "\u9fff"
                         for i, piece in enumerate(pieces)])


def mask_rates(rows, vocab_size, rate, common):
    """(V,) probability of masking each id: `rate`, less for common ones, by Mikolov et al. 2013: rate sqrt(common / f).

    f is an id's frequency in `rows`. Nouns carry the topic, and without this most masks would fall on "the" and ",".
    """
    f = torch.bincount(torch.cat([torch.tensor(row) for row in rows]), minlength=vocab_size).float()
    return rate * (common * f.sum() / f.clamp(min=1)).sqrt().clamp(max=1)


def mask_tokens(ids, starts, rates, mask_id, generator):
    """BERT's masking, of whole words: of a chosen word's tokens 80 % become <mask>, 10 % a random token, 10 % stay.

    Whole words, because half a masked word is guessed from its other half, and nothing is learnt of its topic. A word is
    chosen with the probability of its rarest piece. ids: (B, T), starts: (V,) from word_starts, rates: (V,) from mask_rates
    -> (corrupted ids (B, T), chosen (B, T) bool)
    """
    ordinary = (ids != PAD) & (ids != BOS) & (ids != EOS)
    dice = torch.rand(2, *ids.shape, generator=generator)
    word = starts[ids].cumsum(1) - 1                                             # (B, T) number of the word in its row
    rate = torch.zeros(ids.shape).scatter_reduce(1, word, rates[ids], "amax").gather(1, word)
    chosen = ordinary & (dice[0].gather(1, word) < rate)
    random_ids = torch.randint(EOS + 2, mask_id, ids.shape, generator=generator)
    corrupted = torch.where(chosen & (dice[1] < 0.8), mask_id, ids)
    return torch.where(chosen & (dice[1] >= 0.9), random_ids, corrupted), chosen


def mlm_loss(model, ids, chosen, targets):
    """Cross-entropy at the chosen positions; the head runs there and nowhere else."""
    real = ids != PAD
    x = model(model.word(ids), None if real.all() else real)
    return F.cross_entropy(model.logits(x[chosen]).float(), targets[chosen])


@torch.no_grad()
def naming_accuracy(model, tokenizer, world):
    """Held-out documents with their topic's name masked: how often does the right topic score best?

    -> {lang: accuracy} over 10 documents a topic. This is the pretraining task itself; no sentence is read.
    """
    template, accuracy = Template("{text} {mask}", tokenizer, 0, model.config.max_tokens), {}
    reader = PromptedEncoder(model, tokenizer.mask)
    for lang in LANGUAGES:
        rng, texts = random.Random(f"naming {lang}"), []
        for topic in world.topics * 10:
            texts.append(world.document(rng, topic, named=False)(lang) + " " + world.naming[1][lang].split("{topic}")[0])
        verbalizer = Verbalizer(model, tokenizer, {topic: [w[lang] for w in world.labels[topic]] for topic in world.topics})
        gold = torch.arange(len(world.topics)).repeat(10)
        accuracy[lang] = (score(reader, verbalizer, template, texts).argmax(1) == gold).float().mean().item()
    return accuracy


@torch.no_grad()
def zero_shot(model, tokenizer, folder):
    """Accuracy of a plain hard prompt on dev sentences: all topics compete, chance is 1 in 12.

    Seen classes in source languages only, which is what train.py itself selects on.
    """
    words = load_label_words(Path(folder) / "labels.json")
    dev = [e for e in load_split(folder, "dev") if e.label in MINITOPICS_SEEN and e.lang in MINITOPICS_SOURCE]
    template = Template("{prompt} {text} {mask}", tokenizer, "Topic:", model.config.max_tokens)
    scores = score(PromptedEncoder(model, tokenizer.mask), Verbalizer(model, tokenizer, words), template, [e.text for e in dev])
    return (scores.argmax(1) == torch.tensor([list(words).index(e.label) for e in dev])).float().mean().item()


def new_model(config):
    """Random weights. XLM-R's own N(0, 0.02) fits its width of 768; a narrow model would hardly start with it."""
    model = XLMR(config)
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            torch.nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)
    return model


def arguments():
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder for the encoder, in Hugging Face layout")
    p.add_argument("--minitopics", type=Path, default=MINITOPICS, help="folder of the three tables (default: MiniTopics)")
    p.add_argument("--resume", action="store_true", help="go on from OUT/pretrain.pt")
    p.add_argument("--minutes", type=nonnegative, default=math.inf, help="stop after so many; --resume goes on (default: off)")
    p.add_argument("--look-every", type=positive, default=500, help="steps between validations and checkpoints (default: 500)")
    p.add_argument("--seed", type=whole, default=0)
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is autocast; on CPUs without "
                   "native bfloat16 it is slower (default: float32)")
    g = p.add_argument_group("model")
    g.add_argument("--vocab-size", type=positive, default=8000, help="V, special tokens included (default: 8000)")
    g.add_argument("--width", type=positive, default=128, help="D (default: 128)")
    g.add_argument("--layers", type=positive, default=3, help="(default: 3)")
    g.add_argument("--heads", type=positive, default=4, help="H (default: 4)")
    g.add_argument("--max-tokens", type=positive, default=128, help="longest sequence (default: 128)")
    g = p.add_argument_group("training")
    g.add_argument("--tokens", type=positive, default=36_000_000, help="tokens to train on (default: 36000000)")
    g.add_argument("--batch-tokens", type=positive, default=2048, help="(default: 2048)")
    g.add_argument("--lr", type=nonnegative, default=2e-3, help="peak learning rate (default: 0.002)")
    g.add_argument("--translation", type=below_one, default=0.5, help="share of translation pairs (default: 0.5)")
    g.add_argument("--sentences", type=below_one, default=0.2, help="share of unlabelled train sentences (default: 0.2)")
    g.add_argument("--mask-rate", type=below_one, default=0.3, help="share of words to predict, fewer of the common ones "
                                                                    "(default: 0.3)")
    g.add_argument("--subword-alpha", type=nonnegative, default=0.3, help="of subword regularisation (default: 0.3)")
    return p.parse_args()


def main():
    args = arguments()
    device, dtype = pick_device(args.device, args.dtype)
    out, world = args.out, World(args.minitopics)
    if (out / "pretrain.pt").exists() and not args.resume:
        raise UserError(f"--out {out}: a pretraining lies there; go on with it by --resume, or choose another folder")
    if args.width % args.heads:
        raise UserError(f"--width {args.width} is not a multiple of --heads {args.heads}")
    saved = load_state(out / "pretrain.pt") if args.resume else None
    torch.manual_seed(args.seed)
    if not (args.resume and (out / TOKENIZER_FILE).exists()):
        train_tokenizer(world, out / TOKENIZER_FILE, args.vocab_size, random.Random(args.seed))
    tokenizer = Tokenizer(out / TOKENIZER_FILE)
    starts = word_starts(tokenizer)
    model = new_model(Config(tokenizer.vocab_size, args.width, args.layers, args.heads, 4 * args.width, args.max_tokens + 2))
    model.to(device)
    matrices, others = ([w for w in model.parameters() if (w.ndim == 2) == yes] for yes in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), fused=True)
    state = {"step": 0, "tokens": 0, "seconds": 0.0, "pool": 0, "skip": 0, "running": None, "log": []}
    if saved:
        model.load_state_dict(saved.pop("model"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        state = saved
    print(f"{sum(w.numel() for w in model.parameters()):,} parameters, {len(world.sentences)} train sentences a language, "
          f"{len(world.frames)} frames, {device}")

    rng = random.Random("held out")
    held_out = [encode(tokenizer, world.texts(rng, args.translation, args.sentences), None, args.max_tokens)
                for _ in range(2000)]
    rates = mask_rates(held_out, tokenizer.vocab_size, args.mask_rate, common=3e-4)
    held_out = [pad(held_out[i:i + 32]) for i in range(0, 256, 32)]
    generator = torch.Generator()

    def masked(ids, seed):
        """-> the three arguments of mlm_loss after the model, on the device."""
        corrupted, chosen = mask_tokens(ids, starts, rates, tokenizer.mask, generator.manual_seed(seed))
        return corrupted.to(device), chosen.to(device), ids.to(device)

    def look():
        """Validation loss, and two looks at what it is for, so that the plateau can be seen; then a checkpoint."""
        with torch.no_grad():
            valid = sum(mlm_loss(model, *masked(ids, 7)).item() for ids in held_out) / len(held_out)
        naming, dev = naming_accuracy(model, tokenizer, world), zero_shot(model, tokenizer, args.minitopics)
        model.requires_grad_(True)  # PromptedEncoder froze it to look
        state["seconds"] = time.time() - started
        state["log"].append({"step": state["step"], "tokens": state["tokens"], "minutes": round(state["seconds"] / 60, 1),
                             "train_loss": state["running"] and round(state["running"], 4), "valid_loss": round(valid, 4),
                             "zero_shot": round(dev, 3), "naming": {lang: round(a, 3) for lang, a in naming.items()}})
        tqdm.write(f"step {state['step']}: {state['tokens'] / 1e6:.1f} M tokens, valid loss {valid:.3f}, "
                   f"dev sentences {dev:.0%}, naming {sum(naming.values()) / len(naming):.0%}, "
                   f"lowest {min(naming, key=naming.get)} {min(naming.values()):.0%}", file=sys.stdout)
        save_state(out / "pretrain.pt", {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
        write_json(out / "pretrain.json", {"settings": {k: v for k, v in vars(args).items() if k not in
                                                        ("out", "minitopics", "resume", "minutes")}, "log": state["log"]})
        write_json(out / "languages.json", {lang: round(share, 4) for lang, share in world.share.items()})
        save_encoder(out, model)

    source, started = batches(world, tokenizer, args, state["pool"], state["skip"]), time.time() - state["seconds"]
    stop = time.time() + 60 * args.minutes
    bar = tqdm(total=args.tokens, initial=state["tokens"], unit="tok", unit_scale=True, desc="pretraining", mininterval=5)
    while state["tokens"] < args.tokens and time.time() < stop:
        done = state["tokens"] / args.tokens
        for group in optimizer.param_groups:  # linear warm-up, then half a cosine
            group["lr"] = args.lr * min(done / 0.03, 0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6
        ids, state["pool"], number = next(source)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = mlm_loss(model, *masked(ids, args.seed * 10**9 + state["step"]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state["step"], state["tokens"], state["skip"] = state["step"] + 1, state["tokens"] + ids.numel(), number + 1
        bar.update(ids.numel())
        if state["step"] % 20 == 0:
            now = loss.item()
            if not math.isfinite(now):
                raise UserError(f"the loss is {now} at step {state['step']}; start again with a smaller --lr (now {args.lr})")
            state["running"] = now if state["running"] is None else 0.8 * state["running"] + 0.2 * now
            bar.set_postfix(loss=f"{state['running']:.3f}")
        if state["step"] % args.look_every == 0:
            look()
    bar.close()
    if not state["log"] or state["log"][-1]["step"] != state["step"]:
        look()


if __name__ == "__main__":
    run_script(main)
