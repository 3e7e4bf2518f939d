"""Pretrain a small XLM-R from scratch: where the encoder's knowledge comes from.

    python data_scripts/pretrain.py --out runs/pocket              # what made minirosprompt/pocket
    python data_scripts/pretrain.py --out runs/try --minutes 2     # a look at the first plateau
    python data_scripts/pretrain.py --out runs/pocket --resume     # after an interruption

The text is generated from MiniTopics (minirosprompt/pocket/minitopics): documents of 3-6 sentences about one topic, some of
which name their topic, alone (masked LM) or followed by their translation (translation LM, Conneau & Lample 2019), mixed
with the unlabelled sentences of the train split. Dev and test sentences are never read here, nor is a sentence's topic.
"""
import argparse
import csv
import json
import math
import random
import re
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
from minirosprompt.data import MINITOPICS, MINITOPICS_SEEN, MINITOPICS_SOURCE, load_label_words, load_split
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
SENTENCES = (3, 6)  # sentences a document
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
        """-> a function lang -> text: 3 to 6 frames filled with concepts of one topic, one of them perhaps naming it."""
        topic = topic or rng.choice(self.topics)
        sentences = []
        for _ in range(rng.randint(*SENTENCES)):
            chosen = rng.sample(self.concepts[topic], 3)
            chosen = [rng.choice(self.concepts[rng.choice(self.topics)]) if rng.random() < NOISE else c for c in chosen]
            sentences.append((rng.choice(self.frames), chosen, None))
        if rng.random() < NAMED if named is None else named:
            where = rng.randint(0, len(sentences))
            sentences.insert(where, (rng.choice(self.naming), [], rng.choice(self.labels[topic])))

        def render(lang):
            filled = (frame[lang].format(*(c[lang] for c in concepts), topic=label and label[lang])
                      for frame, concepts, label in sentences)
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
                    file.write(f"，{line}。\n、{line}、\n" if lang == "zho_Hans" else f"{line}\n{line.replace(' ', ', ')},\n")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(Path(folder) / "spm"), vocab_size=vocab_size - 2, model_type="unigram",
            normalization_rule_name="nmt_nfkc", character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
            shuffle_input_sentence=False, num_threads=1, minloglevel=2)
        with writing(path, "wb") as file:
            file.write((Path(folder) / "spm.model").read_bytes())


def encode(tokenizer, texts, sample, max_tokens):
    """[A] -> <s> A </s>;  [A, B] -> <s> A </s> </s> B </s>, as XLM-R joins a pair."""
    spans = tokenizer.encode(texts, sample)
    ids = [BOS] + spans[0] + [EOS]
    for span in spans[1:]:
        ids += [EOS] + span + [EOS]
    return ids[:max_tokens]


def batches(world, tokenizer, args, start):
    """Endless batches of about args.batch_tokens tokens, of texts of similar length (so that little is padding).

    Pool number n depends on (seed, n) alone, so a resumed run goes on with the batches it would have had.
    """
    pool_size, step, n = 64, 0, 0
    while True:
        rng = random.Random(f"{args.seed} {n}")
        sentencepiece.set_random_generator_seed(rng.randrange(2**31))
        rows, cut = [], []
        while sum(map(len, rows)) < pool_size // 4 * args.batch_tokens:
            sample = args.subword_alpha if rng.random() < 0.5 else None
            rows.append(encode(tokenizer, world.texts(rng, args.translation, args.sentences), sample, args.max_tokens))
        rows.sort(key=len)
        batch = []
        for row in rows:
            if batch and (len(batch) + 1) * len(row) > args.batch_tokens:
                cut.append(batch)
                batch = []
            batch.append(row)
        cut.append(batch)
        rng.shuffle(cut)
        for batch in cut:
            if step >= start:
                yield pad(batch)
            step += 1
        n += 1


def word_starts(tokenizer):
    """(V,) bool: does this id begin a word? "▁" does, and so does every piece of a script that is written without spaces."""
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    return torch.tensor([i in tokenizer.special or piece.startswith("▁") or "\u3000" <= piece[0] <= "\u9fff"
                         for i, piece in enumerate(pieces)])


def mask_tokens(ids, starts, mask_id, rate, generator):
    """BERT's masking, of whole words: `rate` of them are chosen; of their tokens 80 % become <mask>, 10 % a random token,
    10 % stay. Whole words, because half a masked word is guessed from its other half, and nothing is learnt of its topic.

    ids: (B, T), starts: (V,) from word_starts -> (corrupted ids (B, T), chosen (B, T) bool)
    """
    ordinary = (ids != PAD) & (ids != BOS) & (ids != EOS)
    dice = torch.rand(2, *ids.shape, generator=generator)
    word = starts[ids].cumsum(1) - 1                                             # (B, T) number of the word in its row
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


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--out", required=True, help="folder for the encoder, in Hugging Face layout")
    p.add_argument("--minitopics", default=MINITOPICS, help="folder with the three tables")
    p.add_argument("--resume", action="store_true", help="go on from OUT/pretrain.pt")
    p.add_argument("--vocab-size", type=int, default=8000, help="V, special tokens included")
    p.add_argument("--width", type=int, default=128, help="D")
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--heads", type=int, default=4, help="H")
    p.add_argument("--max-tokens", type=int, default=128, help="longest sequence")
    p.add_argument("--translation", type=float, default=0.5, help="share of examples that are translation pairs")
    p.add_argument("--sentences", type=float, default=0.2, help="share of examples that are (unlabelled) train sentences")
    p.add_argument("--mask-rate", type=float, default=0.2, help="share of tokens to predict")
    p.add_argument("--subword-alpha", type=float, default=0.3, help="subword regularisation, in half of the examples")
    p.add_argument("--tokens", type=float, default=30e6, help="tokens to train on, padding included")
    p.add_argument("--minutes", type=float, default=math.inf, help="stop earlier, after so many minutes")
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    p.add_argument("--look-every", type=int, default=250, help="steps between looks at the validation loss, and checkpoints")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16: autocast")
    args = p.parse_args()
    device, dtype = pick_device(args.device, args.dtype)
    out, world = Path(args.out), World(args.minitopics)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    if not (args.resume and (out / TOKENIZER_FILE).exists()):
        train_tokenizer(world, out / TOKENIZER_FILE, args.vocab_size, random.Random(args.seed))
    tokenizer = Tokenizer(out / TOKENIZER_FILE)
    starts = word_starts(tokenizer)
    model = XLMR(Config(tokenizer.vocab_size, args.width, args.layers, args.heads, 4 * args.width, args.max_tokens + 2))
    for module in model.modules():  # XLM-R's own 0.02 fits its width of 768; in a narrow model attention would hardly start
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features ** -0.5)
            torch.nn.init.zeros_(module.bias)
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.02)
    model.to(device)
    matrices = [w for w in model.parameters() if w.ndim == 2]
    others = [w for w in model.parameters() if w.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), fused=True)
    tokens, step, log, spent = 0, 0, [], 0.0
    if args.resume:
        state = load_state(out / "pretrain.pt")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        tokens, step, log, spent = state["tokens"], state["step"], state["log"], state["spent"]
    print(f"{sum(w.numel() for w in model.parameters()):,} parameters, {len(world.sentences)} train sentences a language, "
          f"{len(world.frames)} frames, {device}")

    held_out = random.Random("held out")
    held_out = [pad([encode(tokenizer, world.texts(held_out, args.translation, args.sentences), None, args.max_tokens)
                     for _ in range(32)]) for _ in range(8)]
    generator, source = torch.Generator(), batches(world, tokenizer, args, step)
    started, running = time.time() - spent, None

    def look():
        """A line of the log: validation loss and, so that the plateau can be seen, naming accuracy by language."""
        with torch.no_grad():
            generator.manual_seed(7)
            losses = [mlm_loss(model, *(t.to(device) for t in mask_tokens(ids, starts, tokenizer.mask, 0.15, generator)), ids.to(device))
                      for ids in held_out]
        naming = naming_accuracy(model, tokenizer, world)
        line = {"step": step, "tokens": tokens, "minutes": round((time.time() - started) / 60, 2),
                "train_loss": round(running, 4), "valid_loss": round(sum(losses).item() / len(losses), 4),
                "zero_shot": round(zero_shot(model, tokenizer, args.minitopics), 3),
                "naming": {lang: round(a, 3) for lang, a in naming.items()}}
        model.requires_grad_(True)  # PromptedEncoder froze it to look
        log.append(line)
        tqdm.write(f"step {step}: {tokens / 1e6:.1f} M tokens, loss {line['train_loss']:.3f}, valid {line['valid_loss']:.3f}, "
                   f"dev sentences {line['zero_shot']:.0%}, naming {sum(naming.values()) / len(naming):.0%}, "
                   f"lowest {min(naming, key=naming.get)} {min(naming.values()):.0%}")

    def save():
        save_state(out / "pretrain.pt", {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "tokens": tokens,
                                         "step": step, "log": log, "spent": time.time() - started})
        write_json(out / "pretrain.json", {"settings": {k: v for k, v in vars(args).items() if k != "minutes"}
                                           | {"minitopics": "minitopics", "out": None}, "log": log})
        save_encoder(out, model)

    bar = tqdm(total=int(args.tokens), initial=tokens, unit="tok", unit_scale=True, desc="pretraining", mininterval=5)
    while tokens < args.tokens and time.time() - started < 60 * args.minutes:
        # the share of the work that is done decides the learning rate: linear warm-up, then cosine
        done = max(tokens / args.tokens, (time.time() - started) / (60 * args.minutes))
        lr = args.lr * min(done / 0.03, 0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = lr
        targets = next(source)
        generator.manual_seed(args.seed * 10**9 + step)
        corrupted, chosen = mask_tokens(targets, starts, tokenizer.mask, args.mask_rate, generator)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = mlm_loss(model, corrupted.to(device), chosen.to(device), targets.to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, tokens = step + 1, tokens + targets.numel()
        bar.update(targets.numel())
        if step % 20 == 0:
            if not math.isfinite(loss.item()):
                raise UserError(f"the loss is {loss.item()} at step {step}; start again with a smaller --lr")
            running = loss.item() if running is None else 0.8 * running + 0.2 * loss.item()
            bar.set_postfix(loss=f"{running:.3f}", lr=f"{lr:.1e}")
        if step % args.look_every == 0:
            look()
            save()
    bar.close()
    look()
    save()


if __name__ == "__main__":
    main()
