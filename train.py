"""Train a soft prompt for a frozen XLM-R, and test it on classes and languages it has never seen.

    python train.py                             # multilingual-e5-small on MiniTopics: two minutes
    python train.py --seeds 0 1 2 3 4           # mean ± sd over five seeds
    python train.py --encoder pocket            # a small encoder that ships: no network, a minute
    python train.py --resume runs/NAME          # after an interruption
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import csv
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, decide, load_encoder
from minirosprompt.data import draw_batch, few_shot, groups_of, load_data, load_label_words
from minirosprompt.dro import group_losses, update_log_q
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, names, nonnegative, positive, some, whole
from minirosprompt.io.files import kept, load_state, save_state, writing
from minirosprompt.io.prompts import fingerprint, load_prompt, save_prompt
from minirosprompt.io.runs import held, refuse_if_there
from minirosprompt.io.runtime import interrupts, pick_device, to_device
from minirosprompt.io.settings import add_settings, complete, default_of, settings_of
from minirosprompt.prompt import Template, init_prompt
from minirosprompt.report import report

# ---- flags ---------------------------------------------------------------------------------------

def arguments(argv):
    """-> (args, folder of the run, is it new?). --resume takes the args that it was begun with."""
    p = Parser(description=__doc__)
    add_settings(p)  # --encoder, --data, --template ...: io/settings.py
    g = p.add_argument_group("training")
    objectives = ["erm", "group-dro"]
    g.add_argument("--objective", nargs="*", choices=objectives, default=["erm", "group-dro"],
                   help="mean loss, worst-group loss; or none: the hard prompt (default: both)")
    g.add_argument("--group-by", type=names, default=["lang"],
                   help="columns that make the groups, with commas (default: lang)")
    g.add_argument("--eta", type=nonnegative, default=0.3,
                   help="step size of the group weights q (default: 0.3)")
    g.add_argument("--adjustment", type=nonnegative, default=0.0,
                   help="C of the generalisation adjustment C / sqrt(n_g) (default: 0)")
    g.add_argument("--shots", type=positive, nargs="+", default=[8], help="training texts a class "
                   "and source language; or a number for each of --source (default: 8)")
    g.add_argument("--prompt-length", type=positive, default=8,
                   help="soft prompt vectors P (default: 8)")
    g.add_argument("--init", choices=["words", "vocab", "normal"], default="words", help="start "
                   "from the hard prompt's words, random tokens or noise (default: words)")
    g.add_argument("--seeds", type=whole, nargs="+",
                   help="one training run each " + default_of("seeds"))
    g.add_argument("--steps", type=positive, help=default_of("steps"))
    g.add_argument("--batch-size", type=positive, default=32, help="texts (default: 32)")
    g.add_argument("--sampler", choices=["balanced", "natural"], default="balanced",
                   help="a batch: as many texts of each group, or as they come (default: balanced)")
    g.add_argument("--lr", type=nonnegative, help="AdamW's, constant " + default_of("lr"))
    g.add_argument("--select-every", type=positive, default=10,
                   help="steps between selections and checkpoints (default: 10)")
    g = p.add_argument_group("run")
    g.add_argument("--languages", type=names,
                   help="languages that are tested, with commas (default: all in the data)")
    g.add_argument("--split", choices=["test", "dev"], default="test", help="(default: test)")
    g.add_argument("--name", type=some, help="folder under runs/ (default: the time)")
    g.add_argument("--resume", type=some, metavar="RUN",
                   help="go on with this run, under its own settings")
    cli.add_device(g)
    args = p.parse_args(argv)
    if args.resume:
        return cli.resumed(p, argv, args.resume), Path(args.resume), False
    cli.refuse_idle(p, argv, args.objective)
    run = Path("runs") / (args.name or time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}"))
    refuse_if_there(run)
    return args, run, True


# ---- set-up --------------------------------------------------------------------------------------

def main(argv=None):
    args, run, new = arguments(argv)
    device, dtype = pick_device(args.device, args.dtype)
    pool, dev, tested = load_data(args)

    # The frozen encoder, and the baseline: a hard prompt, which needs no training.
    encoder, tokenizer = load_encoder(args.encoder, device, dtype)
    complete(args, encoder)  # what was not given: defaults that follow from the verbalizer
    label_words = load_label_words(args.data, args.classes, args.label_languages, args.label_words)
    seen_words = {label: label_words[label] for label in args.seen}
    training = {s: few_shot(pool, args.seen, args.source, args.shots, s) for s in args.seeds}
    hard = Classifier(encoder, tokenizer, label_words, args).calibrate()
    # Raises if there is no room for so long a prompt: now, before anything is written.
    Template(args.template, tokenizer, args.prompt_length, encoder.config.max_tokens, False)
    start = (args.init, args.prompt_length, encoder, tokenizer, args.hard_prompt)
    initial = {s: init_prompt(*start, s) for s in args.seeds}
    print(f"{len(training[args.seeds[0]])} of {len(pool)} training texts, {len(dev)} to select by")
    inputs = {"texts": [e.columns for e in pool + dev + tested], "label words": label_words,
              "encoder": fingerprint(encoder)}
    with held(run, new, vars(args), inputs, device):  # by this process alone
        scores = {("hard", 0): kept(run / "hard.pt", hard.score, tested, "hard prompt")}
        # One soft prompt for every seed and objective, trained on the seen classes, tested on all.
        for seed in args.seeds:
            for objective in args.objective:
                method = f"soft-{objective}"
                folder = run / f"{method}-{seed}"
                path = folder / "prompt.safetensors"
                if not path.exists():  # else --resume: this one is done
                    classifier = Classifier(encoder, tokenizer, seen_words, args, initial[seed])
                    prompt = train(args, objective, seed, classifier, training[seed], dev, folder)
                    save_prompt(path, prompt, encoder, method, seed, settings_of(args))
                # Now all classes compete, those that training has never heard of too.
                prompt, _ = load_prompt(path, encoder)
                soft = Classifier(encoder, tokenizer, label_words, args, prompt).calibrate()
                scores[method, seed] = kept(folder / "scores.pt", soft.score, tested, "scoring")
        report(run, args, tested, list(label_words), scores, device)


def worst_group(classifier, dev, group_by):
    """-> (lowest accuracy, highest mean loss) of any group of dev."""
    scores = classifier.score(dev)                                                  # (N, C)
    labels = torch.tensor([classifier.classes.index(e.label) for e in dev])         # (N,)
    groups, group_names = groups_of(dev, group_by)
    groups = torch.tensor(groups)                                                   # (N,)
    right = (decide(scores, classifier.classes) == labels).float()                  # (N,)
    accuracy, _ = group_losses(right, groups, len(group_names))                     # (G,) means
    losses = F.cross_entropy(scores, labels, reduction="none")                      # (N,)
    loss, _ = group_losses(losses, groups, len(group_names))                        # (G,)
    return accuracy.min().item(), loss.max().item()


# ---- the loop ------------------------------------------------------------------------------------

def train(args, objective, seed, classifier, examples, dev, folder):
    """Trains classifier.prompt. -> the prompt (P, D) with the best worst-group dev accuracy.

    classifier: with the seen classes alone; examples: to train on; dev: Examples to select on.
    Checkpoints lie in `folder`, and it resumes from there. Ctrl-C finishes the step, saves,
    and raises KeyboardInterrupt.
    """
    optimizer = torch.optim.AdamW([classifier.prompt], lr=args.lr, weight_decay=0.0)
    # Nothing in front of the encoder changes but the prompt: the texts are tokenised once.
    device = classifier.prompt.device
    sequences = classifier.encode(examples)
    labels = [classifier.classes.index(e.label) for e in examples]
    labels = torch.tensor(labels, device=device)                                    # (N,)
    groups, group_names = groups_of(examples, args.group_by)
    G = len(group_names)
    group_ids = torch.tensor(groups, device=device)                                 # (N,)
    adjustment = args.adjustment / torch.bincount(group_ids, minlength=G).sqrt()    # (G,)
    log_q = torch.full((G,), 1 / G, device=device).log()                            # (G,) uniform

    step, log, best = 0, [], {"accuracy": -1.0, "loss": 0.0}
    # Go on where an interrupted run has stopped, q and the optimiser's moments included.
    last = folder / "last.pt"
    if last.exists():
        state = load_state(last)
        try:
            step, log, best = state["step"], state["log"], state["best"]
            log_q = state["log_q"].to(device)
            classifier.load_state_dict({"model.prompt": state["prompt"]}, strict=False)
            optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError):
            raise UserError(f"{last}: not a checkpoint of this run; delete it") from None

    def save():  # all that the loop remembers: an objective with a memory adds its own
        save_state(last, {"step": step, "log": log, "best": best, "log_q": log_q.cpu(),
                          "prompt": classifier.prompt.detach().cpu(),
                          "optimizer": optimizer.state_dict()})

    bar = tqdm(total=args.steps, initial=step, desc=folder.name, unit="step", delay=1)
    with bar, interrupts() as stop:
        while step < args.steps:
            # (seed, step) decides which texts, so --resume needs to know no more.
            batch = draw_batch(args.sampler, groups, args.batch_size, seed, step)   # (B,) indices
            scores = classifier([sequences[i] for i in batch])                      # (B, C)
            batch = to_device(torch.tensor(batch), device)                          # (B,)
            losses = F.cross_entropy(scores, labels[batch], reduction="none")       # (B,)
            loss_g, count = group_losses(losses, group_ids[batch], G)               # (G,), (G,)

            if objective == "erm":
                # Empirical risk minimisation: all texts of the batch weigh the same.
                loss = losses.mean()
            elif objective == "group-dro":
                # Sagawa et al. 2020, Algorithm 1:  q_g <- q_g exp(eta (loss_g + C / sqrt(n_g)))
                # q <- q / sum(q);  step on  sum_g q_g loss_g
                log_q = update_log_q(log_q, loss_g, count > 0, args.eta, adjustment)
                loss = (log_q.exp() * loss_g).sum()
            else:
                raise ValueError(f"train.py has no branch for --objective {objective}")

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            bar.update()

            if step % args.select_every and step < args.steps and not stop:
                continue  # who looks at a number waits for the GPU: not at every step
            if not torch.isfinite(loss):
                good = f"{last} is good, of step {log[-1][0]}" if log else "no checkpoint yet"
                raise UserError(f"the loss is {loss.item()} at step {step} ({good}); "
                                f"start again with a smaller --lr (now {args.lr})")
            # Selection: the prompt that is best for its worst group. Unseen classes and target
            # languages are not in dev.
            if step % args.select_every == 0 or step == args.steps:
                worst, worst_loss = worst_group(classifier, dev, args.group_by)
                # The dev split is small, so ties are common: then the lower loss is better.
                if (worst, -worst_loss) > (best["accuracy"], -best["loss"]):
                    best = {"accuracy": worst, "loss": worst_loss, "step": step,
                            "prompt": classifier.prompt.detach().cpu().clone()}
                log.append([step, loss.item(), worst, worst_loss, *loss_g.tolist(),
                            *log_q.exp().tolist()])
                bar.set_postfix(loss=f"{loss.item():.3f}", worst_dev=f"{worst:.2f}",
                                highest_loss=group_names[loss_g.argmax()], refresh=False)
            save()
            if stop:
                raise KeyboardInterrupt(f"step {step} is saved; go on with "
                                        f"python train.py --resume {folder.parent}")
    with writing(folder / "log.csv") as file:
        header = ["step", "loss", "worst_dev_accuracy", "worst_dev_loss"]
        header += [f"loss {name}" for name in group_names] + [f"q {name}" for name in group_names]
        csv.writer(file).writerows([header, *log])
    # Left by a `break` before the first selection? Then the prompt as it is.
    return best.get("prompt", classifier.prompt.detach())


if __name__ == "__main__":
    cli.run(main)
