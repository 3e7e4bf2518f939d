"""Pretrain a small XLM-R from scratch: where the encoder's knowledge comes from.

    python data_scripts/pretrain.py --out runs/pocket                 # what made minirosprompt/pocket, under an hour on 2 cores
    python data_scripts/pretrain.py --out runs/try --tokens 3000000   # a look at the first plateau
    python data_scripts/pretrain.py --out runs/pocket --resume        # after an interruption
    python data_scripts/pretrain.py --out runs/mini --corpus data/corpus --tokens 2000000000 ...   # real text, on a GPU

Masked LM and translation LM (Conneau & Lample 2019) on documents generated from MiniTopics (world.py), or on real text that
corpus.py has packed (packed.py).
"""
import argparse
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from minirosprompt import UserError
from minirosprompt.io.files import load_state, save_state, write_json, writing
from minirosprompt.io.runtime import interrupts, pick_device
from minirosprompt.io.cli import Parser, below_one, nonnegative, positive, run as run_script, whole
from minirosprompt.data import MINITOPICS
from minirosprompt.tokenizer import BOS, EOS, PAD
from minirosprompt.io.weights import TOKENIZER_FILE, save_encoder
from minirosprompt.xlmr import Config, XLMR
from data_scripts.pretraining.packed import Packed
from data_scripts.pretraining.world import Documents

POOL = 16  # batches that are made together
SPACELESS = (("\u0e00", "\u109f"), ("\u1780", "\u17ff"), ("\u3000", "\u9fff"))  # Thai to Burmese, Khmer, Chinese and Japanese


def batches(text, pool=0, skip=0):
    """Endless batches: (ids (B, T), number of its pool, number in its pool).

    A pool depends on (seed, its number) alone, so a resumed run goes on with the batches it would have had.
    """
    while True:
        for i, ids in enumerate(text.pool(pool, POOL)):
            if i >= skip:
                yield ids, pool, i
        pool, skip = pool + 1, 0


def word_starts(tokenizer):
    """(V,) bool: does this id begin a word? "▁" does, and so does every piece of a script that is written without spaces."""
    pieces = [tokenizer.piece(i) for i in range(tokenizer.vocab_size)]
    return torch.tensor([i in tokenizer.special or piece.startswith("▁") or any(low <= piece[0] <= high for low, high in SPACELESS)
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
    dice = torch.rand(2, *ids.shape, generator=generator, device=ids.device)
    word = starts[ids].cumsum(1) - 1                                             # (B, T) number of the word in its row
    rate = torch.zeros(ids.shape, device=ids.device).scatter_reduce(1, word, rates[ids], "amax").gather(1, word)
    chosen = ordinary & (dice[0].gather(1, word) < rate)
    random_ids = torch.randint(EOS + 2, mask_id, ids.shape, generator=generator, device=ids.device)
    corrupted = torch.where(chosen & (dice[1] < 0.8), mask_id, ids)
    return torch.where(chosen & (dice[1] >= 0.9), random_ids, corrupted), chosen


def mlm_loss(model, ids, chosen, targets, encode=None):
    """Cross-entropy at the chosen positions; the head runs there and nowhere else. encode: the model itself, or compiled."""
    real = ids != PAD
    x = (encode or model)(model.word(ids), None if real.all() else real)
    return F.cross_entropy(model.logits(x[chosen]).float(), targets[chosen])


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
    p = Parser(description=__doc__)
    p.add_argument("--out", type=Path, required=True, help="folder for the encoder, in Hugging Face layout")
    p.add_argument("--minitopics", type=Path, default=MINITOPICS, help="folder of the three tables (default: MiniTopics)")
    p.add_argument("--corpus", type=Path, help="folder that corpus.py wrote: train on its text and tokenizer instead")
    p.add_argument("--resume", action="store_true", help="go on from OUT/pretrain.pt")
    p.add_argument("--minutes", type=nonnegative, default=math.inf, help="stop after so many; --resume goes on (default: off)")
    p.add_argument("--look-every", type=positive, default=500, help="steps between validations and checkpoints (default: 500)")
    p.add_argument("--seed", type=whole, default=0)
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="bfloat16 is autocast; on CPUs without "
                   "native bfloat16 it is slower (default: float32)")
    g = p.add_argument_group("model")
    g.add_argument("--vocab-size", type=positive, default=8000, help="V, special tokens included; not with --corpus (default: 8000)")
    g.add_argument("--width", type=positive, default=128, help="D (default: 128)")
    g.add_argument("--layers", type=positive, default=3, help="(default: 3)")
    g.add_argument("--heads", type=positive, default=4, help="H (default: 4)")
    g.add_argument("--max-tokens", type=positive, default=128, help="longest sequence (default: 128)")
    g = p.add_argument_group("training")
    g.add_argument("--tokens", type=positive, default=36_000_000, help="tokens to train on (default: 36000000)")
    g.add_argument("--batch-tokens", type=positive, default=2048, help="(default: 2048)")
    g.add_argument("--lr", type=nonnegative, default=2e-3, help="peak learning rate (default: 0.002)")
    g.add_argument("--translation", type=below_one, default=0.5, help="share of translation pairs (default: 0.5)")
    g.add_argument("--sentences", type=below_one, default=0.2, help="share of unlabelled train sentences; not with --corpus (default: 0.2)")
    g.add_argument("--mask-rate", type=below_one, default=0.3, help="share of words to predict, fewer of the common ones "
                                                                    "(default: 0.3)")
    g.add_argument("--subword-alpha", type=nonnegative, default=0.3, help="of subword regularisation; not with --corpus (default: 0.3)")
    g.add_argument("--alpha", type=nonnegative, default=0.3, help="with --corpus: a language of n tokens is drawn with probability n^alpha, "
                   "as in XLM-R (default: 0.3)")
    g.add_argument("--compile", action="store_true", help="torch.compile the encoder (for CUDA, with --corpus)")
    return p.parse_args()


def main():
    args = arguments()
    device, dtype = pick_device(args.device, args.dtype)
    out = args.out
    if (out / "pretrain.pt").exists() and not args.resume:
        raise UserError(f"--out {out}: a pretraining lies there; go on with it by --resume, or choose another folder")
    if args.width % args.heads:
        raise UserError(f"--width {args.width} is not a multiple of --heads {args.heads}")
    saved = load_state(out / "pretrain.pt") if args.resume else None
    torch.manual_seed(args.seed)
    if args.corpus:
        text = Packed(args.corpus, args.batch_tokens, args.max_tokens, args.alpha, args.translation, args.seed)
        with writing(out / TOKENIZER_FILE, "wb") as file:
            file.write((args.corpus / TOKENIZER_FILE).read_bytes())
    else:
        text = Documents(args)
    V, mask = text.tokenizer.vocab_size, text.tokenizer.mask
    starts, rates = word_starts(text.tokenizer), mask_rates(text.sample, V, args.mask_rate, common=3e-4)
    starts, rates, generator = starts.to(device), rates.to(device), torch.Generator(device)
    model = new_model(Config(V, args.width, args.layers, args.heads, 4 * args.width, args.max_tokens + 2)).to(device)
    encode = torch.compile(model) if args.compile else model
    matrices, others = ([w for w in model.parameters() if (w.ndim == 2) == yes] for yes in (True, False))
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), fused=True)
    state = {"step": 0, "tokens": 0, "seconds": 0.0, "pool": 0, "skip": 0, "running": None, "log": []}
    if saved:
        try:
            model.load_state_dict(saved.pop("model"))
            optimizer.load_state_dict(saved.pop("optimizer"))
        except (KeyError, RuntimeError, ValueError):
            raise UserError(f"{out}/pretrain.pt: of a model with other sizes; resume with the flags it was begun with") from None
        state = saved
    print(f"{sum(w.numel() for w in model.parameters()):,} parameters, {text}, {device}")

    def loss_of(ids, seed):
        ids = ids.to(device)
        corrupted, chosen = mask_tokens(ids, starts, rates, mask, generator.manual_seed(seed))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return mlm_loss(model, corrupted, chosen, ids, encode)

    def look():
        """Validation loss of every group of held-out text, and what else the text can tell of the model; then a checkpoint."""
        with torch.no_grad():
            valid = {name: sum(loss_of(ids, 7).item() for ids in rows) / len(rows) for name, rows in text.held_out.items()}
        more = text.look(model)
        model.requires_grad_(True)  # PromptedEncoder froze it to look
        state["seconds"] = time.time() - started
        state["log"].append({"step": state["step"], "tokens": state["tokens"], "minutes": round(state["seconds"] / 60, 1),
                             "train_loss": state["running"] and round(state["running"], 4),
                             "valid_loss": round(sum(valid.values()) / len(valid), 4)}
                            | ({"groups": {name: round(loss, 4) for name, loss in valid.items()}} if len(valid) > 1 else {}) | more)
        tqdm.write(f"step {state['step']}: {state['tokens'] / 1e6:.1f} M tokens, valid loss "
                   + ", ".join(f"{name} {loss:.3f}" for name, loss in valid.items())
                   + (f", dev sentences {more['zero_shot']:.0%}, naming {sum(more['naming'].values()) / len(more['naming']):.0%}, "
                      f"lowest {min(more['naming'], key=more['naming'].get)} {min(more['naming'].values()):.0%}" if more else ""),
                   file=sys.stdout)
        save_state(out / "pretrain.pt", {**state, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
        write_json(out / "pretrain.json", {"settings": {k: v for k, v in vars(args).items() if k not in
                                                        ("out", "minitopics", "corpus", "resume", "minutes")}, "log": state["log"]})
        write_json(out / "languages.json", {lang: round(share, 5) for lang, share in text.share.items()})
        save_encoder(out, model)

    source, started = batches(text, state["pool"], state["skip"]), time.time() - state["seconds"]
    until = time.time() + 60 * args.minutes
    bar = tqdm(total=args.tokens, initial=state["tokens"], unit="tok", unit_scale=True, desc="pretraining", mininterval=5)
    with interrupts() as stop:
        while state["tokens"] < args.tokens and time.time() < until and not stop:
            done = state["tokens"] / args.tokens
            for group in optimizer.param_groups:  # linear warm-up, then half a cosine
                group["lr"] = args.lr * min(done / 0.03, 0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6
            ids, state["pool"], number = next(source)
            loss = loss_of(ids, args.seed * 10**9 + state["step"])
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
    if stop:
        raise KeyboardInterrupt(f"step {state['step']} is saved; go on with --resume")


if __name__ == "__main__":
    run_script(main)
