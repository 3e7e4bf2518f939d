"""Ours beside what a user would take instead: time, memory, and that the same scores come out.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                                  # XLM-R base's sizes, random weights
    python benchmarks/speed.py --encoder pocket
    python benchmarks/speed.py --dtype bfloat16 --only train score

    ours            minirosprompt's PromptedEncoder and a C x D label matrix
    peft            transformers' XLMRobertaForMaskedLM with a PEFT prompt; the same labels on its logits at the mask
    transformers    the same without PEFT, with words for a prompt: a hard prompt

One process, the same weights and the same ids; every repetition runs each of them once, in turn, and a matrix product of the encoder's
own shapes, which is what the machine can do at best. Medians, quartiles in brackets; ratios are medians over the repetitions too.
PEFT puts its vectors before <s>, so ours stand there as well. transformers pads 32 texts at a time as they come, ours go by length.
Speed depends on lengths and not on words, so texts are random ids, as long as SIB-200's under XLM-R's tokenizer, or all alike.
"""
import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from minirosprompt.classifier import score_sequences
from minirosprompt.io.files import write_json
from minirosprompt.io.runtime import environment, peak_memory, pick_device
from minirosprompt.io.cli import Parser, positive, run as run_script
from minirosprompt.data import load_split
from minirosprompt.linear import linear
from minirosprompt.prompt import PromptedEncoder, pad
from minirosprompt.tokenizer import BOS, EOS, PAD, Tokenizer
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE, save_encoder
from minirosprompt.xlmr import Config, XLMR

try:
    import peft
    import transformers
except ImportError:
    sys.exit("benchmarks/speed.py: transformers or peft is missing: pip install -r benchmarks/requirements.txt")

P, K = 8, 12
CONFIGS = {"base": Config(), "pocket": Config(8000, 128, 3, 4, 512, 130)}
# Tokens of a text of SIB-200's test split, with <s>, mask and </s>, under XLM-R's tokenizer: {percentile over 205 languages: tokens}
LENGTHS = {0: 7, 5: 23, 10: 26, 20: 31, 30: 35, 40: 40, 50: 44, 60: 49, 70: 54, 80: 62, 90: 74, 95: 87, 98: 105, 99: 122, 99.9: 195, 100: 428}
SIB_TEXTS = 205 * 204  # of the whole test split


def sib_lengths(n, config):
    """n lengths, evenly spread over SIB-200's, in a shuffled order, cut to what the encoder has room for."""
    spread = np.interp((np.arange(n) + 0.5) * 100 / n, list(LENGTHS), list(LENGTHS.values())).round().astype(int)
    return np.random.default_rng(0).permutation(np.minimum(spread, config.max_tokens - P)).tolist()


def random_rows(lengths, config):
    """Random texts: <s> ... <mask> </s> of so many tokens each, lists of ids."""
    generator, mask = torch.Generator().manual_seed(0), config.vocab_size - 1
    return [[BOS, *torch.randint(EOS + 2, mask, (n - 3,), generator=generator).tolist(), mask, EOS] for n in lengths]


class Labels:
    """C classes of one label word each: K token ids and weights, (C, K), which is all that NPPrompt's verbalizer is."""

    def __init__(self, C, encoder):
        self.classes, V, generator = list(map(str, range(C))), encoder.config.vocab_size, torch.Generator().manual_seed(0)
        self.ids = torch.randint(EOS + 2, V - 1, (C, K), generator=generator).to(encoder.head.bias.device)
        self.weight = torch.rand(C, K, generator=generator).to(self.ids.device).softmax(1)
        self.rows = (self.weight[..., None] * encoder.word(self.ids).float()).sum(1)         # (C, D)
        self.bias = (self.weight * encoder.head.bias[self.ids].float()).sum(1)               # (C,)

    def scores(self, h):
        """Ours: h (B, D) -> (B, C)"""
        return h @ self.rows.T + self.bias

    def of_logits(self, logits):
        """Theirs: logits at the mask (B, V) -> (B, C)"""
        return (logits.float()[:, self.ids] * self.weight).sum(-1)


class Ours:
    def __init__(self, encoder, prompt):
        """prompt: (P, D), or None for a hard prompt"""
        self.model, self.device = PromptedEncoder(encoder, encoder.config.vocab_size - 1, prompt), encoder.head.bias.device
        self.weight = self.model.prompt

    def rows(self, rows):
        V = self.model.mask_id + 1  # prompt vectors have the virtual ids after <mask>
        return rows if self.weight is None else [[*range(V, V + P), *row] for row in rows]

    def train_scores(self, rows, labels):
        return labels.scores(self.model.read(self.rows(rows)))

    def score(self, rows, labels):
        return score_sequences(self.model, labels, self.rows(rows))


class Theirs:
    def __init__(self, model, config, prompt):
        self.device, self.soft, self.mask = next(model.parameters()).device, prompt is not None, config.vocab_size - 1
        if self.soft:  # the only task type that takes a prompt and leaves the masked-LM head in peace
            model = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=P))
            self.weight = model.prompt_encoder.default.embedding.weight
            self.weight.data.copy_(prompt)
        self.model = model.eval()  # train() would turn the frozen encoder's dropout on

    def train_scores(self, rows, labels):
        ids = pad(rows, self.device)
        logits = self.model(input_ids=ids, attention_mask=(ids != PAD).long()).logits        # (B, P + T, V)
        at = (ids == self.mask).int().argmax(1) + P * self.soft
        return labels.of_logits(logits[torch.arange(len(ids), device=self.device), at])

    @torch.inference_mode()
    def score(self, rows, labels):
        return torch.cat([self.train_scores(rows[i:i + 32], labels).cpu() for i in range(0, len(rows), 32)])


def train_step(one, rows, gold, labels, optimizer):
    """The same for both: forward, backward, update. -> the gradient (P, D)"""
    loss = F.cross_entropy(one.train_scores(rows, labels), gold)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return one.weight.grad


def build(args, which=("ours", "peft", "transformers")):
    """-> encoder and {name: Ours or Theirs}, all with the same weights."""
    config = CONFIGS[args.encoder]
    device, dtype = pick_device(args.device, args.dtype)
    folder = Path(args.work) / f"{args.encoder}-weights"
    if not (folder / "model.safetensors").exists():
        encoder = XLMR(config)
        for key, weight in encoder.state_dict().items():
            weight.normal_(0, 0.02 if weight.ndim > 1 else 0.1).add_("norm.weight" in key)
        save_encoder(folder, encoder, torch.float32)
    encoder = XLMR.from_pretrained(folder, device, dtype)
    prompt, made = encoder.word.weight[100:100 + P].detach().float().clone(), {}
    for one in which:
        if one == "ours":
            made[one] = Ours(encoder, prompt)
        else:
            theirs = transformers.XLMRobertaForMaskedLM.from_pretrained(folder, dtype=dtype).to(device).requires_grad_(False)
            made[one] = Theirs(theirs, config, prompt if one == "peft" else None)
    return encoder, made


def flops(c, lengths, C, train=False):
    """Floating-point operations that the mathematics needs; multiply and add are two.

    Every layer but the last: 2 D (4 D + 2 F) a token and 4 T^2 D for attention; in the last, keys and values everywhere, the rest at the
    mask; then the head's D x D and C x D. Training goes back through each product once (the weights, frozen, have no gradient), through
    attention's two products twice (both factors have one), and in the first layer to the P prompt positions alone.
    """
    D, total = c.width, 0
    for T in (n + P for n in lengths):
        linear = (c.layers - 1) * 2 * T * D * (4 * D + 2 * c.ffn) + 2 * T * 2 * D * D + 2 * D * (2 * D + 2 * c.ffn) + 2 * D * D + 2 * C * D
        attention = (c.layers - 1) * 4 * T * T * D + 4 * T * D
        total += linear + attention
        if train:
            total += linear - 2 * (T - P) * 3 * D * D + 2 * attention
    return total


class MatrixProducts:
    """The products of one layer's FFN and attention for 2,048 tokens, nothing else: the machine's rate for these shapes."""

    def __init__(self, c, device, dtype):
        self.x = {width: torch.randn(2048, width, device=device).to(dtype) for width in (c.width, c.ffn)}
        shapes = [(c.width, c.width)] * 4 + [(c.ffn, c.width), (c.width, c.ffn)]
        self.weights = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
        self.flops = sum(2 * 2048 * w.numel() for w in self.weights)

    def __call__(self):
        with torch.inference_mode():
            for w in self.weights:
                linear(self.x[w.shape[1]], w, None)


class Bench:
    """Runs works side by side and keeps what it found: the table's rows."""

    def __init__(self, repeats, device, products):
        self.repeats, self.device, self.products, self.rows = repeats, device, products, []

    def seconds(self, work):
        start = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def __call__(self, case, works, needed=None, differences=None):
        """works: {name: function}, "ours" among them; needed: FLOPs of ours; differences: {name: max abs difference from ours}."""
        if needed:
            works = works | {"products": self.products}
        times = {name: [] for name in works}
        for repeat in tqdm(range(self.repeats + 1), desc=case, leave=False):
            for name, work in works.items():
                took = min(self.seconds(work) for _ in range(4 if name == "products" else 1))  # the limit is what it does at best
                if repeat:  # the first round warms up
                    times[name].append(took)
        ours, row, cells = np.array(times["ours"]), {"case": case}, []
        for name, t in ((name, np.array(t)) for name, t in times.items()):
            row[name] = {"seconds": t.tolist(), "median": np.median(t), "q1": np.quantile(t, 0.25), "q3": np.quantile(t, 0.75)}
            if name == "products":
                rate = self.products.flops / t
                row["GFLOP/s"], row["share"] = np.median(rate) / 1e9, np.median(needed / ours / rate)
                continue
            cells.append(f"{name} {row[name]['median'] * 1000:,.0f} [{row[name]['q1'] * 1000:,.0f}, {row[name]['q3'] * 1000:,.0f}] ms")
            if name != "ours":
                row[name]["ratio"] = np.median(t / ours)
                cells[-1] += f" = {row[name]['ratio']:.2f} x"
        if needed:
            cells.append(f"{row['share']:.0%} of {row['GFLOP/s']:,.0f} GFLOP/s")
        if differences:
            row["max abs difference"] = differences
            cells.append("differ by " + ", ".join(f"{d:.0e}" for d in differences.values()))
        self.rows.append(row)
        print(f"{case:34}" + "   ".join(cells), flush=True)
        return row["ours"]["median"]


def train_rows(bench, config, encoder, made, lengths):
    made = {name: one for name, one in made.items() if name != "transformers"}  # which has nothing to train
    optimizers = {name: torch.optim.AdamW([one.weight], lr=0.0) for name, one in made.items()}  # with lr 0 every step is the same
    for kind, of in lengths.items():
        for B in (8, 32) if kind.startswith("SIB") else (8,):
            rows, labels, gold = random_rows(of(B), config), Labels(14, encoder), torch.arange(B, device=bench.device) % 14
            works = {name: lambda name=name, one=one: train_step(one, rows, gold, labels, optimizers[name]) for name, one in made.items()}
            gradient = {name: work() for name, work in works.items()}
            off = (gradient["ours"] - gradient["peft"]).abs().max() / gradient["peft"].abs().max()
            bench(f"train, {B} texts, {kind}", works, flops(config, map(len, rows), 14, train=True), {"gradient, relative": off.item()})


def score_rows(bench, config, encoder, made, lengths, texts):
    hard = Ours(encoder, None)
    for kind, of in lengths.items():
        for C in (7, 14, 60) if kind.startswith("SIB") else (14,):
            rows, labels = random_rows(of(texts if kind.startswith("SIB") else 8), config), Labels(C, encoder)
            words = [row[:1] + list(range(100, 100 + P)) + row[1:] for row in rows]  # a hard prompt, after <s>
            works = {"ours": lambda: made["ours"].score(rows, labels), "peft": lambda: made["peft"].score(rows, labels),
                     "transformers": lambda: made["transformers"].score(words, labels)}
            found = {name: work() for name, work in works.items()}
            bench(f"score, {C} labels, {kind}", works, flops(config, map(len, rows), C),
                  {"peft": (found["ours"] - found["peft"]).abs().max().item(),
                   "transformers": (hard.score(words, labels) - found["transformers"]).abs().max().item()})


def memory(args):
    """Peak memory of two training steps, or of scoring, 32 texts: each in a process of its own, weights included."""
    rows = []
    for work in ("train", "score"):
        row = {"case": f"peak memory, {work}, 32 texts"}
        for name in ("ours", "peft"):
            out = subprocess.run([sys.executable, __file__, "--memory-of", name, work, "--encoder", args.encoder, "--dtype", args.dtype,
                                  "--device", args.device, "--work", args.work], capture_output=True, text=True)
            if out.returncode:
                sys.exit(out.stderr)
            row[name] = int(out.stdout.split()[-1])
        print(f"{row['case']:34}" + "   ".join(f"{name} {row[name] / 1e9:.2f} GB" for name in ("ours", "peft"))
              + f" = {row['peft'] / row['ours']:.2f} x", flush=True)
        rows.append(row)
    return rows


def memory_of(args, name, work):
    encoder, made = build(args, (name,))
    one, rows, labels = made[name], random_rows(sib_lengths(32, encoder.config), encoder.config), Labels(14, encoder)
    gold, optimizer = torch.arange(32, device=one.device) % 14, torch.optim.AdamW([one.weight])
    for _ in range(2):
        one.score(rows, labels) if work == "score" else train_step(one, rows, gold, labels, optimizer)
    print(peak_memory(one.device))


def tokenise_rows(bench, ours, folder):
    """Ours beside transformers' tokenizer, from the same SentencePiece model, on MiniTopics: two sentences are as long as a SIB-200 text."""
    sentences = [e.text for split in ("train", "dev", "test") for e in load_split("minitopics", split)]
    texts = [" ".join(two) for two in zip(sentences[::2], sentences[1::2])]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert [[BOS, *ids, EOS] for ids in ours.encode(texts)] == theirs(texts)["input_ids"]
    bench(f"tokenise {len(texts)} texts, in one call", {"ours": lambda: ours.encode(texts), "transformers": lambda: theirs(texts)})
    bench("tokenise them one by one", {"ours": lambda: [ours.encode(text) for text in texts],
                                       "transformers": lambda: [theirs(text) for text in texts]})


def scale_rows(bench, config, encoder, ours, texts):
    """What a text costs against the number of labels, of languages and of tokens, and what all of SIB-200 would cost."""
    sib = random_rows(sib_lengths(2 * texts, config), config)

    def one(case, rows, C):
        labels = Labels(C, encoder)
        took = bench(case, {"ours": lambda: ours.score(rows, labels)}, flops(config, map(len, rows), C)) / len(rows)
        print(f"{'':34}{1000 * took:.2f} ms a text")
        return took
    a_text = one(f"{len(sib)} texts, 7 labels", sib, 7)
    for C in (70, 700):
        one(f"{len(sib)} texts, {C} labels", sib, C)
    for languages in (2, 4):
        one(f"{languages} languages of {len(sib)} texts, 7 labels", sib * languages, 7)
    for T in (16, 32, 64, 128, 256, 504):
        if T + P <= config.max_tokens:
            one(f"8 texts of {T} tokens, 7 labels", random_rows([T] * 8, config), 7)
    print(f"so SIB-200's test split, {SIB_TEXTS:,} texts in 205 languages: {a_text * SIB_TEXTS / 60:.1f} minutes a pass")
    bench.rows.append({"case": "forecast: SIB-200's test split", "seconds": a_text * SIB_TEXTS})


def processor():
    try:
        return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def main():
    p = Parser(description=__doc__)
    p.add_argument("--encoder", choices=list(CONFIGS), default="base", help="whose sizes (default: base)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="(default: float32)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    parts = ["train", "score", "memory", "tokenise", "scale"]
    p.add_argument("--only", nargs="+", choices=parts, default=parts, help="(default: all)")
    p.add_argument("--repeats", type=positive, default=5, help="counted repetitions (default: 5)")
    p.add_argument("--texts", type=positive, default=32, help="texts scored in a repetition (default: 32)")
    p.add_argument("--tokenizer", type=Path, default=POCKET, help=f"folder with a {TOKENIZER_FILE} (default: pocket's)")
    p.add_argument("--out", type=Path, default=Path("runs/speed.json"), help="(default: %(default)s)")
    p.add_argument("--work", default="runs/speed", help="folder for the random weights (default: %(default)s)")
    p.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.memory_of:
        return memory_of(args, *args.memory_of)
    config, (device, dtype) = CONFIGS[args.encoder], pick_device(args.device, args.dtype)
    tokenizer = Tokenizer(args.tokenizer / TOKENIZER_FILE)  # now, so that a wrong folder is not found out after minutes
    about = environment(device) | {"processor": processor(), "encoder": args.encoder, "dtype": args.dtype, "P": P, "repeats": args.repeats,
                                   "transformers": transformers.__version__, "peft": peft.__version__}
    print(", ".join(f"{key} {value}" for key, value in about.items()), "\n", flush=True)
    bench = Bench(args.repeats, device, MatrixProducts(config, device, dtype))
    lengths = {"SIB-200 lengths": lambda n: sib_lengths(n, config)} | {
        f"{T} tokens": lambda n, T=T: [T] * n for T in (32, 128, 256) if T + P <= config.max_tokens}
    if "memory" in args.only:  # first: on Linux the peak of a process counts for those that it starts
        bench.rows += memory(args)
    if "tokenise" in args.only:
        tokenise_rows(bench, tokenizer, args.tokenizer)
    encoder, made = build(args)
    if "train" in args.only:
        train_rows(bench, config, encoder, made, lengths)
    if "score" in args.only:
        score_rows(bench, config, encoder, made, lengths, args.texts)
    if "scale" in args.only:
        scale_rows(bench, config, encoder, made["ours"], args.texts)
    write_json(args.out, {"about": about, "rows": bench.rows})
    print(f"\n{args.out}")
    too_far = [row["case"] for row in bench.rows if max(row.get("max abs difference", {}).values(), default=0) > 1e-4]
    if args.dtype == "float32" and too_far:
        sys.exit(f"more than 1e-4 apart: {'; '.join(too_far)}")


if __name__ == "__main__":
    run_script(main)
