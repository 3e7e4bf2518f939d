"""Pretrain a small XLM-R from scratch: where the encoder's knowledge comes from.

    python data_scripts/pretraining/pretrain.py --out runs/pocket             # pocket: 53 minutes
    python data_scripts/pretraining/pretrain.py --out runs/pocket --resume    # if interrupted
    python data_scripts/pretraining/pretrain.py --out runs/try --tokens 3000000   # first plateau
    python data_scripts/pretraining/pretrain.py --out runs/mini --corpus data/corpus   # real text

Masked LM and translation LM (Conneau & Lample 2019) on documents generated from MiniTopics
(world.py), or on real text that corpus.py has packed (packed.py). README.md says what it takes.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import math
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data_scripts.pretraining.packed import Packed
from data_scripts.pretraining.world import Documents
from minirosprompt import UserError
from minirosprompt.data import MINITOPICS
from minirosprompt.io.cli import Parser, below_one, nonnegative, positive, whole
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.files import load_state, save_state, write_json, writing
from minirosprompt.io.runs import alone_in
from minirosprompt.io.runtime import interrupts, pick_device
from minirosprompt.io.weights import TOKENIZER_FILE, save_encoder
from minirosprompt.tokenizer import BOS, EOS, PAD
from minirosprompt.xlmr import XLMR, Config

POOL = 16       # batches that are made together
COMMON = 3e-4   # words more frequent than this are masked less
WARM_UP = 0.03  # share of the training in which the learning rate rises
SPACELESS = (   # scripts that are written without spaces, from their first to their last character
    ("\u0e00", "\u109f"),  # Thai, Lao, Tibetan, Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3000", "\u9fff"),  # Chinese, Japanese
)


# ---- flags ---------------------------------------------------------------------------------------

def arguments():
    p = Parser(description=__doc__)
    p.add_argument("--out", type=Path, required=True,
                   help="folder for the encoder, in Hugging Face layout")
    p.add_argument("--minitopics", type=Path, default=MINITOPICS,
                   help="folder of the three tables (default: MiniTopics)")
    p.add_argument("--corpus", type=Path,
                   help="folder that corpus.py wrote: train on its text and tokenizer instead")
    add_loop(p, look_every=500)
    g = p.add_argument_group("model")
    g.add_argument("--vocab-size", type=positive, default=8000,
                   help="V, special tokens included; not with --corpus (default: 8000)")
    g.add_argument("--width", type=positive, default=128, help="D (default: 128)")
    g.add_argument("--layers", type=positive, default=3, help="(default: 3)")
    g.add_argument("--heads", type=positive, default=4, help="H (default: 4)")
    g.add_argument("--max-tokens", type=positive, default=128,
                   help="longest sequence (default: 128)")
    g = p.add_argument_group("training")
    g.add_argument("--tokens", type=positive, default=36_000_000,
                   help="tokens to train on (default: 36000000)")
    g.add_argument("--batch-tokens", type=positive, default=2048, help="(default: 2048)")
    g.add_argument("--lr", type=nonnegative, default=2e-3,
                   help="peak learning rate (default: 0.002)")
    g.add_argument("--translation", type=below_one, default=0.5,
                   help="share of translation pairs (default: 0.5)")
    g.add_argument("--sentences", type=below_one, default=0.2,
                   help="share of unlabelled train sentences; not with --corpus (default: 0.2)")
    g.add_argument("--mask-rate", type=below_one, default=0.3,
                   help="share of words to predict, fewer of the common ones (default: 0.3)")
    g.add_argument("--subword-alpha", type=nonnegative, default=0.3,
                   help="of subword regularisation; not with --corpus (default: 0.3)")
    g.add_argument("--alpha", type=nonnegative, default=0.3, help="with --corpus: a language of n "
                   "tokens is drawn with probability n^alpha, as in XLM-R (default: 0.3)")
    g.add_argument("--compile", action="store_true",
                   help="torch.compile the encoder (for CUDA, with --corpus)")
    return p.parse_args()


def add_loop(parser, look_every):
    """The flags that `train` reads, and where it runs; look_every: the default."""
    parser.add_argument("--resume", action="store_true", help="go on from OUT/pretrain.pt")
    parser.add_argument("--minutes", type=nonnegative, default=math.inf,
                        help="stop after so many; --resume goes on (default: off)")
    parser.add_argument("--look-every", type=positive, default=look_every,
                        help="steps between validations and checkpoints (default: %(default)s)")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="(default: cuda where there is one)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32",
                        help="bfloat16 is autocast; on CPUs without native bfloat16 it is slower "
                        "(default: float32)")


def check_checkpoint(args):
    """Raises UserError if a checkpoint would be overwritten, or there is none to resume."""
    checkpoint = args.out / "pretrain.pt"
    if checkpoint.exists() and not args.resume:
        raise UserError(f"--out {args.out}: a pretraining lies there; go on with it by --resume, "
                        "or choose another folder")
    if args.resume and not checkpoint.exists():
        raise UserError(f"{checkpoint}: No such file: there is nothing to resume")


def check(args):
    """Raises UserError for what only the flags together can tell."""
    check_checkpoint(args)
    if args.width % args.heads:
        raise UserError(f"--width {args.width} is not a multiple of --heads {args.heads}")


# ---- masked language modelling -------------------------------------------------------------------

def word_starts(tokenizer):
    """(V,) bool: does this id begin a word?

    "▁" does, and so does every piece of a script that is written without spaces.
    """
    starts = []
    for i in range(tokenizer.vocab_size):
        piece = tokenizer.piece(i)
        spaceless = any(first <= piece[0] <= last for first, last in SPACELESS)
        starts.append(i in tokenizer.special or piece.startswith("▁") or spaceless)
    return torch.tensor(starts)


def mask_rates(rows, vocab_size, rate, common):
    """(V,) probability of masking each id: `rate`, but less for common ones.

    As Mikolov et al. 2013 draw words: rate sqrt(common / f), where f is an id's frequency in
    `rows`. Nouns carry the topic, and without this most masks would fall on "the" and ",".
    """
    ids = torch.cat([torch.tensor(row) for row in rows])                    # (tokens,)
    count = torch.bincount(ids, minlength=vocab_size).float()               # (V,)
    return rate * (common * count.sum() / count.clamp(min=1)).sqrt().clamp(max=1)


def mask_tokens(ids, starts, rates, mask_id, generator):
    """BERT's masking, of whole words.

    Of a chosen word's tokens 80 % become <mask>, 10 % a random token, 10 % stay. Whole words,
    because half a masked word is guessed from its other half, and nothing is learnt of its topic.
    A word is chosen with the probability of its rarest piece.
    ids: (B, T), starts: (V,) from word_starts, rates: (V,) from mask_rates
    -> (corrupted ids (B, T), chosen (B, T) bool)
    """
    ordinary = (ids != PAD) & (ids != BOS) & (ids != EOS)                   # (B, T)
    dice = torch.rand(2, *ids.shape, generator=generator, device=ids.device)     # (2, B, T)
    # The words of a row are numbered; every token has its word's number.
    word = starts[ids].cumsum(1) - 1                                        # (B, T)
    rate = torch.zeros(ids.shape, device=ids.device)                        # (B, T) of each word
    rate = rate.scatter_reduce(1, word, rates[ids], "amax").gather(1, word)      # (B, T) token
    # One throw a word: all its tokens look at the same place.
    chosen = ordinary & (dice[0].gather(1, word) < rate)                    # (B, T)
    first = EOS + 2  # past the special tokens
    random_ids = torch.randint(first, mask_id, ids.shape, generator=generator, device=ids.device)
    corrupted = torch.where(chosen & (dice[1] < 0.8), mask_id, ids)         # (B, T)
    corrupted = torch.where(chosen & (dice[1] >= 0.9), random_ids, corrupted)
    return corrupted, chosen


def mlm_loss(model, ids, chosen, targets, encode=None):
    """Cross-entropy at the chosen positions; the head runs there and nowhere else.

    ids: (B, T), corrupted; targets: (B, T), as they were; encode: the model itself, or compiled.
    """
    attention_mask = ids != PAD                                             # (B, T)
    if attention_mask.all():
        attention_mask = None
    x = (encode or model)(model.word(ids), attention_mask)                  # (B, T, D)
    logits = model.logits(x[chosen])                                        # (chosen, V)
    return F.cross_entropy(logits.float(), targets[chosen])


class Masking:
    """mask_tokens, with what it needs of a text. A seed decides all its dice."""

    def __init__(self, text, rate, device):
        tokenizer = text.tokenizer
        self.mask_id = tokenizer.mask
        self.starts = word_starts(tokenizer).to(device)                     # (V,)
        rates = mask_rates(text.sample, tokenizer.vocab_size, rate, COMMON)
        self.rates = rates.to(device)                                       # (V,)
        self.generator = torch.Generator(device)

    def __call__(self, ids, seed):
        """ids: (B, T) -> (corrupted ids (B, T), chosen (B, T) bool)"""
        generator = self.generator.manual_seed(seed)
        return mask_tokens(ids, self.starts, self.rates, self.mask_id, generator)


def masked_loss(ids, seed, model, encode, masking, dtype):
    """ids: (B, T) on the model's device -> the loss, in mixed precision unless dtype is float32.

    seed: of the masks.
    """
    corrupted, chosen = masking(ids, seed)
    with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
        return mlm_loss(model, corrupted, chosen, ids, encode)


# ---- set-up --------------------------------------------------------------------------------------

def open_text(args):
    """The text to train on: Packed or Documents. Its tokenizer lies in --out afterwards."""
    if args.corpus is None:
        return Documents(args)
    text = Packed(args.corpus, args.batch_tokens, args.max_tokens, args.alpha, args.translation,
                  args.seed)
    with writing(args.out / TOKENIZER_FILE, "wb") as file:
        file.write((args.corpus / TOKENIZER_FILE).read_bytes())
    return text


def new_model(config):
    """Random weights.

    XLM-R's own N(0, 0.02) fits its width of 768; a narrow model would hardly start with it.
    """
    model = XLMR(config)
    for module in model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            torch.nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.zeros_(module.bias)
    return model


def trained(model):
    """-> {name: parameter} of all that is not frozen."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def new_optimizer(model, lr, layers_lr=None):
    """AdamW. Only matrices decay: not biases, not norms. layers_lr: of the layers (default: lr)."""
    alike = {}  # {(peak rate, decay): weights}
    for name, weight in trained(model).items():
        peak = layers_lr if name.startswith("layers.") and layers_lr is not None else lr
        decay = 0.01 if weight.ndim == 2 else 0.0
        alike.setdefault((peak, decay), []).append(weight)
    groups = [{"params": weights, "lr": peak, "peak": peak, "weight_decay": decay}
              for (peak, decay), weights in alike.items()]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def restore(path, model, optimizer):
    """What `save` wrote -> its state; model and optimizer get theirs. Raises UserError."""
    saved = load_state(path)
    try:
        weights = saved.pop("model")
        if weights.keys() != trained(model).keys():
            raise ValueError("other names")
        model.load_state_dict(weights, strict=False)
        optimizer.load_state_dict(saved.pop("optimizer"))
    except (AttributeError, KeyError, RuntimeError, ValueError):
        raise UserError(f"{path}: of a model with other sizes; "
                        "resume with the flags it was begun with") from None
    return saved


def batches(text, pool=0, skip=0):
    """Endless batches: (ids (B, T), number of its pool, number in its pool).

    A pool depends on (seed, its number) alone, so a resumed run goes on with the batches it would
    have had.
    """
    while True:
        for i, ids in enumerate(text.pool(pool, POOL)):
            if i >= skip:
                yield ids, pool, i
        pool += 1
        skip = 0


# ---- what is logged and saved --------------------------------------------------------------------

def look(args, state, started, text, model, optimizer, loss_of, write):
    """Validates, asks the text what else it can tell of the model, logs, prints and saves."""
    valid = validate(text.held_out, loss_of, model.word.weight.device)
    weights = trained(model)
    more = text.look(model)
    for weight in weights.values():
        weight.requires_grad_(True)  # the Classifier that looked has frozen it
    state["seconds"] = time.time() - started
    state["log"].append(log_entry(state, valid, more))
    tqdm.write(describe(state, valid, text.describe(more)), file=sys.stdout)
    save(args, state, text, model, optimizer, write)


@torch.no_grad()
def validate(held_out, loss_of, device):
    """held_out: {group: batches of ids (B, T)} -> {group: its mean loss}"""
    valid = {}
    for name, of_group in held_out.items():
        # Always under the same masks.
        losses = [loss_of(ids.to(device), seed=7).item() for ids in of_group]
        valid[name] = sum(losses) / len(losses)
    return valid


def log_entry(state, valid, more):
    """What pretrain.json says of a step. more: what the text itself could tell of the model."""
    running = state["running"]
    entry = {"step": state["step"], "tokens": state["tokens"],
             "minutes": round(state["seconds"] / 60, 1),
             "train_loss": None if running is None else round(running, 4),
             "valid_loss": round(sum(valid.values()) / len(valid), 4)}
    if len(valid) > 1:
        entry["groups"] = {name: round(loss, 4) for name, loss in valid.items()}
    return entry | more


def describe(state, valid, said):
    """The same in a line, for people. said: the text's own words."""
    losses = ", ".join(f"{name} {loss:.3f}" for name, loss in valid.items())
    return f"step {state['step']}: {state['tokens'] / 1e6:.1f} M tokens, valid loss {losses}{said}"


def save(args, state, text, model, optimizer, write):
    """pretrain.pt to resume from, pretrain.json with the log, and the encoder."""
    save_state(args.out / "pretrain.pt", {**state, "model": trained(model),
                                          "optimizer": optimizer.state_dict()})
    # Not what differs between a run and its continuation, or between machines.
    left_out = ("out", "minitopics", "corpus", "sib200", "resume", "minutes")
    settings = {name: value for name, value in vars(args).items() if name not in left_out}
    write_json(args.out / "pretrain.json", {"settings": settings, "log": state["log"]})
    shares = {lang: round(share, 5) for lang, share in text.share.items()}
    write_json(args.out / "languages.json", shares)
    write(args.out, model)


def learning_rate(peak, done):
    """Linear warm-up, then half a cosine; done: the share of the tokens that is behind us."""
    return peak * min(done / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * done)) + 1e-6


# ---- the run -------------------------------------------------------------------------------------

def main():
    args = arguments()
    device, dtype = pick_device(args.device, args.dtype)
    check(args)
    torch.manual_seed(args.seed)
    text = open_text(args)
    masking = Masking(text, args.mask_rate, device)
    config = Config(text.tokenizer.vocab_size, args.width, args.layers, args.heads,
                    ffn=4 * args.width, positions=args.max_tokens + 2)
    model = new_model(config).to(device)
    encode = torch.compile(model) if args.compile else model
    loss_of = partial(masked_loss, model=model, encode=encode, masking=masking, dtype=dtype)
    train(args, text, model, loss_of, save_encoder)


def train(args, text, model, loss_of, write, held_out_loss_of=None):
    """Trains what of the model is not frozen until args.tokens are read, or from where it stood.

    text: Packed or Documents; loss_of(ids (B, T), seed) -> loss, held_out_loss_of (None: the same)
    that of held-out text; write(folder, model) writes the encoder, at each look. args: of this
    script or of add_head.py.
    """
    held_out_loss_of = held_out_loss_of or loss_of
    device = model.word.weight.device
    checkpoint = args.out / "pretrain.pt"
    optimizer = new_optimizer(model, args.lr, getattr(args, "layers_lr", None))
    state = {"step": 0, "tokens": 0, "seconds": 0.0, "pool": 0, "skip": 0, "running": None,
             "log": []}
    if args.resume:
        state = restore(checkpoint, model, optimizer)
    parameters = sum(weight.numel() for weight in trained(model).values())
    print(f"{parameters:,} parameters, {text}, {device}")

    started = time.time() - state["seconds"]
    until = time.time() + 60 * args.minutes
    source = batches(text, state["pool"], state["skip"])
    bar = tqdm(total=args.tokens, initial=state["tokens"], unit="tok", unit_scale=True,
               desc="pretraining", mininterval=5)
    with alone_in(args.out), bar, interrupts() as stop:
        while state["tokens"] < args.tokens and time.time() < until and not stop:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(group["peak"], state["tokens"] / args.tokens)
            ids, pool, number = next(source)                                # (B, T)
            seed = args.seed * 10**9 + state["step"]
            loss = loss_of(ids.to(device), seed)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained(model).values(), 1.0)
            optimizer.step()

            state["step"] += 1
            state["tokens"] += ids.numel()
            state["pool"] = pool
            state["skip"] = number + 1
            bar.update(ids.numel())
            if state["step"] % 20 == 0:  # not at each step: .item() waits for a GPU
                now = loss.item()
                if not math.isfinite(now):
                    raise UserError(f"the loss is {now} at step {state['step']}; "
                                    f"start again with a smaller --lr (now {args.lr})")
                if state["running"] is None:
                    state["running"] = now
                else:
                    state["running"] = 0.8 * state["running"] + 0.2 * now
                bar.set_postfix(loss=f"{state['running']:.3f}")
            if state["step"] % args.look_every == 0:
                look(args, state, started, text, model, optimizer, held_out_loss_of, write)
        if not state["log"] or state["log"][-1]["step"] != state["step"]:
            look(args, state, started, text, model, optimizer, held_out_loss_of, write)
    if stop:
        raise KeyboardInterrupt(f"step {state['step']} is saved; go on with --resume")


if __name__ == "__main__":
    run_script(main)
