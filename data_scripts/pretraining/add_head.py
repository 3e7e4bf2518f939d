"""Give an encoder that has none a masked-LM head, so that it can say words at the mask.

    python data_scripts/pretraining/corpus.py --tokenizer multilingual-e5-small --out data/corpus-e5
    python data_scripts/pretraining/add_head.py --corpus data/corpus-e5 --out runs/me5-mlm
    python train.py --encoder runs/me5-mlm --verbalizer words

A head alone over a frozen body stays too weak, so the upper layers are trained with it. Word
embeddings stay as they are: head and embeddings share them. The loop, the masking and the
checkpoints are pretrain.py's.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from data_scripts.pretraining.packed import Packed
from data_scripts.pretraining.pretrain import Masking, add_loop, check_checkpoint, train
from minirosprompt import UserError
from minirosprompt.classifier import Classifier, decide
from minirosprompt.data import load_label_words, load_split
from minirosprompt.io.cli import Parser, below_one, nonnegative, positive, whole
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.files import writing
from minirosprompt.io.runtime import pick_device
from minirosprompt.io.settings import default_settings
from minirosprompt.io.weights import TOKENIZER_FILE, encoder_folder, read_encoder, save_encoder
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.xlmr import XLMR, Config

# Languages that a look measures: with much and little text in XLM-R, and with none (Ilocano).
WATCHED = ("eng_Latn", "rus_Cyrl", "kor_Hang", "swh_Latn", "yor_Latn", "tam_Taml", "ilo_Latn",
           "khm_Khmr")
TEMPLATE = "{prompt} {mask} . {text}"
HARD_PROMPT = "This is about"


# ---- flags ---------------------------------------------------------------------------------------

def arguments():
    p = Parser(description=__doc__)
    p.add_argument("--encoder", default="multilingual-e5-small",
                   help="the encoder without a head (default: %(default)s)")
    p.add_argument("--corpus", type=Path, required=True,
                   help="folder that corpus.py --tokenizer ENCODER wrote")
    p.add_argument("--out", type=Path, required=True,
                   help="folder for the encoder, in Hugging Face layout")
    p.add_argument("--sib200", type=Path, help="data folder: measure a hard prompt on its dev "
                   "split at each look (default: off)")
    add_loop(p, look_every=200)
    g = p.add_argument_group("what is trained, besides the head")
    g.add_argument("--keep-layers", type=positive,
                   help="the head reads from this layer; those above are dropped (default: all)")
    g.add_argument("--train-layers", type=whole,
                   help="the uppermost so many are trained (default: 4, or all if it has fewer)")
    g = p.add_argument_group("training")
    g.add_argument("--tokens", type=positive, default=2_000_000,
                   help="tokens to train on (default: 2000000)")
    g.add_argument("--batch-tokens", type=positive, default=4096, help="(default: 4096)")
    g.add_argument("--max-tokens", type=positive, default=128,
                   help="longest sequence (default: 128)")
    g.add_argument("--lr", type=nonnegative, default=1e-3,
                   help="peak learning rate (default: 0.001)")
    g.add_argument("--layers-lr", type=nonnegative, help="of the layers (default: --lr)")
    g.add_argument("--negatives", type=positive, default=8192,
                   help="pieces that a step compares with, not all (default: 8192)")
    g.add_argument("--translation", type=below_one, default=0.3,
                   help="share of translation pairs (default: 0.3)")
    g.add_argument("--mask-rate", type=below_one, default=0.3,
                   help="share of words to predict, fewer of the common ones (default: 0.3)")
    g.add_argument("--alpha", type=nonnegative, default=0.5, help="a language of n tokens is drawn "
                   "with probability n^alpha (default: 0.5)")
    g.add_argument("--english", type=below_one, default=0.2,
                   help="share of English, whatever --alpha: class names are English words "
                   "(default: 0.2)")
    return p.parse_args()


def check(args, sizes):
    """Raises UserError for what only the flags together can tell. sizes: of the encoder."""
    check_checkpoint(args)
    if sizes["head"]:
        raise UserError(f"--encoder {args.encoder}: it has a masked-LM head already")
    if args.keep_layers is None:
        args.keep_layers = sizes["layers"]
    if args.train_layers is None:
        args.train_layers = min(4, args.keep_layers)
    if args.keep_layers > sizes["layers"] or args.train_layers > args.keep_layers:
        raise UserError(f"--keep-layers {args.keep_layers} --train-layers {args.train_layers}: "
                        f"the encoder has {sizes['layers']} layers, and trains some of those kept")
    room = sizes["positions"] - 2
    if args.max_tokens > room:
        raise UserError(f"--max-tokens {args.max_tokens}: this encoder has room for {room}")


# ---- the model -----------------------------------------------------------------------------------

def with_head(sizes, state, frequencies, layers):
    """(sizes, state) of read_encoder -> XLMR with a head. That and the upper `layers` are to be
    trained, all else is frozen.

    The head begins as an identity; its bias as the log frequency (V,) of every piece, so that the
    first thing to learn is what differs from it.
    """
    model = XLMR(Config(**sizes | {"head": True}))
    with torch.no_grad():
        nn.init.eye_(model.head.dense.weight)
        nn.init.zeros_(model.head.dense.bias)
        model.head.bias.copy_(frequencies.log())
    kept = {name: weight for name, weight in model.state_dict().items() if name.startswith("head.")}
    for name, weight in state.items():
        if name in model.state_dict():  # not of a layer that is dropped
            kept[name] = weight
    model.load_state_dict(kept)
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    for layer in model.layers[len(model.layers) - layers:]:
        layer.requires_grad_(True)
    return model


# ---- the loss ------------------------------------------------------------------------------------

class SampledSoftmax:
    """Cross-entropy over V pieces from a few of them.

    -log p(y) = log(e^{o_y} + sum_{j != y} e^{o_j}) - o_y, and the sum is estimated by importance
    sampling (Bengio & Senécal 2008): S pieces drawn from q, each with weight 1 / (S q_j), so

        sum_{j != y} e^{o_j}  ~  sum over the drawn j != y of e^{o_j - log(S q_j)}

    which is right in expectation. q follows frequency^0.75 (Mikolov et al. 2013).
    """

    def __init__(self, frequencies, S, device):
        """frequencies: (V,), positive where a piece may be drawn."""
        q = frequencies.double() ** 0.75                                        # (V,)
        self.q = (q / q.sum()).to(device)
        self.S = S
        self.log_weight = (self.q * S).log().float()                            # (V,) log(S q)
        self.generator = torch.Generator(device)

    def __call__(self, h, targets, E, bias, seed):
        """h: (n, D), targets: (n,), E: (V, D), bias: (V,) -> the mean loss, a number."""
        self.generator.manual_seed(seed)
        drawn = torch.multinomial(self.q, self.S, replacement=True, generator=self.generator)
        right = (h * E[targets]).sum(1) + bias[targets]                         # (n,)
        others = h @ E[drawn].T + bias[drawn] - self.log_weight[drawn]          # (n, S)
        hit = drawn == targets[:, None]                                         # (n, S)
        others = others.masked_fill(hit, -torch.inf)
        losses = torch.cat([right[:, None], others], 1).logsumexp(1) - right    # (n,)
        return losses.sum() / max(1, len(losses))  # a small batch may have no mask


def full_softmax(h, targets, E, bias):
    """The same over all V, 256 rows at a time: (n, V) at once may be gigabytes."""
    total = h.sum() * 0  # a small batch may have no mask
    for some, of_some in zip(h.split(256), targets.split(256)):
        total += F.cross_entropy(some @ E.T + bias, of_some, reduction="sum")
    return total / max(1, len(targets))


def loss_of(ids, seed, model, masking, dtype, softmax=None):
    """ids: (B, T), whole rows -> mean cross-entropy at the masks.

    softmax: SampledSoftmax, or None for the whole vocabulary's. seed: of the masks, and the draws.
    """
    corrupted, chosen = masking(ids, seed)
    with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
        x = model(model.word(corrupted), None)                                  # (B, T, D)
        h = model.head_hidden(x[chosen])                                        # (n, D)
    h = h.float()
    if softmax is None:
        return full_softmax(h, ids[chosen], model.word.weight, model.head.bias)
    return softmax(h, ids[chosen], model.word.weight, model.head.bias, seed)


# ---- the text ------------------------------------------------------------------------------------

class Text(Packed):
    """The corpus, English drawn with a probability of its own; and what a look measures."""

    def __init__(self, args):
        super().__init__(args.corpus, args.batch_tokens, args.max_tokens, args.alpha,
                         args.translation, args.seed)
        self.watched = watched(args.sib200) if args.sib200 else None
        langs = list(self.share)
        english = np.array([lang == "eng_Latn" for lang in langs])              # (languages,)
        if args.english:
            if not english.any() or english.all():
                raise UserError(f"--english {args.english}: of {len(langs)} languages in "
                                f"{args.corpus} it should be one; use --english 0")
            others = self.p * ~english
            self.p = others / others.sum() * (1 - args.english) + english * args.english
            self.share = dict(zip(langs, self.p.tolist()))
            n = max(4, 2**13 // self.T)
            rng = np.random.default_rng([self.seed, 2**32 + 1])
            rows = self.rows(rng, n, english.astype(float), 0.0, held_out=True)
            self.held_out["english"] = list(rows.split(self.B))

    def frequencies(self, V):
        """-> (V,) share of every piece. One that never occurs counts half, a row of the embedding
        that no piece uses next to nothing: the bias begins as the logarithm.
        """
        counts = np.bincount(self.ids[:self.bos], minlength=V) + 0.5            # (V,)
        counts[self.tokenizer.vocab_size:] = 1e-3
        return torch.from_numpy(counts / counts.sum()).float()

    def look(self, model):
        """-> {"sib200": {language: accuracy}} of the hard prompt, all classes, or nothing."""
        if self.watched is None:
            return {}
        examples, label_words = self.watched
        settings = default_settings(verbalizer="words", combine="max", template=TEMPLATE,
                                    hard_prompt=HARD_PROMPT)
        classifier = Classifier(model, self.tokenizer, label_words, settings)
        accuracy = {}
        for lang, of_lang in examples.items():
            guess = decide(classifier.score(of_lang), classifier.classes)       # (N,)
            right = [classifier.classes[c] == e.label for c, e in zip(guess.tolist(), of_lang)]
            accuracy[lang] = round(sum(right) / len(right), 3)
        return {"sib200": accuracy}

    def describe(self, more):
        """The same in words."""
        if not more:
            return ""
        accuracy = more["sib200"]
        mean = sum(accuracy.values()) / len(accuracy)
        return f", hard prompt {mean:.1%}, English {accuracy.get('eng_Latn', math.nan):.1%}"


def watched(folder):
    """-> ({language: Examples of the dev split}, {class: two English words}) of SIB-200."""
    examples = {lang: [] for lang in WATCHED}
    for example in load_split(folder, "dev"):
        if example.lang in examples:
            examples[example.lang].append(example)
    examples = {lang: of_lang for lang, of_lang in examples.items() if of_lang}
    if not examples:
        raise UserError(f"--sib200 {folder}: no dev text in {', '.join(WATCHED)}")
    return examples, load_label_words(folder, languages=["eng_Latn"], first=2)


def check_tokenizer(text, args):
    """Raises UserError if the corpus was not tokenised with the encoder's tokenizer."""
    tokenizer = Tokenizer(encoder_folder(args.encoder) / TOKENIZER_FILE)
    V = tokenizer.vocab_size
    same = V == text.tokenizer.vocab_size
    if not same or any(tokenizer.piece(i) != text.tokenizer.piece(i) for i in range(V)):
        raise UserError(f"--corpus {args.corpus}: tokenised otherwise than {args.encoder} does; "
                        f"make one with corpus.py --tokenizer {args.encoder}")


# ---- the run -------------------------------------------------------------------------------------

def main():
    args = arguments()
    device, dtype = pick_device(args.device, args.dtype)
    sizes, state = read_encoder(args.encoder)
    check(args, sizes)
    torch.manual_seed(args.seed)
    text = Text(args)
    check_tokenizer(text, args)
    with writing(args.out / TOKENIZER_FILE, "wb") as file:
        file.write((args.corpus / TOKENIZER_FILE).read_bytes())

    sizes["layers"] = args.keep_layers
    frequencies = text.frequencies(sizes["vocab_size"])                         # (V,)
    model = with_head(sizes, state, frequencies, args.train_layers).to(device)
    masking = Masking(text, args.mask_rate, device)
    softmax = SampledSoftmax(frequencies, args.negatives, device)
    exact = partial(loss_of, model=model, masking=masking, dtype=dtype)
    train(args, text, model, partial(exact, softmax=softmax), save_encoder, exact)


if __name__ == "__main__":
    run_script(main)
