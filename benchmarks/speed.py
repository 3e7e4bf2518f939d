"""Ours beside what a user would take instead: time, memory, and that the same scores come out.

    python benchmarks/speed.py                                   # XLM-R base's sizes, random weights (pip install -r benchmarks/requirements.txt)
    python benchmarks/speed.py --encoder pocket
    python benchmarks/speed.py --dtype bfloat16 --only train score --out bf16.json

    ours            minirosprompt's PromptedEncoder and Verbalizer
    peft            transformers' XLMRobertaForMaskedLM with a PEFT prompt, verbalizer on its logits at the mask
    transformers    the same without PEFT, and with words for a prompt: a hard prompt

All in one process, on the same weights and the same ids, one after the other in every repetition; medians, with the quartiles
in brackets. PEFT puts its vectors before <s>, so ours stand there too. transformers pads batches of 32 as they come, ours go by length.
Texts are random ids whose lengths are SIB-200's under XLM-R's tokenizer (or all the same): only lengths matter for speed.
"""
import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from eval import score
from minirosprompt.checkpoint import environment, peak_memory, pick_device, write_json
from minirosprompt.cli import Parser, positive, run as run_script
from minirosprompt.data import load_split
from minirosprompt.prompt import PromptedEncoder, SLOT, pad
from minirosprompt.tokenizer import BOS, EOS, PAD, Tokenizer
from minirosprompt.weights import POCKET, TOKENIZER_FILE, save_encoder
from minirosprompt.xlmr import Config, XLMR

try:
    import peft
    import transformers
except ImportError:
    sys.exit("benchmarks/speed.py: transformers or peft is missing: pip install -r benchmarks/requirements.txt")

P, K = 8, 12
CONFIGS = {"base": Config(), "pocket": Config(8000, 128, 3, 4, 512, 130)}
# Tokens of a SIB-200 text, <s>, mask and </s> included, under XLM-R's tokenizer: quantiles 0, 5, ... 100 % over 205 languages.
LENGTHS = [7, 23, 26, 29, 31, 33, 35, 37, 40, 42, 44, 46, 49, 51, 54, 58, 62, 67, 74, 87, 428]


def rows_of(lengths, config, generator):
    """Random texts: <s> ... <mask> </s> of so many tokens each, lists of ids."""
    mask = config.vocab_size - 1
    return [[BOS, *torch.randint(EOS + 2, mask, (n - 3,), generator=generator).tolist(), mask, EOS] for n in lengths]


def sib_lengths(n, config):
    """n lengths, evenly spread over SIB-200's quantiles, in a shuffled order."""
    at = (torch.arange(n) + 0.5) / n * (len(LENGTHS) - 1)
    low = at.long()
    lengths = torch.tensor(LENGTHS).float()
    exact = lengths[low] + (at - low) * (lengths[low + 1] - lengths[low])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return exact.round().int()[order].clamp(max=config.max_tokens - P).tolist()


class Labels:
    """C classes of one label word each: K token ids and weights, (C, K), which is all that NPPrompt's verbalizer is."""

    def __init__(self, C, encoder, generator):
        self.classes = list(map(str, range(C)))
        V = encoder.config.vocab_size
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
        self.model = PromptedEncoder(encoder, encoder.config.vocab_size - 1, prompt)
        self.device = encoder.head.bias.device
        if prompt is not None:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)

    def step(self, rows, gold, labels):
        scores = labels.scores(self.model(pad([[SLOT] * P + row for row in rows], self.device)))
        loss = F.cross_entropy(scores, gold)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def score(self, rows, labels):
        if self.model.prompt is not None:
            rows = [[SLOT] * P + row for row in rows]
        return score(self.model, labels, Encoded(rows), rows)


class Encoded:
    """Stands where eval.score expects a Template: the rows are ids already."""

    def __init__(self, rows):
        self.rows = rows

    def encode(self, _):
        return self.rows


class Theirs:
    def __init__(self, model, config, prompt):
        self.device, self.soft = next(model.parameters()).device, prompt is not None
        self.mask = config.vocab_size - 1
        if self.soft:
            model = peft.get_peft_model(model, peft.PromptTuningConfig(task_type=peft.TaskType.FEATURE_EXTRACTION, num_virtual_tokens=P))
            weight = model.prompt_encoder.default.embedding.weight
            weight.data.copy_(prompt)
            self.optimizer = torch.optim.AdamW([weight], lr=1e-2)
        self.model = model.eval()  # train() would turn the frozen encoder's dropout on

    def at_mask(self, rows):
        ids = pad(rows, self.device)
        logits = self.model(input_ids=ids, attention_mask=(ids != PAD).long()).logits        # (B, P + T, V)
        at = (ids == self.mask).int().argmax(1) + P * self.soft
        return logits[torch.arange(len(ids), device=self.device), at]

    def step(self, rows, gold, labels):
        loss = F.cross_entropy(labels.of_logits(self.at_mask(rows)), gold)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.inference_mode()
    def score(self, rows, labels):
        return torch.cat([labels.of_logits(self.at_mask(rows[i:i + 32])).cpu() for i in range(0, len(rows), 32)])


def build(args, which=("ours", "peft", "transformers")):
    """-> encoder and {name: Ours or Theirs}, all with the same weights."""
    config = CONFIGS[args.encoder]
    device, dtype = pick_device(args.device, args.dtype)
    torch.manual_seed(0)
    encoder = XLMR(config)
    for key, weight in encoder.state_dict().items():
        weight.normal_(0, 0.02 if weight.ndim > 1 else 0.1).add_("norm.weight" in key)
    folder = Path(args.work) / f"{args.encoder}-weights"
    if not (folder / "model.safetensors").exists():
        save_encoder(folder, encoder, torch.float32)
    encoder = encoder.to(device=device, dtype=dtype).requires_grad_(False).eval()
    prompt = encoder.word.weight[100:100 + P].detach().float().clone()
    made = {}
    for one in which:
        if one == "ours":
            made[one] = Ours(encoder, prompt)
        else:
            theirs = transformers.XLMRobertaForMaskedLM.from_pretrained(folder, dtype=dtype).to(device).requires_grad_(False)
            made[one] = Theirs(theirs, config, prompt if one == "peft" else None)
    return encoder, made


def build_shapes(c):
    """The four products of one layer: (name, rows of the weight, columns)."""
    return [("qkv", 3 * c.width, c.width), ("out", c.width, c.width), ("up", c.ffn, c.width), ("down", c.width, c.ffn)]


def flops(c, lengths, C, train):
    """Floating-point operations that the mathematics needs for ours: multiply and add are two.

    Every layer but the last: 2 D (4 D + 2 F) a token and 4 T D for attention; in the last, keys and values everywhere, the rest at
    the mask; then the head's D x D and C x D. The gradient to the prompt needs each product once more: weights have none.
    """
    D, total = c.width, 0
    for T in (n + P for n in lengths):
        layer = 2 * T * D * (4 * D + 2 * c.ffn) + 4 * T * T * D
        last = 2 * T * 2 * D * D + 2 * D * (2 * D + 2 * c.ffn) + 4 * T * D
        total += (c.layers - 1) * layer + last + 2 * D * D + 2 * C * D
    return total * (2 if train else 1)


def seconds(work, device):
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def side_by_side(works, repeats, device, title):
    """{name: function} -> {name: [seconds]}: one of each in turn, after a warm-up round that is not counted."""
    times = {name: [] for name in works}
    for repeat in tqdm(range(repeats + 1), desc=title, leave=False):
        for name, work in works.items():
            took = seconds(work, device)
            if repeat:
                times[name].append(took)
    return times


def line(case, times, more=""):
    """One row of the table, and the same for the JSON file. The ratio is to ours, repetition by repetition."""
    row = {"case": case}
    cells = []
    for name, t in times.items():
        low, mid, high = statistics.quantiles(t, n=4) if len(t) > 1 else t * 3
        row[name] = {"median": statistics.median(t), "q1": low, "q3": high, "all": t}
        cells.append(f"{name} {1000 * statistics.median(t):8.0f} ms [{1000 * low:.0f}, {1000 * high:.0f}]")
    for name in times:
        if name != "ours" and "ours" in times:
            row[name]["ratio"] = statistics.median(b / a for a, b in zip(times["ours"], times[name]))
            cells.append(f"{name} / ours {row[name]['ratio']:.2f}")
    print(f"{case:34}" + "   ".join(cells) + more, flush=True)
    return row


def matrix_rate(config, device, dtype, repeats):
    """-> FLOP/s of the encoder's own products (one layer's four, with 2,048 tokens): the machine's limit for this work."""
    x = {width: torch.randn(2048, width, device=device).to(dtype) for width in (config.width, config.ffn)}
    weights = [torch.randn(rows, columns, device=device).to(dtype) for _, rows, columns in build_shapes(config)]
    needed = sum(2 * 2048 * w.numel() for w in weights)

    def work():
        for w in weights:
            F.linear(x[w.shape[1]], w)
    work()
    return needed / statistics.median(seconds(work, device) for _ in range(4 * repeats))


def memory(args):
    """Peak memory of a process that takes two training steps with 32 texts, for each implementation in a process of its own."""
    found = {}
    for name in ("ours", "peft"):
        out = subprocess.run([sys.executable, __file__, "--memory-of", name, "--encoder", args.encoder, "--dtype", args.dtype,
                              "--device", args.device, "--work", args.work], capture_output=True, text=True)
        if out.returncode:
            sys.exit(out.stderr)
        found[name] = int(out.stdout.split()[-1])
    print(f"{'training step, 32 texts':34}" + "   ".join(f"{name} {n / 1e9:.2f} GB" for name, n in found.items())
          + f"   ours / peft {found['ours'] / found['peft']:.2f}")
    return [{"case": "peak memory of a training step, 32 texts", **found}]


def tokenising(args):
    """Ours beside transformers' tokenizer, from the same SentencePiece model, on MiniTopics' sentences."""
    texts = [e.text for split in ("train", "dev", "test") for e in load_split("minitopics", split)]
    ours, theirs = Tokenizer(POCKET / TOKENIZER_FILE), transformers.AutoTokenizer.from_pretrained(POCKET)
    assert [[BOS, *ids, EOS] for ids in ours.encode(texts)] == theirs(texts)["input_ids"]
    times = side_by_side({"ours": lambda: ours.encode(texts), "transformers": lambda: theirs(texts)}, args.repeats,
                         torch.device("cpu"), "tokenise")
    return [line(f"tokenise {len(texts)} sentences", times)]


def main():
    p = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--encoder", choices=list(CONFIGS), default="base", help="whose sizes (default: base)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="(default: float32)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: cuda where there is one)")
    p.add_argument("--only", nargs="+", choices=["train", "score", "memory", "tokenise", "scale"], help="(default: all)")
    p.add_argument("--repeats", type=positive, default=5, help="counted repetitions (default: 5)")
    p.add_argument("--texts", type=positive, default=32, help="texts scored in a repetition (default: 32)")
    p.add_argument("--out", type=Path, default=Path("runs/speed.json"), help="(default: %(default)s)")
    p.add_argument("--work", default="runs/speed", help="folder for the random weights (default: %(default)s)")
    p.add_argument("--memory-of", choices=["ours", "peft"], help=argparse.SUPPRESS)
    args = p.parse_args()
    config, generator = CONFIGS[args.encoder], torch.Generator().manual_seed(0)
    device, dtype = pick_device(args.device, args.dtype)
    if args.memory_of:
        encoder, made = build(args, (args.memory_of,))
        rows = rows_of(sib_lengths(32, config), config, generator)
        for _ in range(2):
            made[args.memory_of].step(rows, torch.arange(32, device=device) % 14, Labels(14, encoder, generator))
        return print(peak_memory(device))

    only = args.only or ["train", "score", "memory", "tokenise", "scale"]
    found, about = [], environment(device) | {"encoder": args.encoder, "dtype": args.dtype, "transformers": transformers.__version__,
                                              "peft": peft.__version__, "P": P, "repeats": args.repeats}
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    encoder, made = build(args)
    rate = matrix_rate(config, device, dtype, args.repeats)
    about["matrix rate"] = rate
    print(f"products of the encoder's shapes: {rate / 1e9:,.0f} GFLOP/s\n", flush=True)
    lengths = {"SIB-200 lengths": lambda n: sib_lengths(n, config)} | {
        f"{n} tokens": (lambda count, n=n: [n] * count) for n in (32, 128, 256) if n + P <= config.max_tokens}

    def share(case, times, needed):
        found.append(line(case, times, f"   {100 * needed / rate / statistics.median(times['ours']):.0f} % of the rate"))
        found[-1]["share of the matrix rate"] = needed / rate / statistics.median(times["ours"])

    for kind, of in lengths.items() if "train" in only else ():
        for B in (8, 32) if kind.startswith("SIB") else (8,):
            rows, gold, labels = rows_of(of(B), config, generator), torch.arange(B, device=device) % 14, Labels(14, encoder, generator)
            works = {name: (lambda one=one: one.step(rows, gold, labels)) for name, one in made.items() if name != "transformers"}
            times = side_by_side(works, args.repeats, device, "train")
            share(f"train, {B} texts, {kind}", times, flops(config, map(len, rows), 14, True))
    with torch.no_grad():  # after training the prompts may differ in the last digits: start again from the same
        for one in (made["ours"].model.prompt, made["peft"].model.prompt_encoder.default.embedding.weight):
            one.copy_(encoder.word.weight[100:100 + P])
    hard = Ours(encoder, None)
    for kind, of in lengths.items() if "score" in only else ():
        for C in (7, 14, 60) if kind.startswith("SIB") else (14,):
            rows, labels = rows_of(of(args.texts), config, generator), Labels(C, encoder, generator)
            words = [row[:1] + list(range(100, 100 + P)) + row[1:] for row in rows]  # for transformers alone: a hard prompt
            works = {"ours": lambda: made["ours"].score(rows, labels), "peft": lambda: made["peft"].score(rows, labels),
                     "transformers": lambda: made["transformers"].score(words, labels)}
            times = side_by_side(works, args.repeats, device, "score")
            share(f"score, {C} labels, {kind}", times, flops(config, map(len, rows), C, False))
            difference = {name: (a - b).abs().max().item() for name, a, b in (
                ("peft", made["ours"].score(rows, labels), made["peft"].score(rows, labels)),
                ("transformers", hard.score(words, labels), made["transformers"].score(words, labels)))}
            found[-1]["max abs difference"] = difference
            print(f"{'':34}largest difference of a score: " + ", ".join(f"{name} {d:.1e}" for name, d in difference.items()))
    if "memory" in only:
        found += memory(args)
    if "tokenise" in only:
        found += tokenising(args)
    if "scale" in only:
        found += scale(args, config, encoder, made["ours"], device, generator)
    write_json(args.out, {"about": about, "rows": found})
    print(f"\n{args.out}")


def scale(args, config, encoder, ours, device, generator):
    """What a text costs against the number of labels and its length, and what all of SIB-200 would cost."""
    found, n = [], 2 * args.texts

    def one(case, rows, C):
        labels = Labels(C, encoder, generator)
        times = side_by_side({"ours": lambda: ours.score(rows, labels)}, args.repeats, device, "scale")
        found.append(line(case, times, f"   {1000 * statistics.median(times['ours']) / len(rows):.2f} ms a text"))
        return statistics.median(times["ours"]) / len(rows)
    for C in (7, 70, 700):
        a_text = one(f"{n} texts, SIB-200 lengths, {C} labels", rows_of(sib_lengths(n, config), config, generator), C)
        if C == 7:
            forecast = a_text * 205 * 204
    for T in (16, 32, 64, 128, 256):
        if T + P <= config.max_tokens:
            one(f"{n} texts of {T} tokens, 7 labels", rows_of([T] * n, config, generator), 7)
    print(f"so SIB-200's test split, 205 languages of 204 texts: {forecast / 60:.0f} minutes a pass; linear in languages")
    return [*found, {"case": "forecast: SIB-200's test split", "seconds": forecast}]


if __name__ == "__main__":
    run_script(main)
