"""Train a soft prompt for a frozen XLM-R with group DRO, and test it on classes and languages it has never seen.

    python train.py                                             # pocket encoder, MiniTopics, a minute or less on 2 cores
    python train.py --seeds 0 1 2 3 4                           # mean ± sd over five seeds
    python train.py --objective group-dro --group-by lang,label --eta 0.3
    python train.py --encoder xlm-roberta-base --data data/sib200 --source eng_Latn --seen sports,health
    python train.py --resume runs/NAME                          # after an interruption
"""
import argparse
import csv
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from eval import Reader, report, score
from minirosprompt import UserError
from minirosprompt.cli import Parser, check_settings, names, nonnegative, positive, run as run_script, whole
from minirosprompt.checkpoint import (environment, interrupts, load_state, pick_device, read_json, save_state, write_json,
                                      writing)
from minirosprompt.data import (MINITOPICS_SEEN, MINITOPICS_SOURCE, balanced_batch, data_folder, few_shot,
                                groups_of, load_label_words, load_resource, load_split)
from minirosprompt.dro import group_losses, update_log_q
from minirosprompt.prompt import PromptedEncoder, init_prompt, load_prompt, save_prompt

METHOD = {"erm": "soft-erm", "group-dro": "soft-group-dro"}


def arguments(argv):
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    g = p.add_argument_group("what is read")
    g.add_argument("--encoder", default="pocket", help='"pocket", a folder, or a name on the hub: xlm-roberta-base, '
                                                       "org/name[@revision] (default: pocket)")
    g.add_argument("--data", default="minitopics", help='"minitopics" or a data folder (default: minitopics)')
    g.add_argument("--seen", type=names, help="classes to train on, with commas (default: MiniTopics' seven; else all)")
    g.add_argument("--source", type=names, help="languages to train on, with commas (default: MiniTopics' four; else all)")
    g.add_argument("--classes", type=names, help="classes that compete and are tested (default: all in labels.json)")
    g.add_argument("--languages", type=names, help="languages that are tested (default: all in the data)")
    g.add_argument("--label-languages", type=names, help="languages of the label words (default: all in labels.json)")
    g.add_argument("--shots", type=positive, default=8, help="training texts a class and source language (default: 8)")
    g = p.add_argument_group("prompt and verbalizer")
    g.add_argument("--template", default="{prompt} {mask} {text}", help="where prompt, text and mask go (default: %(default)s)")
    g.add_argument("--hard-prompt", default="Topic:", help="the baseline's words, and what --init words starts from "
                                                           "(default: %(default)s)")
    g.add_argument("--prompt-length", type=positive, default=8, help="soft prompt vectors P (default: 8)")
    g.add_argument("--init", choices=["words", "vocab", "normal"], default="words", help="soft prompt before training: the "
                   "hard prompt's words, random tokens, or noise (default: words)")
    g.add_argument("--k", type=positive, default=1, help="neighbours K of a label word, itself among them (default: 1)")
    g.add_argument("--combine", choices=["max", "mean"], default="max", help="over a class's label words (default: max)")
    g.add_argument("--calibration", choices=["none", "contextual"], default="none", help="subtract the scores of an empty "
                   "text at test time (default: none)")
    g.add_argument("--stacking", type=nonnegative, default=0.0, help="calibrated stacking: subtract so much from the "
                   "scores of seen classes at test time (default: 0)")
    g = p.add_argument_group("training")
    g.add_argument("--objective", nargs="+", choices=list(METHOD), default=["erm", "group-dro"],
                   help="plain mean loss, worst-group loss, or both, one after the other (default: both)")
    g.add_argument("--group-by", type=names, default=["lang"], help="columns that make the groups, with commas (default: lang)")
    g.add_argument("--eta", type=nonnegative, default=0.3, help="step size of the group weights q (default: 0.3)")
    g.add_argument("--adjustment", type=nonnegative, default=0.0, help="C of the generalisation adjustment C / sqrt(n_g) "
                                                                       "(default: 0)")
    g.add_argument("--seeds", type=whole, nargs="+", default=[0, 1, 2], help="one training run each (default: 0 1 2)")
    g.add_argument("--steps", type=positive, default=100, help="(default: 100)")
    g.add_argument("--batch-size", type=positive, default=32, help="texts a step, the same number a group (default: 32)")
    g.add_argument("--lr", type=nonnegative, default=0.01, help="AdamW's, constant (default: 0.01)")
    g.add_argument("--select-every", type=positive, default=10, help="steps between selections and checkpoints (default: 10)")
    g = p.add_argument_group("run")
    g.add_argument("--split", choices=["test", "dev"], default="test", help="what the table is about (default: test)")
    g.add_argument("--name", help="folder under runs/ (default: the time)")
    g.add_argument("--resume", metavar="RUN", help="go on with this run's folder, under its own settings")
    g.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    g.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the encoder (default: float32)")
    args = p.parse_args(argv)
    if args.resume:
        run = Path(args.resume)
        settings = read_json(run / "config.json")
        if settings.keys() != vars(args).keys():
            raise UserError(f"{run}/config.json: written by another version of train.py; start a new run")
        return argparse.Namespace(**check_settings(p, settings, run / "config.json")), run
    run = Path("runs") / (args.name or time.strftime("%Y%m%d-%H%M%S"))
    if (run / "config.json").exists():
        raise UserError(f"{run} exists: choose another --name, or go on with it by --resume {run}")
    return args, run


def choose_classes_and_languages(args, examples):
    """Fills in --classes, --languages, --seen and --source, and refuses names that the data do not have."""
    labels, langs, mini = {e.label for e in examples}, {e.lang for e in examples}, args.data == "minitopics"
    for flag, have, default in (("classes", labels, labels), ("languages", langs, langs),
                                ("seen", labels, MINITOPICS_SEEN if mini else labels),
                                ("source", langs, MINITOPICS_SOURCE if mini else langs)):
        chosen = getattr(args, flag) or sorted(default)
        unknown = [name for name in chosen if name not in have]
        if unknown:
            raise UserError(f"--{flag}: {', '.join(unknown)} not in {args.data}, which has {', '.join(sorted(have))}")
        setattr(args, flag, chosen)
    outside = set(args.seen) - set(args.classes)
    if outside:
        raise UserError(f"--seen: {', '.join(sorted(outside))} not among --classes")


def worst_group(model, verbalizer, template, dev, group_by):
    """-> lowest accuracy and highest mean loss of any group of dev."""
    scores, gold = score(model, verbalizer, template, [e.text for e in dev]), [verbalizer.classes.index(e.label) for e in dev]
    groups, names_of_groups = groups_of(dev, group_by)
    groups, gold, G = torch.tensor(groups), torch.tensor(gold), len(names_of_groups)
    accuracy, _ = group_losses((scores.argmax(1) == gold).float(), groups, G)
    loss, _ = group_losses(F.cross_entropy(scores, gold, reduction="none"), groups, G)
    return accuracy.min().item(), loss.max().item()


def train(args, objective, seed, reader, label_words, shots, dev, folder, stop=()):
    """-> the soft prompt (P, D) with the best worst-group dev accuracy. Checkpoints in `folder`, resumes from there.

    label_words: of the seen classes alone; shots: Examples to train on; dev: Examples to select on; stop: as soon as it holds
    anything, the step is finished and saved, and KeyboardInterrupt raised.
    """
    device, verbalizer, classes = reader.device, reader.verbalizer(label_words), list(label_words)
    initial = init_prompt(args.init, args.prompt_length, reader.encoder, reader.tokenizer, args.hard_prompt, seed)
    model = PromptedEncoder(reader.encoder, reader.tokenizer.mask, initial).to(device)
    optimizer = torch.optim.AdamW([model.prompt], lr=args.lr, weight_decay=0.0)

    template = reader.template(args.prompt_length)
    rows = template.encode(e.text for e in shots)
    gold = torch.tensor([classes.index(e.label) for e in shots], device=device)
    groups, group_names = groups_of(shots, args.group_by)
    G, group = len(group_names), torch.tensor(groups, device=device)             # group: (N,)
    adjustment = args.adjustment / torch.bincount(group, minlength=G).sqrt()     # (G,) C / sqrt(n_g)
    log_q = torch.full((G,), 1 / G, device=device).log()                         # (G,) q starts uniform

    step, best, log, last = 0, {"accuracy": -1.0}, [], folder / "last.pt"
    if last.exists():
        try:
            state = load_state(last)
            step, best, log, log_q = state["step"], state["best"], state["log"], state["log_q"].to(device)
            model.prompt.data.copy_(state["prompt"])
            optimizer.load_state_dict(state["optimizer"])
        except (KeyError, TypeError, AttributeError, RuntimeError):
            raise UserError(f"{last}: not a checkpoint of this run; delete it to train this prompt anew") from None

    def save():
        save_state(last, {"step": step, "prompt": model.prompt.detach().cpu(), "best": best, "log": log, "log_q": log_q.cpu(),
                          "optimizer": optimizer.state_dict()})

    bar = tqdm(total=args.steps, initial=step, desc=f"{METHOD[objective]} seed {seed}", unit="step", delay=1)
    while step < args.steps and not stop:
        batch = balanced_batch(groups, G, args.batch_size, seed, step)
        h = model.read([rows[i] for i in batch])                                 # (B, D)
        scores = verbalizer.scores(h)                                            # (B, C)
        losses = F.cross_entropy(scores, gold[batch], reduction="none")             # (B,)

        # Group DRO (Sagawa et al. 2020, Algorithm 1):
        #     q_g <- q_g exp(eta (loss_g + C / sqrt(n_g)));   q <- q / sum(q);   step on  sum_g q_g loss_g
        loss_g, count = group_losses(losses, group[batch], G)         # (G,), (G,)
        if objective == "group-dro":
            log_q = update_log_q(log_q, loss_g, count > 0, args.eta, adjustment)
            weight = log_q.exp()
        else:  # ERM: the mean over the batch
            weight = count / len(batch)
        loss = (weight * loss_g).sum()
        if not torch.isfinite(loss):
            kept = f"{last} is good, of step {load_state(last)['step']}" if last.exists() else "no checkpoint yet"
            raise UserError(f"the loss is {loss.item()} at step {step + 1} ({kept}); start again with a smaller --lr (now {args.lr})")

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        bar.update()
        if step % args.select_every == 0 or step == args.steps:
            worst, worst_loss = worst_group(model, verbalizer, template, dev, args.group_by)
            if (worst, -worst_loss) > (best["accuracy"], -best.get("loss", 0)):  # the dev split is small: ties are common
                best = {"accuracy": worst, "loss": worst_loss, "step": step, "prompt": model.prompt.detach().cpu().clone()}
            log.append([step, loss.item(), worst, worst_loss, *weight.tolist()])
            bar.set_postfix(loss=f"{loss.item():.3f}", worst_dev=f"{worst:.2f}", worst_q=group_names[weight.argmax()],
                            refresh=False)
            save()
    bar.close()
    if step < args.steps:
        save()
        raise KeyboardInterrupt(f"step {step} is saved; go on with python train.py --resume {folder.parent}")
    with writing(folder / "log.csv") as file:
        csv.writer(file).writerows([["step", "loss", "worst_dev_accuracy", "worst_dev_loss",
                                     *("q " + name for name in group_names)], *log])
    return best["prompt"].to(device)


def main(argv=None):
    args, run = arguments(argv)
    device, dtype = pick_device(args.device, args.dtype)
    examples, dev, tested = (load_split(args.data, split) for split in ("train", "dev", args.split))
    choose_classes_and_languages(args, examples + dev + tested)
    label_words = load_label_words(data_folder(args.data) / "labels.json", args.classes, args.label_languages)
    tested = [e for e in tested if e.label in args.classes and e.lang in args.languages]
    dev = [e for e in dev if e.label in args.seen and e.lang in args.source]  # what a prompt is chosen by
    shots = {seed: few_shot(examples, args.seen, args.source, args.shots, seed) for seed in args.seeds}
    for part, examples_of_part in (("train", shots[args.seeds[0]]), ("dev", dev), (args.split, tested)):
        if not examples_of_part:
            raise UserError(f"{args.data}: no text of these classes and languages in the {part} split")
    reader = Reader(vars(args), device, dtype)
    reader.template(args.hard_prompt), reader.template(args.prompt_length), reader.verbalizer(label_words)
    init_prompt(args.init, args.prompt_length, reader.encoder, reader.tokenizer, args.hard_prompt, 0)
    groups_of(dev, args.group_by), groups_of(examples, args.group_by)  # what cannot work is refused before anything is written
    write_json(run / "config.json", vars(args))
    write_json(run / "env.json", environment(device))

    texts = [e.text for e in tested]
    scores = {("hard", 0): reader.classify(texts, label_words, None)}
    for seed in args.seeds:
        for objective in args.objective:
            folder, method = run / f"{METHOD[objective]}-{seed}", METHOD[objective]
            path = folder / "prompt.safetensors"
            if path.exists():  # --resume: this one is done
                prompt = load_prompt(path, reader.encoder)[0].to(device)
            else:
                seen_words = {label: label_words[label] for label in args.seen}
                with interrupts() as stop:
                    prompt = train(args, objective, seed, reader, seen_words, shots[seed], dev, folder, stop)
                save_prompt(path, prompt, reader.encoder, {"method": method, "seed": str(seed), "encoder": args.encoder,
                                                           "settings": json.dumps(reader.settings)})
            scores[method, seed] = reader.classify(texts, label_words, prompt)
    report(run, vars(args), tested, label_words, scores, load_resource(args.encoder), device)


if __name__ == "__main__":
    run_script(main)
