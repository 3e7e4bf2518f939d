"""On a GPU everything comes out as on the processor: states, gradients, training, --resume.

    python -m pytest -m cuda                                 # where there is a GPU; else skipped
    MINIROSPROMPT_CUDA_REHEARSAL=1 python -m pytest -m cuda  # the processor plays the GPU

The rehearsal finds slips in the tests, and nothing about GPUs: nobody has run these on one yet.
Tolerances are for float32 without TF32: two devices add the same numbers in another order.
"""
import csv
import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, load_script
from test_shard import port
from torch.utils._python_dispatch import TorchDispatchMode

from data_scripts.pretraining import add_head
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import load_label_words, load_split
from minirosprompt.io import runtime
from minirosprompt.io.files import load_state
from minirosprompt.io.prompts import load_prompt
from minirosprompt.io.settings import default_settings
from minirosprompt.io.weights import read_encoder
from minirosprompt.prompt import init_prompt, pad
from minirosprompt.tokenizer import PAD

REHEARSAL = os.environ.get("MINIROSPROMPT_CUDA_REHEARSAL") == "1"
HERE = REHEARSAL or torch.cuda.is_available()
VERBALIZERS = [("words", "max"), ("words", "mean"), ("states", "max"), ("states", "mean")]
LAST = "soft-group-dro-0/last.pt"


def on_gpu(test):
    return pytest.mark.cuda(pytest.mark.skipif(not HERE, reason="no CUDA GPU")(test))


@pytest.fixture()
def device():
    """The GPU, without TF32; in a rehearsal the processor."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield torch.device("cpu" if REHEARSAL else "cuda")
    torch.set_float32_matmul_precision(before)


def assert_near(ours, theirs, tolerance):
    """tolerance: of the largest entry of theirs"""
    ours = ours.detach().float().cpu()
    theirs = theirs.detach().float().cpu()
    assert torch.isfinite(ours).all()
    assert ours.abs().max() > 0
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def examples(n=48):
    """Texts of all MiniTopics' languages and classes, of many lengths."""
    of_test = load_split("minitopics", "test")
    return of_test[::len(of_test) // n][:n]


def classifier_on(device, verbalizer="words", combine="max", dtype=torch.float32):
    """pocket behind a soft prompt, MiniTopics' classes"""
    encoder, tokenizer = load_encoder("pocket", device, dtype)
    settings = default_settings(verbalizer=verbalizer, combine=combine)
    languages = ["all"] if verbalizer == "words" else ["eng_Latn"]
    label_words = load_label_words("minitopics", None, languages, None)
    prompt = init_prompt("words", 8, encoder, tokenizer, "Topic:", 0)
    return Classifier(encoder, tokenizer, label_words, settings, prompt)


# ---- one pass ------------------------------------------------------------------------------------

@on_gpu
def test_the_encoder_has_the_same_states(device):
    """All of them, with padding and without; and those that are computed at one position only."""
    ours, tokenizer = load_encoder("pocket", device)
    theirs, _ = load_encoder("pocket")
    sequences = [[0, *tokenizer.encode(e.text), 2] for e in examples()]
    for rows in (sequences, [ids[:8] for ids in sequences if len(ids) >= 8]):
        found = []
        for encoder, where in ((ours, device), (theirs, "cpu")):
            ids = pad(rows, where)                                                  # (B, T)
            assert ids.device.type == torch.device(where).type
            real = ids != PAD                                                       # (B, T)
            with torch.no_grad():
                x = encoder(encoder.word(ids), real)                                # (B, T, D)
                last = encoder(encoder.word(ids), real, at=real.sum(1) - 1)         # (B, D)
                found.append((x[real], last, encoder.logits(last)))
        for one, other in zip(*found):
            assert_near(one, other, 1e-4)


@on_gpu
@pytest.mark.parametrize("verbalizer, combine", VERBALIZERS)
def test_scores_and_the_gradient_of_the_prompt(device, verbalizer, combine):
    texts = examples()
    found = []
    for where in (device, torch.device("cpu")):
        classifier = classifier_on(where, verbalizer, combine)
        assert {x.device.type for x in classifier.state_dict().values()} == {where.type}
        labels = torch.tensor([classifier.classes.index(e.label) for e in texts], device=where)
        scores = classifier(classifier.encode(texts))                               # (B, C)
        F.cross_entropy(scores, labels).backward()
        kept = classifier.score(texts)
        assert kept.device.type == "cpu"
        assert_near(kept, scores, 1e-4)
        found.append((scores, classifier.prompt.grad, kept))
    for one, other in zip(*found):
        assert_near(one, other, 1e-3)


@on_gpu
@pytest.mark.parametrize("verbalizer, combine", VERBALIZERS)
def test_bfloat16_is_near_float32_and_scores_are_float32(device, verbalizer, combine):
    """Eight bits carry two to three digits: the same class for nine texts of ten."""
    texts = examples()
    exact = classifier_on(torch.device("cpu"), verbalizer, combine).score(texts)    # (N, C)
    half = classifier_on(device, verbalizer, combine, torch.bfloat16)
    assert half.model.encoder.word.weight.dtype == torch.bfloat16
    assert half.prompt.dtype == torch.float32
    scores = half(half.encode(texts))                                               # (N, C)
    assert scores.dtype == torch.float32
    assert_near(scores, exact, 0.1)
    assert (scores.argmax(1).cpu() == exact.argmax(1)).float().mean() >= 0.9


# ---- training ------------------------------------------------------------------------------------

FLAGS = ["--encoder", "pocket", "--seeds", "0", "--objective", "group-dro", "--select-every", "1"]
FLAGS += ["--steps", "4", "--source", "eng_Latn,zho_Hans", "--languages", "eng_Latn,swh_Latn"]


def log_of(run):
    with open(run / "soft-group-dro-0/log.csv") as file:
        return torch.tensor([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])


def assert_same_run(run, other):
    """Losses and q of every step, and what came of it.

    Adam divides a gradient by its size, so an entry near 0 may go either way: the vectors are less
    alike than the losses.
    """
    ours, theirs = log_of(run), log_of(other)                                       # (steps, …)
    assert ours.shape == theirs.shape
    assert ours[:, 0].tolist() == theirs[:, 0].tolist()
    assert (ours[:, 1] - theirs[:, 1]).abs().max() <= 0.002
    assert (ours[:, 4:] - theirs[:, 4:]).abs().max() <= 0.005
    for path in (run / "hard.pt", run / "soft-group-dro-0/scores.pt"):
        assert_near(load_state(path), load_state(other / path.relative_to(run)), 0.005)
    name = "soft-group-dro-0/prompt.safetensors"
    difference = load_prompt(run / name)[0] - load_prompt(other / name)[0]          # (P, D)
    assert difference.abs().mean() <= 0.001


@pytest.fixture()
def train_on(run_script, monkeypatch):
    """train_on(device, flags ...): with --device auto, which finds what is said to be there."""
    def run(where, *args):
        with monkeypatch.context() as patch:
            if where.type == "cpu":
                patch.setattr(torch.cuda, "is_available", lambda: False)
            return run_script("train.py", *args)

    return run


@on_gpu
@pytest.mark.parametrize("verbalizer", ["words", "states"])
def test_a_whole_run_of_train_py(device, train_on, tmp_path, verbalizer):
    flags = [*FLAGS, "--verbalizer", verbalizer]
    for name, where in (("here", device), ("there", torch.device("cpu"))):
        done = train_on(where, *flags, "--name", name)
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "runs/here", tmp_path / "runs/there")


class Stop:
    """What interrupts() yields: true at the end of so many steps, as if somebody pressed Ctrl-C."""

    def __init__(self, steps):
        self.left = steps

    def __bool__(self):
        self.left -= 1
        return self.left <= 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@on_gpu
@pytest.mark.parametrize("gpu_first", [True, False])
def test_resume_on_the_other_device(device, train_on, tmp_path, monkeypatch, gpu_first):
    """Begun on one, gone on with on the other: as on the processor alone."""
    first, second = device, torch.device("cpu")
    if not gpu_first:
        first, second = second, first
    assert train_on(torch.device("cpu"), *FLAGS, "--name", "whole").returncode == 0
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "interrupts", lambda: Stop(2))
        assert train_on(first, *FLAGS, "--name", "cut").returncode == 130
    state = load_state(tmp_path / "runs/cut" / LAST)
    assert state["step"] == 2
    done = train_on(second, "--resume", "runs/cut")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "runs/cut", tmp_path / "runs/whole")


@on_gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_a_head_that_is_added(headless, device, dtype, tolerance):
    """The loss over all pieces as on the processor; the sampled one near it, with gradients."""
    V = read_encoder(headless)[0]["vocab_size"]
    ids = torch.randint(4, V - 1, (4, 32), generator=torch.Generator().manual_seed(0))
    chosen = torch.rand(4, 32, generator=torch.Generator().manual_seed(1)) < 0.3
    frequencies = torch.full((V,), 1 / V)
    losses = []
    for where, of_dtype in ((device, dtype), (torch.device("cpu"), torch.float32)):
        torch.manual_seed(0)
        model = add_head.with_head(*read_encoder(headless), frequencies, layers=1).to(where)

        def masking(ids, seed, where=where):
            return torch.where(chosen, V - 1, ids.cpu()).to(where), chosen.to(where)

        exact = add_head.loss_of(ids.to(where), 0, model, masking, of_dtype)
        softmax = add_head.SampledSoftmax(frequencies, 20_000, where)
        sampled = add_head.loss_of(ids.to(where), 0, model, masking, of_dtype, softmax)
        sampled.backward()
        assert sampled.item() == pytest.approx(exact.item(), abs=0.05)
        assert model.head.dense.weight.grad.device.type == where.type
        assert torch.isfinite(model.layers[1].up.weight.grad).all()
        losses.append(exact.item())
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)


# ---- nobody waits --------------------------------------------------------------------------------

class Waits(TorchDispatchMode):
    """Counts what would make Python wait for a GPU, where there is none: calls for a number.

    Not AdamW's own, which has its number of steps on the processor.
    """

    OPERATIONS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "equal")
    METHODS = ("cpu", "tolist", "numpy")

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        self.off = False
        for name in self.METHODS:
            self.watch(monkeypatch, name, getattr(torch.Tensor, name))
        adamw = torch.optim.AdamW.step

        def step(*args, **options):
            self.off = True
            adamw(*args, **options)
            self.off = False

        monkeypatch.setattr(torch.optim.AdamW, "step", step)

    def watch(self, monkeypatch, name, method):
        def counted(*args, **options):
            self.count += 1
            return method(*args, **options)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        mask = False  # is an index a mask? Then somebody has to count what is true in it
        if name in ("index", "index_put_", "_index_put_impl_"):
            mask = any(index is not None and index.dtype == torch.bool for index in args[1])
        if (name in self.OPERATIONS or mask) and not self.off:
            self.count += 1
        return function(*args, **kwargs or {})


def waits_of_cpu(run):
    with pytest.MonkeyPatch.context() as patch, Waits(patch) as waits:
        run()
    return waits.count


def waits_of_gpu(run):
    """PyTorch warns of each, if it is told to."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in found)


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")])])
@pytest.mark.parametrize("flags", [
    ["--objective", "group-dro"],
    ["--objective", "erm", "--verbalizer", "states", "--combine", "mean"],
    ["--objective", "group-dro", "--verbalizer", "states", "--batch-size", "1"],  # absent groups
])
def test_a_step_waits_for_nothing(tiny, colours, tmp_path, monkeypatch, where, flags):
    """Six steps with one selection wait as often as two steps with one selection."""
    monkeypatch.chdir(tmp_path)
    train = load_script("train.py")
    flags = ["--encoder", str(tiny), "--data", str(colours), "--source", "aa,bb", *flags]
    flags += ["--label-languages", "aa,bb", "--label-words", "1"]
    flags += ["--seen", "red,blue,green", "--shots", "4", "--seeds", "0", "--device", where]
    waits = waits_of_cpu if where == "cpu" else waits_of_gpu
    train.main([*flags, "--steps", "1", "--name", "first"])  # what is done once only
    found = []
    for steps in ("2", "6"):
        run = [*flags, "--steps", steps, "--select-every", steps, "--name", f"x{steps}"]
        found.append(waits(lambda: train.main(run)))
    assert found[0] == found[1] > 0


# ---- several GPUs --------------------------------------------------------------------------------

@on_gpu
@pytest.mark.skipif(not REHEARSAL and torch.cuda.device_count() < 2, reason="one GPU")
def test_two_gpus_find_what_one_finds(device, run_script, tiny, colours, tmp_path):
    flags = ["--encoder", tiny, "--data", colours, "--source", "aa,bb", "--seen", "red,blue,green"]
    flags += ["--steps", 2, "--seeds", 0, "--objective", "erm", "--name", "x"]
    assert run_script("train.py", *flags, "--device", device.type).returncode == 0
    evaluate = ["eval.py", "--run", "runs/x", "--device", device.type]
    assert run_script(*evaluate, "--out", "one").returncode == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", port(), "--", str(ROOT / evaluate[0]), *evaluate[1:]]
    done = subprocess.run([*command, "--out", "two"], cwd=tmp_path, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "results.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
