"""Ours beside what a user would take instead: time, memory, and that the same scores come out.

    pip install -r benchmarks/requirements.txt
    python benchmarks/speed.py                                  # XLM-R base's sizes, random weights
    python benchmarks/speed.py --encoder pocket
    python benchmarks/speed.py --dtype bfloat16 --only train score
    python benchmarks/speed.py --only sweep                     # how many tokens in one pass?

    ours            minirosprompt's PromptedEncoder and a C x D label matrix
    peft            transformers' XLMRobertaForMaskedLM with a PEFT prompt; the same labels on its
                    logits at the mask
    transformers    the same without PEFT, with words for a prompt: a hard prompt

One process, the same weights and the same ids. Every repetition runs each of them once, in turn,
and a matrix product of the encoder's own shapes, which is what the machine can do at best.
Medians, quartiles in brackets; ratios are medians over the repetitions too.

PEFT puts its vectors before <s>, so ours stand there as well. transformers pads 32 texts at a time
as they come, ours go by length. Speed depends on lengths and not on words, so texts are random
ids, as long as SIB-200's under XLM-R's tokenizer, or all alike.

Times are the clock's on a processor, CUDA events' on a GPU; nobody has run the latter yet.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import argparse
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from minirosprompt.classifier import score_sequences
from minirosprompt.data import load_split
from minirosprompt.io import cli
from minirosprompt.io.cli import Parser, positive
from minirosprompt.io.files import write_json
from minirosprompt.io.linear import linear
from minirosprompt.io.runtime import environment, peak_memory, pick_device
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE, save_encoder
from minirosprompt.prompt import TOKENS_AT_ONCE, PromptedEncoder, pad
from minirosprompt.tokenizer import BOS, EOS, PAD, Tokenizer
from minirosprompt.xlmr import XLMR, Config

try:
    import peft
    import transformers
except ImportError:
    peft = transformers = None

P = 8   # prompt vectors
K = 12  # neighbours of a label word
CONFIGS = {"base": Config(), "pocket": Config(8000, 128, 3, 4, 512, 130)}

# ---- texts ---------------------------------------------------------------------------------------

# Tokens of a text of SIB-200's test split, with <s>, mask and </s>, under XLM-R's tokenizer:
# {percentile over 205 languages: tokens}
LENGTHS = {0: 7, 5: 23, 10: 26, 20: 31, 30: 35, 40: 40, 50: 44, 60: 49, 70: 54, 80: 62, 90: 74,
           95: 87, 98: 105, 99: 122, 99.9: 195, 100: 428}
SIB_TEXTS = 205 * 204  # of the whole test split

# What `sweep` tries in one pass, and how many tokens the machine's rate is measured with: a GPU is
# not busy with as few as a processor.
SWEEP = {"cpu": (256, 512, 1024, 2048, 4096), "cuda": tuple(2 ** n for n in range(11, 18))}
TOKENS_OF_PRODUCTS = {"cpu": 2048, "cuda": 16384}


def sib_lengths(n, config):
    """n lengths, evenly spread over SIB-200's, in a shuffled order.

    They are cut to what the encoder has room for.
    """
    percentiles = (np.arange(n) + 0.5) * 100 / n
    lengths = np.interp(percentiles, list(LENGTHS), list(LENGTHS.values())).round().astype(int)
    lengths = np.minimum(lengths, config.max_tokens - P)
    return np.random.default_rng(0).permutation(lengths).tolist()


def random_rows(lengths, config):
    """Random texts, <s> ... <mask> </s>, of so many tokens each -> sequences, lists of ids."""
    generator = torch.Generator().manual_seed(0)
    mask = config.vocab_size - 1
    sequences = []
    for n in lengths:
        words = torch.randint(EOS + 2, mask, (n - 3,), generator=generator)
        sequences.append([BOS, *words.tolist(), mask, EOS])
    return sequences


def kinds_of_texts(config):
    """-> {what the texts of a case are like: their length, or None for lengths like SIB-200's}"""
    kinds = {"SIB-200 lengths": None}
    for T in (32, 128, 256):
        if T + P <= config.max_tokens:
            kinds[f"{T} tokens"] = T
    return kinds


def make_texts(n, length, config):
    """n texts of one kind -> sequences"""
    lengths = sib_lengths(n, config) if length is None else [length] * n
    return random_rows(lengths, config)


# ---- what is compared ----------------------------------------------------------------------------

class Labels:
    """C classes of one label word each: K token ids and weights, (C, K).

    This is all that NPPrompt's verbalizer is.
    """

    def __init__(self, C, encoder):
        generator = torch.Generator().manual_seed(0)
        V = encoder.config.vocab_size
        device = encoder.head.bias.device
        ids = torch.randint(EOS + 2, V - 1, (C, K), generator=generator)
        weight = torch.rand(C, K, generator=generator)
        self.classes = [str(c) for c in range(C)]
        self.ids = ids.to(device)                                                   # (C, K)
        self.weight = weight.to(device).softmax(1)                                  # (C, K)
        words = encoder.word(self.ids).float()                                      # (C, K, D)
        self.matrix = (self.weight[..., None] * words).sum(1)                       # (C, D)
        self.bias = (self.weight * encoder.head.bias[self.ids].float()).sum(1)      # (C,)

    def read(self):
        """Nothing to do, as in Verbalizer."""

    def scores(self, h):
        """Ours: h (B, D) -> (B, C)"""
        return h @ self.matrix.T + self.bias

    def of_logits(self, logits):
        """Theirs: logits at the mask (B, V) -> (B, C)"""
        return (logits.float()[:, self.ids] * self.weight).sum(-1)


class Ours:
    def __init__(self, encoder, prompt):
        """prompt: (P, D), or None for a hard prompt."""
        self.model = PromptedEncoder(encoder, encoder.config.vocab_size - 1, prompt)
        self.device = encoder.head.bias.device
        self.weight = self.model.prompt

    def with_prompt(self, sequences):
        """The prompt's virtual ids, those after <mask>, stand before <s>, as PEFT's vectors do."""
        if self.weight is None:
            return sequences
        first = self.model.mask_id + 1
        prompt = list(range(first, first + P))
        return [prompt + ids for ids in sequences]

    def train_scores(self, sequences, labels):
        h = self.model.read(self.with_prompt(sequences))                            # (B, D)
        return labels.scores(h)                                                     # (B, C)

    def score(self, sequences, labels):
        return score_sequences(self.model, labels, self.with_prompt(sequences))


class Theirs:
    def __init__(self, model, config, prompt):
        """model: transformers' XLMRobertaForMaskedLM; prompt: (P, D), or None for no PEFT."""
        self.device = next(model.parameters()).device
        self.mask = config.vocab_size - 1
        self.shift = 0  # how far PEFT's vectors move the mask
        if prompt is not None:
            # the only task type that takes a prompt and leaves the masked-LM head in peace
            tuning = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=P)
            model = peft.get_peft_model(model, tuning)
            self.weight = model.prompt_encoder.default.embedding.weight
            self.weight.data.copy_(prompt)
            self.shift = P
        self.model = model.eval()  # train() would turn the frozen encoder's dropout on

    def train_scores(self, sequences, labels):
        ids = pad(sequences, self.device)                                           # (B, T)
        attention_mask = (ids != PAD).long()                                        # (B, T)
        logits = self.model(input_ids=ids, attention_mask=attention_mask).logits    # (B, P + T, V)
        mask_position = (ids == self.mask).int().argmax(1) + self.shift             # (B,)
        texts = torch.arange(len(ids), device=self.device)
        return labels.of_logits(logits[texts, mask_position])                       # (B, C)

    @torch.inference_mode()
    def score(self, sequences, labels):
        scores = []
        for i in range(0, len(sequences), 32):
            scores.append(self.train_scores(sequences[i:i + 32], labels).cpu())
        return torch.cat(scores)                                                    # (N, C)


def train_step(one, sequences, right, labels, optimizer):
    """The same for both: forward, backward, update. -> the gradient (P, D)

    right: (B,) numbers of the right classes.
    """
    loss = F.cross_entropy(one.train_scores(sequences, labels), right)
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
            weight.normal_(0, 0.02 if weight.ndim > 1 else 0.1)
            if "norm.weight" in key:
                weight.add_(1)
        save_encoder(folder, encoder, torch.float32)
    encoder = XLMR.from_pretrained(folder, device, dtype)
    prompt = encoder.word.weight[100:100 + P].detach().float().clone()              # (P, D)
    made = {}
    for name in which:
        if name == "ours":
            made[name] = Ours(encoder, prompt)
        else:
            theirs = transformers.XLMRobertaForMaskedLM.from_pretrained(folder, dtype=dtype)
            theirs = theirs.to(device).requires_grad_(False)
            made[name] = Theirs(theirs, config, prompt if name == "peft" else None)
    return encoder, made


# ---- measuring -----------------------------------------------------------------------------------

def ms(seconds):
    """As a text: whole milliseconds, or three digits where there are fewer than ten."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.3g}"


def flops(c, lengths, C, train=False):
    """Floating-point operations that the mathematics needs; multiply and add are two.

    Every layer but the last: 2 D (4 D + 2 F) a token and 4 T^2 D for attention. In the last, keys
    and values everywhere, the rest at the mask; then the head's D x D and C x D.

    Training goes back through each product once (the weights, frozen, have no gradient), through
    attention's two products twice (both factors have one), and in the first layer to the P prompt
    positions alone.
    """
    D = c.width
    total = 0
    for n in lengths:
        T = n + P
        products = (c.layers - 1) * 2 * T * D * (4 * D + 2 * c.ffn)
        products += 2 * T * 2 * D * D                   # the last layer's keys and values
        products += 2 * D * (2 * D + 2 * c.ffn)         # its query, output projection and FFN
        products += 2 * D * D + 2 * C * D               # the head
        attention = (c.layers - 1) * 4 * T * T * D + 4 * T * D
        total += products + attention
        if train:
            total += products - 2 * (T - P) * 3 * D * D + 2 * attention
    return total


class MatrixProducts:
    """The products of one layer's attention and FFN for many tokens, and nothing else.

    That is the machine's rate for these shapes, in this dtype.
    """

    def __init__(self, c, device, dtype):
        tokens = TOKENS_OF_PRODUCTS[device.type]
        self.x = {}  # {number of columns: an input that has so many}
        for width in (c.width, c.ffn):
            self.x[width] = torch.randn(tokens, width, device=device).to(dtype)
        shapes = [(c.width, c.width)] * 4 + [(c.ffn, c.width), (c.width, c.ffn)]
        self.weights = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
        self.flops = sum(2 * tokens * w.numel() for w in self.weights)

    def __call__(self):
        with torch.inference_mode():
            for w in self.weights:
                linear(self.x[w.shape[1]], w, None)


class Bench:
    """Runs works side by side, prints a line for each case, and keeps what it found: the rows.

    They are in the file `out` as soon as they are known: whoever is cut off leaves what there was.
    """

    def __init__(self, repeats, device, products, out, about):
        self.repeats = repeats
        self.device = device
        self.products = products
        self.out = out
        self.about = about
        self.rows = []

    def add(self, row):
        self.rows.append(row)
        write_json(self.out, {"about": self.about, "rows": self.rows})

    def seconds(self, work):
        if self.device.type == "cuda":
            start, end = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / 1000
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    def measure(self, case, works):
        """{name: function} -> {name: (repeats,) seconds}. Every round runs each once, in turn."""
        times = {name: [] for name in works}
        for repeat in tqdm(range(self.repeats + 1), desc=case, leave=False):
            for name, work in works.items():
                tries = 4 if name == "products" else 1  # the limit is what it does at best
                took = min(self.seconds(work) for _ in range(tries))
                if repeat > 0:  # the first round warms up
                    times[name].append(took)
        return {name: np.array(of) for name, of in times.items()}

    def __call__(self, case, works, needed=None, differences=None):
        """-> the row: of every work its seconds, their median and quartiles.

        works: {name: function}, "ours" among them; needed: FLOPs of ours; differences: {name: max
        abs difference from ours}.
        """
        times = self.measure(case, works | {"products": self.products} if needed else works)
        ours = times["ours"]
        row = {"case": case}
        texts = []
        for name, t in times.items():
            median, q1, q3 = np.median(t), np.quantile(t, 0.25), np.quantile(t, 0.75)
            row[name] = {"seconds": t.tolist(), "median": median, "q1": q1, "q3": q3}
            if name == "products":
                continue
            text = f"{name} {ms(median)} [{ms(q1)}, {ms(q3)}] ms"
            if name != "ours":
                row[name]["ratio"] = np.median(t / ours)
                text += f" = {row[name]['ratio']:.2f} x"
            texts.append(text)
        if needed:
            rate = self.products.flops / times["products"]
            row["GFLOP/s"] = np.median(rate) / 1e9
            row["share"] = np.median(needed / ours / rate)
            texts.append(f"{row['share']:.0%} of {row['GFLOP/s']:,.0f} GFLOP/s")
        if differences:
            row["max abs difference"] = differences
            texts.append("differ by " + ", ".join(f"{d:.0e}" for d in differences.values()))
        print(f"{case:34}" + "   ".join(texts), flush=True)
        self.add(row)
        return row


# ---- the rows ------------------------------------------------------------------------------------

def train_rows(bench, config, encoder, made):
    labels = Labels(14, encoder)
    made = made.copy()
    made.pop("transformers", None)  # a hard prompt has nothing to train
    optimizers = {}
    for name, one in made.items():
        optimizers[name] = torch.optim.AdamW([one.weight], lr=0.0)  # so every step is the same
    for kind, length in kinds_of_texts(config).items():
        for B in (8, 32) if length is None else (8,):
            sequences = make_texts(B, length, config)
            right = torch.arange(B, device=bench.device) % 14                       # (B,)
            works = {}
            for name, one in made.items():
                works[name] = partial(train_step, one, sequences, right, labels, optimizers[name])
            gradient = {name: work() for name, work in works.items()}               # (P, D) each
            differences = {}
            if "peft" in made:
                difference = (gradient["ours"] - gradient["peft"]).abs().max()
                differences["gradient, relative"] = \
                    (difference / gradient["peft"].abs().max()).item()
            needed = flops(config, map(len, sequences), 14, train=True)
            bench(f"train, {B} texts, {kind}", works, needed, differences)


def score_rows(bench, config, encoder, made, texts):
    """texts: how many of them are as long as SIB-200's; of one length there are eight."""
    hard = Ours(encoder, None)
    hard_prompt = list(range(100, 100 + P))
    for kind, length in kinds_of_texts(config).items():
        sequences = make_texts(texts if length is None else 8, length, config)
        with_words = [ids[:1] + hard_prompt + ids[1:] for ids in sequences]  # after <s>
        for C in (7, 14, 60) if length is None else (14,):
            labels = Labels(C, encoder)
            works = {}
            differences = {}
            for name, one in made.items():
                rows = with_words if name == "transformers" else sequences
                works[name] = partial(one.score, rows, labels)
                if name != "ours":
                    same = hard if name == "transformers" else made["ours"]
                    difference = works[name]() - same.score(rows, labels)           # (N, C)
                    differences[name] = difference.abs().max().item()
            needed = flops(config, map(len, sequences), C)
            bench(f"score, {C} labels, {kind}", works, needed, differences)


def memory_rows(bench, args, names):
    """Peak memory of two training steps, or of scoring, 32 texts, weights included.

    Each is measured in a process of its own.
    """
    for work in ("train", "score"):
        row = {"case": f"peak memory, {work}, 32 texts"}
        texts = []
        for name in names:
            command = [sys.executable, __file__, "--memory-of", name, work,
                       "--encoder", args.encoder, "--dtype", args.dtype,
                       "--device", args.device, "--work", args.work]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(done.stderr)
            row[name] = int(done.stdout.split()[-1])
            texts.append(f"{name} {row[name] / 1e9:.2f} GB")
            if name != "ours":
                texts[-1] += f" = {row[name] / row['ours']:.2f} x"
        print(f"{row['case']:34}" + "   ".join(texts), flush=True)
        bench.add(row)


def memory_of(args, name, work):
    """What a process of memory_rows does, and all it does."""
    encoder, made = build(args, (name,))
    one = made[name]
    sequences = make_texts(32, None, encoder.config)
    labels = Labels(14, encoder)
    right = torch.arange(32, device=one.device) % 14                                # (B,)
    optimizer = torch.optim.AdamW([one.weight])
    del encoder  # or theirs would be charged with our copy of the weights as well
    if one.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # what loading took does not count
    for _ in range(2):
        if work == "score":
            one.score(sequences, labels)
        else:
            train_step(one, sequences, right, labels, optimizer)
    print(peak_memory(one.device))


def tokenise_rows(bench, ours, folder):
    """Ours beside transformers' tokenizer, from the same SentencePiece model, on MiniTopics.

    Two of its sentences are as long as a text of SIB-200.
    """
    sentences = []
    for split in ("train", "dev", "test"):
        sentences += [e.text for e in load_split("minitopics", split)]
    texts = [f"{one} {two}" for one, two in zip(sentences[::2], sentences[1::2])]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert [[BOS, *ids, EOS] for ids in ours.encode(texts)] == theirs(texts)["input_ids"]

    def one_by_one(encode):
        return [encode(text) for text in texts]

    works = {"ours": partial(ours.encode, texts), "transformers": partial(theirs, texts)}
    bench(f"tokenise {len(texts)} texts, in one call", works)
    works = {"ours": partial(one_by_one, ours.encode), "transformers": partial(one_by_one, theirs)}
    bench("tokenise them one by one", works)


def scale_rows(bench, config, encoder, ours, texts):
    """What a text costs against the number of labels, of languages and of tokens.

    And what all of SIB-200 would cost.
    """
    def measure(case, sequences, C):
        """-> seconds a text"""
        work = partial(ours.score, sequences, Labels(C, encoder))
        row = bench(case, {"ours": work}, flops(config, map(len, sequences), C))
        took = row["ours"]["median"] / len(sequences)
        print(f"{'':34}{1000 * took:.2f} ms a text")
        return took

    sib = make_texts(2 * texts, None, config)
    a_text = measure(f"{len(sib)} texts, 7 labels", sib, 7)
    for C in (70, 700):
        measure(f"{len(sib)} texts, {C} labels", sib, C)
    for languages in (2, 4):
        measure(f"{languages} languages of {len(sib)} texts, 7 labels", sib * languages, 7)
    for T in (16, 32, 64, 128, 256, 504):
        if T + P <= config.max_tokens:
            measure(f"8 texts of {T} tokens, 7 labels", make_texts(8, T, config), 7)
    forecast = a_text * SIB_TEXTS
    print(f"so SIB-200's test split, {SIB_TEXTS:,} texts in 205 languages: "
          f"{forecast / 60:.1f} minutes a pass")
    bench.add({"case": "forecast: SIB-200's test split", "seconds": forecast})


def sweep_rows(bench, config, encoder, ours, texts):
    """How many tokens in one pass are the fastest: what TOKENS_AT_ONCE (prompt.py) ought to say.

    "ours" is what it says now. texts: how many are scored, and those of the larger training step.
    """
    kind = bench.device.type
    usual = TOKENS_AT_ONCE[kind]
    labels = Labels(14, encoder)
    optimizer = torch.optim.AdamW([ours.weight], lr=0.0)

    def at_once(tokens, work):
        TOKENS_AT_ONCE[kind] = tokens
        try:
            work()
        finally:
            TOKENS_AT_ONCE[kind] = usual

    works = {f"score {8 * texts} texts": partial(ours.score, make_texts(8 * texts, None, config),
                                                 labels)}
    for B in sorted({32, texts}):
        right = torch.arange(B, device=bench.device) % 14                           # (B,)
        works[f"train, {B} texts"] = partial(train_step, ours, make_texts(B, None, config), right,
                                             labels, optimizer)
    for case, work in works.items():
        of_tokens = {"ours": partial(at_once, usual, work)}
        memory = {}
        for tokens in sorted({usual, *SWEEP[kind]}):
            if kind == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                at_once(tokens, work)
            except torch.OutOfMemoryError:
                print(f"{case}: {tokens:,} tokens do not fit into the memory", flush=True)
                break
            if kind == "cuda":
                memory[f"{tokens:,}"] = peak_memory(bench.device)
            of_tokens[f"{tokens:,}"] = partial(at_once, tokens, work)
        row = bench(f"sweep, {case}", of_tokens)
        row["peak memory"] = memory
        seconds = {name: row[name]["median"] for name in of_tokens if name != "ours"}
        fastest = min(seconds, key=seconds.get)
        near = next(name for name in seconds if seconds[name] <= 1.03 * seconds[fastest])
        row["fastest"] = fastest
        print(f"{'':34}fastest: {fastest} tokens in one pass; the fewest within 3 % of it: {near} "
              f"(now {usual:,})", flush=True)


class Graph:
    """A function's kernels recorded once, then started all at once: no Python in between."""

    def __init__(self, function, *inputs):
        """inputs: the tensors that every replay reads, wherever they then stand."""
        self.graph = torch.cuda.CUDAGraph()
        # The first calls, which also choose kernels and reserve memory, must not be recorded.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                function(*inputs)
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(self.graph):
            self.output = function(*inputs)

    def __call__(self):
        self.graph.replay()
        return self.output


def compile_rows(bench, config, encoder):
    """The encoder as it is, as a CUDA graph, and by torch.compile. A report: nothing is kept.

    What a GPU waits for with few tokens is Python, which starts its kernels one by one. On a
    processor the compiler is only rehearsed (aot_eager compiles nothing).
    """
    cuda = bench.device.type == "cuda"
    ways = {"graph": None} if cuda else {}
    ways["compiled"] = {} if cuda else {"backend": "aot_eager"}
    if cuda:
        ways["compiled, graphs"] = {"mode": "reduce-overhead"}
    for name, options in ways.items():
        for B, T in ((32, 64), (256, 64)) if cuda else ((4, 16),):
            x = torch.randn(B, T, config.width, device=bench.device)                # (B, T, D)
            x = x.to(encoder.word.weight.dtype)
            mask = torch.ones(B, T, dtype=torch.bool, device=bench.device)          # (B, T)
            at = torch.zeros(B, dtype=torch.long, device=bench.device)              # (B,)
            case = f"{name}, {B} texts of {T} tokens"
            start = time.perf_counter()
            try:
                with torch.no_grad():
                    if options is None:
                        other = Graph(encoder, x, mask, at)
                    else:
                        torch.compiler.reset()
                        compiled = torch.compile(encoder, dynamic=False, **options)
                        other = partial(compiled, x, mask, at)
                    found = other()                                                 # (B, D)
                    took = time.perf_counter() - start
                    for _ in range(2):  # the second or third one records the graphs
                        found = other()
                    difference = (found - encoder(x, mask, at)).abs().max().item()
                    row = bench(case, {"ours": partial(encoder, x, mask, at), name: other})
            except Exception as error:  # a compiler may raise anything; that is a result, too
                row = {"case": case, "failed": f"{type(error).__name__}: {error}"}
                print(f"{case:34}failed: {row['failed']:.200}", flush=True)
                bench.add(row)
                continue
            row["seconds until it runs"] = took
            row["difference"] = difference
            print(f"{'':34}after {took:.1f} s; differs by {difference:.0e}", flush=True)


def processor():
    """What Linux calls it."""
    try:
        for line in open("/proc/cpuinfo"):
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    except OSError:
        pass
    return "unknown"


def main():
    p = Parser(description=__doc__)
    p.add_argument("--encoder", choices=list(CONFIGS), default="base",
                   help="whose sizes (default: base)")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32",
                   help="(default: float32)")
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                   help="(default: cuda where there is one)")
    parts = ["train", "score", "memory", "tokenise", "scale"]
    p.add_argument("--only", nargs="+", choices=[*parts, "sweep", "compile"], default=parts,
                   help="(default: all but sweep and compile)")
    p.add_argument("--alone", action="store_true", help="ours alone, without the other libraries")
    p.add_argument("--repeats", type=positive, default=5,
                   help="counted repetitions (default: 5)")
    p.add_argument("--texts", type=positive, default=32,
                   help="texts scored in a repetition (default: 32)")
    p.add_argument("--tokenizer", type=Path, default=POCKET,
                   help=f"folder with a {TOKENIZER_FILE} (default: pocket's)")
    p.add_argument("--out", type=Path, default=Path("runs/speed.json"),
                   help="(default: %(default)s)")
    p.add_argument("--work", default="runs/speed",
                   help="folder for the random weights (default: %(default)s)")
    p.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.memory_of:
        return memory_of(args, *args.memory_of)

    config = CONFIGS[args.encoder]
    device, dtype = pick_device(args.device, args.dtype)
    names = ["ours"]
    if not args.alone and {"train", "score", "memory", "tokenise"} & set(args.only):
        if peft is None:
            cli.end(2, "speed.py: transformers or peft is missing: pip install -r "
                       "benchmarks/requirements.txt, or --alone")
        names += ["peft", "transformers"]
    # Now, so that a wrong folder is not found out after minutes.
    tokenizer = Tokenizer(args.tokenizer / TOKENIZER_FILE)
    about = environment(device) | {
        "processor": processor(), "encoder": args.encoder, "dtype": args.dtype, "P": P,
        "repeats": args.repeats,
    }
    if peft is not None:
        about |= {"transformers": transformers.__version__, "peft": peft.__version__}
    print(", ".join(f"{key} {value}" for key, value in about.items()), "\n", flush=True)
    bench = Bench(args.repeats, device, MatrixProducts(config, device, dtype), args.out, about)

    # Memory first: on Linux the peak of a process counts for those that it starts.
    if "memory" in args.only:
        memory_rows(bench, args, names[:2])
    if "tokenise" in args.only and not args.alone:
        tokenise_rows(bench, tokenizer, args.tokenizer)
    encoder, made = build(args, names)
    if "train" in args.only:
        train_rows(bench, config, encoder, made)
    if "score" in args.only:
        score_rows(bench, config, encoder, made, args.texts)
    if "scale" in args.only:
        scale_rows(bench, config, encoder, made["ours"], args.texts)
    if "sweep" in args.only:
        sweep_rows(bench, config, encoder, made["ours"], args.texts)
    if "compile" in args.only:
        compile_rows(bench, config, encoder)
    write_json(args.out, {"about": about, "rows": bench.rows})
    print(f"\n{args.out}")

    too_far = []
    for row in bench.rows:
        differences = row.get("max abs difference", {}).values()
        if max(differences, default=0) > 1e-4:
            too_far.append(row["case"])
    if args.dtype == "float32" and too_far:
        sys.exit(f"more than 1e-4 apart: {'; '.join(too_far)}")


if __name__ == "__main__":
    cli.run(main)
