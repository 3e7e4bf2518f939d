"""How much of a data set's classes a frozen encoder's states hold: a linear probe (logistic regression) on their mean.

    python data_scripts/probe.py --encoder runs/mini --data data/sib200 --language eng_Latn

No prompt, no label words; it needs many labels in the language itself. It tells a weak encoder from a weak prompt.
"""
import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from minirosprompt import UserError
from minirosprompt.io.runtime import pick_device
from minirosprompt.io.cli import Parser, run as run_script
from minirosprompt.data import length_buckets, load_split
from minirosprompt.prompt import TOKENS_AT_ONCE, Template, pad
from minirosprompt.tokenizer import PAD, Tokenizer
from minirosprompt.io.weights import TOKENIZER_FILE, encoder_folder
from minirosprompt.xlmr import XLMR


@torch.inference_mode()
def mean_states(encoder, rows, device):
    """rows: lists of ids -> (N, D) mean of the last hidden states over the real tokens."""
    states = torch.empty(len(rows), encoder.config.width)
    for bucket in length_buckets(rows, TOKENS_AT_ONCE[torch.device(device).type]):
        ids = pad([rows[i] for i in bucket], device)                               # (B, T)
        real = ids != PAD
        x = encoder(encoder.word(ids), real) * real[..., None]                     # (B, T, D)
        states[bucket] = (x.sum(1) / real.sum(1, keepdim=True)).float().cpu()
    return states


def fit(x, y, C, decay=1e-3):
    """Multinomial logistic regression with weight decay, by L-BFGS: x (N, D), y (N,) -> weights (C, D), bias (C,)"""
    weight, bias = torch.zeros(C, x.shape[1], requires_grad=True), torch.zeros(C, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + decay * weight.square().sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    return weight.detach(), bias.detach()


def main():
    p = Parser(description=__doc__)
    p.add_argument("--encoder", default="pocket", help="as in train.py (default: pocket)")
    p.add_argument("--data", default="minitopics", help="as in train.py (default: minitopics)")
    p.add_argument("--language", default="eng_Latn", help="trained and tested on (default: eng_Latn)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    args = p.parse_args()
    device, dtype = pick_device(args.device, "float32")
    split = {name: [e for e in load_split(args.data, name) if e.lang == args.language] for name in ("train", "test")}
    if not all(split.values()):
        raise UserError(f"--language {args.language}: no text in {args.data}")
    encoder = XLMR.from_pretrained(args.encoder, device, dtype)
    tokenizer = Tokenizer(encoder_folder(args.encoder) / TOKENIZER_FILE)
    template = Template("{text} {mask}", tokenizer, 0, encoder.config.max_tokens)
    classes = sorted({e.label for of in split.values() for e in of})
    x = {name: mean_states(encoder, template.encode([e.text for e in of]), device) for name, of in split.items()}
    y = {name: torch.tensor([classes.index(e.label) for e in of]) for name, of in split.items()}
    mean, sd = x["train"].mean(0), x["train"].std(0).clamp(min=1e-6)
    weight, bias = fit((x["train"] - mean) / sd, y["train"], len(classes))
    right = (((x["test"] - mean) / sd @ weight.T + bias).argmax(1) == y["test"]).float().mean().item()
    majority = y["test"].bincount().max().item() / len(y["test"])
    print(f"{args.language}: {100 * right:.1f} % of {len(y['test'])} test texts ({len(y['train'])} train texts, {len(classes)} classes, "
          f"chance {100 / len(classes):.1f}, majority {100 * majority:.1f})")


if __name__ == "__main__":
    run_script(main)
