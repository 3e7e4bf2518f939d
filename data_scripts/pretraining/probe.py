"""How much of a data set's classes a frozen encoder's states hold: a linear probe on their mean.

    python data_scripts/pretraining/probe.py --encoder runs/mini --data data/sib200

A logistic regression. No prompt, no label words; it needs many labels in the language itself. It
tells a weak encoder from a weak prompt.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import torch
import torch.nn.functional as F

from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.data import length_buckets, load_split
from minirosprompt.io.cli import Parser
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.runtime import pick_device
from minirosprompt.prompt import TOKENS_AT_ONCE, Template, pad
from minirosprompt.tokenizer import PAD


def arguments():
    p = Parser(description=__doc__)
    p.add_argument("--encoder", default="pocket", help="as in train.py (default: pocket)")
    p.add_argument("--data", default="minitopics", help="as in train.py (default: minitopics)")
    p.add_argument("--language", default="eng_Latn",
                   help="trained and tested on (default: eng_Latn)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                   help="(default: cuda where there is one)")
    return p.parse_args()


@torch.inference_mode()
def mean_states(encoder, rows, device):
    """rows: lists of ids -> (N, D) mean of the last hidden states over the real tokens."""
    states = torch.empty(len(rows), encoder.config.width)                           # (N, D)
    for bucket in length_buckets(rows, TOKENS_AT_ONCE[torch.device(device).type]):
        ids = pad([rows[i] for i in bucket], device)                                # (B, T)
        attention_mask = ids != PAD                                                 # (B, T)
        x = encoder(encoder.word(ids), attention_mask)                              # (B, T, D)
        x = x * attention_mask[..., None]
        mean = x.sum(1) / attention_mask.sum(1, keepdim=True)                       # (B, D)
        states[bucket] = mean.float().cpu()
    return states


def fit(x, y, C, decay=1e-3):
    """Multinomial logistic regression with weight decay, by L-BFGS.

    x: (N, D), y: (N,) class numbers below C -> weights (C, D), bias (C,)
    """
    weight = torch.zeros(C, x.shape[1], requires_grad=True)
    bias = torch.zeros(C, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + decay * weight.square().sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    return weight.detach(), bias.detach()


def main():
    args = arguments()
    device, dtype = pick_device(args.device, "float32")
    train = [e for e in load_split(args.data, "train") if e.lang == args.language]
    test = [e for e in load_split(args.data, "test") if e.lang == args.language]
    if not train or not test:
        raise UserError(f"--language {args.language}: no text in {args.data}")
    encoder, tokenizer = load_encoder(args.encoder, device, dtype)
    template = Template("{text} {mask}", tokenizer, 0, encoder.config.max_tokens)
    classes = sorted({e.label for e in train + test})

    def states_and_labels(examples):
        rows = template.encode([e.text for e in examples])
        labels = torch.tensor([classes.index(e.label) for e in examples])           # (N,)
        return mean_states(encoder, rows, device), labels

    x, y = states_and_labels(train)                                                 # (N, D), (N,)
    test_x, test_y = states_and_labels(test)
    # Every dimension with mean 0 and spread 1, as the training texts have it.
    mean = x.mean(0)                                                                # (D,)
    sd = x.std(0).clamp(min=1e-6)                                                   # (D,)
    weight, bias = fit((x - mean) / sd, y, len(classes))
    scores = (test_x - mean) / sd @ weight.T + bias                                 # (N, C)
    right = (scores.argmax(1) == test_y).float().mean().item()
    majority = test_y.bincount().max().item() / len(test)
    print(f"{args.language}: {100 * right:.1f} % of {len(test)} test texts ({len(train)} train "
          f"texts, {len(classes)} classes, chance {100 / len(classes):.1f}, "
          f"majority {100 * majority:.1f})")


if __name__ == "__main__":
    run_script(main)
