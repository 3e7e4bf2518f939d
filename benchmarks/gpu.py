"""All that only a GPU can show, in one command of eight minutes at most: tests, speed, training.

    python benchmarks/gpu.py                                  # on a machine with a CUDA GPU
    python benchmarks/gpu.py --only tests speed-bfloat16      # some steps
    python benchmarks/gpu.py --corpus data/corpus             # and pretraining in what is left
    python benchmarks/gpu.py --device cpu --quick             # the rehearsal: two minutes, no GPU

    tests             those marked `cuda` (tests/test_cuda.py)
    speed-bfloat16    speed.py, XLM-R base's sizes: time, share of the matrix rate, peak memory
    sweep             how many tokens in one pass are the fastest (TOKENS_AT_ONCE in prompt.py)
    train             train.py as it comes: multilingual-e5-small on MiniTopics
    train-sib200      the same on SIB-200, tested in all of its 205 languages
    speed-float32     as above
    compile           the encoder as a CUDA graph and by torch.compile: to be measured, not kept
    pretraining       add_head.py on --corpus, for what is left of the time

The order is that of what one would miss most. Each step is a process under its own limit of time;
one that fails or is cut off is noted, and the next one begins. OUT/gpu.md and OUT/gpu.json are
written anew after every step, OUT/STEP.txt holds what a step prints, as it prints it. A step whose
packages, encoder or data are not here is skipped and says so. Status 1 if one failed or was cut.

Nothing is fetched: benchmarks/README.md says what a machine without a network needs. Linux only.
Nobody has run this on a GPU yet.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from suites import SEEN, SOURCE

from minirosprompt import UserError
from minirosprompt.io.cli import Parser, above_zero, end
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.files import read_json, write_json, writing
from minirosprompt.io.runtime import environment, pick_device
from minirosprompt.io.weights import encoder_folder

ROOT = Path(__file__).resolve().parent.parent
LINES = 40  # of what a step printed, in the report

# {step: seconds that it may take}, of eight minutes; of another --total-minutes in proportion.
# The last one takes what is left.
LIMITS = {"tests": 90, "speed-bfloat16": 100, "sweep": 45, "train": 35, "train-sib200": 60,
          "speed-float32": 70, "compile": 60, "pretraining": 20}


# ---- the steps: each a command, or why there is none ---------------------------------------------

class Skip(Exception):
    """Why a step cannot be done here."""


def need(*packages):
    """Raises Skip for packages that are not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Skip(f"{', '.join(missing)} not installed")


def need_encoder(args):
    """Raises Skip if the encoder is not on this machine: nothing is fetched."""
    try:
        encoder_folder(args.encoder)
    except UserError as lack:
        raise Skip(str(lack)) from None


def tests(args, seconds):
    need("pytest")
    return ["-m", "pytest", "-m", "cuda", "-q", "-rs", "-p", "no:cacheprovider",
            ROOT / "tests/test_cuda.py"]


def speed(args, name, dtype, *parts):
    flags = [ROOT / "benchmarks/speed.py", "--device", args.device, "--dtype", dtype]
    flags += ["--work", args.work, "--out", args.out / f"{name}.json", "--only", *parts]
    if args.quick:
        return [*flags, "--encoder", "pocket", "--texts", "4", "--repeats", "1"]
    # Theirs, with logits at every position, would not end in time on 512 in float32.
    return [*flags, "--encoder", "base", "--texts", "512" if dtype == "bfloat16" else "256"]


def beside_others(args, name, dtype):
    """speed.py with transformers and PEFT; without them ours alone, and its rows show it."""
    flags = speed(args, name, dtype, "train", "score", "memory")
    if args.quick and dtype == "float32":
        flags.remove("memory")  # four processes: once is enough for a rehearsal
    try:
        need("transformers", "peft")
    except Skip:
        flags.append("--alone")
    return flags


def speed_bfloat16(args, seconds):
    return beside_others(args, "speed-bfloat16", "bfloat16")


def speed_float32(args, seconds):
    return beside_others(args, "speed-float32", "float32")


def sweep(args, seconds):
    return speed(args, "sweep", "bfloat16", "sweep")


def compiled(args, seconds):
    return speed(args, "compile", "bfloat16", "compile")


def train(args, seconds):
    flags = [ROOT / "train.py", "--device", args.device, "--name", "train"]
    if args.quick:
        return [*flags, "--encoder", "pocket", "--steps", "2", "--seeds", "0"]
    need_encoder(args)
    return [*flags, "--encoder", args.encoder]


def train_sib200(args, seconds):
    """As in RESULTS.md, with one seed."""
    flags = [ROOT / "train.py", "--device", args.device, "--name", "train-sib200"]
    flags += ["--dtype", "bfloat16"]
    if args.quick:  # SIB-200 is not everywhere: MiniTopics plays it
        return [*flags, "--encoder", "pocket", "--steps", "2", "--seeds", "0"]
    need_encoder(args)
    if not (args.data / "test.tsv").exists():
        raise Skip(f"{args.data}: no SIB-200 there (python data_scripts/sib200.py)")
    return [*flags, "--encoder", args.encoder, "--data", args.data, "--shots", "16",
            "--seen", ",".join(SEEN), "--source", ",".join(SOURCE)]


def pretraining(args, seconds):
    """It stops by itself after two thirds of its time, to validate and to save."""
    flags = ["--device", args.device, "--dtype", "bfloat16", "--out", args.out / "pretrained",
             "--minutes", f"{seconds / 90:.2f}"]
    if args.quick:  # the same loop, on documents that the script writes itself
        script = ROOT / "data_scripts/pretraining/pretrain.py"
        return [script, *flags, "--vocab-size", "2000", "--tokens", "4000"]
    if args.corpus is None:
        raise Skip("no --corpus")
    need_encoder(args)
    script = ROOT / "data_scripts/pretraining/add_head.py"
    return [script, *flags, "--encoder", args.encoder, "--corpus", args.corpus,
            "--batch-tokens", "32768", "--tokens", "1000000000"]


STEPS = {"tests": tests, "speed-bfloat16": speed_bfloat16, "sweep": sweep, "train": train,
         "train-sib200": train_sib200, "speed-float32": speed_float32, "compile": compiled,
         "pretraining": pretraining}


# ---- one step ------------------------------------------------------------------------------------

def run(command, limit, log, folder, environ):
    """Runs Python with these arguments, all that it prints into `log`. -> how it ended

    After `limit` seconds it is killed, with all the processes that it has started.
    """
    with open(log, "w") as file:
        process = subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, env=environ,
                                   stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                   start_new_session=True)
        try:
            status = process.wait(limit)
            return "done" if status == 0 else f"failed, status {status}"
        except subprocess.TimeoutExpired:
            return f"cut off after {limit:.0f} s"
        finally:  # on Ctrl-C, too; and what it has left behind
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def last_lines(log):
    """What stands at the end, as on a terminal: of a progress bar its last state."""
    lines = []
    # Not read_text, to which a carriage return is the end of a line.
    for line in log.read_bytes().decode("utf-8", "replace").split("\n"):
        shown = [state for state in line.split("\r") if state.strip()]
        lines += shown[-1:]
    return lines[-LINES:]


def found_by(name, out, seconds):
    """What speed.py or train.py has left in a file -> {name: value}"""
    found = {}
    rows = out / f"{name}.json"
    if rows.exists():
        found["rows"] = read_json(rows)["rows"]
    results = out / "runs" / name / "results.json"
    if results.exists():  # by the hard prompt, and by the soft ones of all seeds
        texts = sum(row["n"] for row in read_json(results)["rows"])
        found["texts scored"] = texts
        found["texts a second, start and training included"] = round(texts / seconds, 1)
    return found


# ---- the report ----------------------------------------------------------------------------------

def about(device):
    """What the numbers belong to."""
    found = environment(device) | {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    found["commit"] = found["commit"] or "unknown: no git here"
    for package in ("transformers", "peft"):
        if importlib.util.find_spec(package) is None:
            found[package] = "not installed: ours stands alone"
    if device.type == "cuda":
        found["GPUs"] = torch.cuda.device_count()
        found["GPU memory, GB"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1)
        found["CUDA"] = torch.version.cuda
        smi = shutil.which("nvidia-smi")
        if smi:
            command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
            done = subprocess.run(command, capture_output=True, text=True)
            found["driver"] = done.stdout.split("\n")[0]
    return found


def write_report(out, head, steps):
    """OUT/gpu.json has everything, OUT/gpu.md what one reads."""
    write_json(out / "gpu.json", {"about": head, "steps": steps})
    with writing(out / "gpu.md") as file:
        print("# What was measured\n", file=file)
        for name, value in head.items():
            print(f"- {name}: {value}", file=file)
        print("\n| step | outcome | seconds | limit |\n|---|---|---|---|", file=file)
        for name, step in steps.items():
            print(f"| {name} | {step['outcome']} | {step.get('seconds', '–')} | "
                  f"{step.get('limit', '–')} |", file=file)
        for name, step in steps.items():
            if "lines" in step:
                print(f"\n## {name}\n\n`{step['command']}`\n\n```", file=file)
                print(*step["lines"], "```", sep="\n", file=file)
            for key, value in step.items():
                if key.startswith("texts"):
                    print(f"\n{key}: {value:,}", file=file)


def arguments():
    p = Parser(description=__doc__)
    p.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS),
                   help="steps (default: all)")
    p.add_argument("--total-minutes", type=above_zero,
                   help="(default: 8; of a rehearsal, on a machine that may be busy, 20)")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="(default: cuda)")
    p.add_argument("--quick", action="store_true",
                   help="pocket and hardly any work: does every step run at all?")
    p.add_argument("--encoder", default="multilingual-e5-small",
                   help="name or folder, for train and train-sib200 (default: %(default)s)")
    p.add_argument("--data", type=Path, default=Path("data/sib200"),
                   help="SIB-200's folder (default: %(default)s)")
    p.add_argument("--corpus", type=Path,
                   help="folder that corpus.py --tokenizer ENCODER wrote, for pretraining")
    p.add_argument("--out", type=Path, help="folder for the report (default: runs/gpu-TIME)")
    args = p.parse_args()
    args.total_minutes = args.total_minutes or (20.0 if args.quick else 8.0)
    args.out = (args.out or Path(time.strftime("runs/gpu-%Y%m%d-%H%M%S"))).resolve()
    args.data = args.data.resolve()
    args.corpus = args.corpus and args.corpus.resolve()
    if Path(args.encoder).is_dir():
        args.encoder = str(Path(args.encoder).resolve())
    if args.out.is_dir() and any(args.out.iterdir()):
        p.error(f"--out {args.out}: it is not empty, and what lies there would be taken for new")
    if args.corpus and not (args.corpus / "corpus.json").exists():
        p.error(f"--corpus {args.corpus}: no corpus.json there")
    args.only = list(dict.fromkeys(args.only))
    return args


def terminated(signum, frame):
    """So that `timeout`, too, ends the step that runs, and removes what is temporary."""
    raise KeyboardInterrupt


def main():
    args = arguments()
    began = time.monotonic()
    device, _ = pick_device(args.device, "float32")
    os.environ["HF_HUB_OFFLINE"] = "1"  # of us and of every step
    signal.signal(signal.SIGTERM, terminated)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    environ.pop("MINIROSPROMPT_CUDA_REHEARSAL", None)
    if args.device == "cpu":
        environ["MINIROSPROMPT_CUDA_REHEARSAL"] = "1"
    head = about(device)
    print(json.dumps(head, indent=1), flush=True)
    steps = {}
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as args.work:  # random weights of a gigabyte
        for name in args.only:  # known at once, while there is time to bring what is missing
            try:
                STEPS[name](args, 60)
            except Skip as why:
                print(f"{name} will be skipped: {why}", flush=True)
        for name in args.only:
            steps[name] = step = {}
            left = 60 * args.total_minutes - (time.monotonic() - began)
            limit = left
            if name != "pretraining":
                limit = min(left, LIMITS[name] / sum(LIMITS.values()) * 60 * args.total_minutes)
            start = time.monotonic()
            try:
                if limit < 1:
                    raise Skip("no time is left")
                command = STEPS[name](args, limit)
                log = args.out / f"{name}.txt"
                step["outcome"] = run(command, limit, log, args.out, environ)
                step["seconds"] = round(time.monotonic() - start, 1)
                step["limit"] = round(limit, 1)
                step["command"] = " ".join(["python", *map(str, command)])
                step["lines"] = last_lines(log)
                step |= found_by(name, args.out, step["seconds"])
            except Skip as why:
                step["outcome"] = f"skipped: {why}"
            print(f"{name:16}{step['outcome']}, {step.get('seconds', 0)} s", flush=True)
            write_report(args.out, head, steps)
    print(args.out / "gpu.md")
    bad = [name for name, step in steps.items()
           if not step["outcome"].startswith(("done", "skipped"))]
    if bad:
        end(1, f"gpu.py: not done: {', '.join(bad)}; see {args.out}")


if __name__ == "__main__":
    run_script(main)
