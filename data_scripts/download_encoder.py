"""Download an encoder, or find it in a Hugging Face cache that is already there, and look whether it can be read.

    python data_scripts/download_encoder.py xlm-roberta-base          # 1.1 GB
    python data_scripts/download_encoder.py cis-lmu/glot500-base      # any XLM-R with its masked-LM head: org/name[@revision]

train.py --encoder NAME does the same on its own. HF_HOME or HF_HUB_CACHE say where the cache is, HF_ENDPOINT names a mirror,
HF_HUB_OFFLINE=1 forbids the network.
"""
import argparse
import sys
from pathlib import Path

from minirosprompt.io.cli import Parser, run as run_script
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.classifier import load_encoder
from minirosprompt.io.weights import TOKENIZER_FILE, encoder_folder


def main():
    p = Parser(description=__doc__)
    p.add_argument("name", help="xlm-roberta-base, xlm-roberta-large, org/name[@revision], or a folder")
    args = p.parse_args()
    folder = encoder_folder(args.name)
    encoder, tokenizer = load_encoder(folder), Tokenizer(folder / TOKENIZER_FILE)
    n, c = sum(weight.numel() for weight in encoder.parameters()), encoder.config
    print(f"{folder}\n{n:,} parameters: {c.layers} layers, {c.width} wide, {c.vocab_size:,} word embeddings for "
          f"{tokenizer.vocab_size:,} ids, texts of at most {c.max_tokens} tokens")


if __name__ == "__main__":
    run_script(main)
