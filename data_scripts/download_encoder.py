"""Download an encoder, or find it in a Hugging Face cache, and see whether it can be read.

    python data_scripts/download_encoder.py xlm-roberta-base        # 1.1 GB
    python data_scripts/download_encoder.py cis-lmu/glot500-base    # org/name, or org/name@revision

Any XLM-R with its masked-LM head will do. train.py --encoder NAME does the same on its own.
HF_HOME or HF_HUB_CACHE say where the cache is, HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 forbids
the network.
"""
from minirosprompt.classifier import load_encoder
from minirosprompt.io.cli import Parser
from minirosprompt.io.cli import run as run_script
from minirosprompt.io.weights import encoder_folder


def main():
    p = Parser(description=__doc__)
    p.add_argument("name", help="xlm-roberta-base, xlm-roberta-large, org/name[@revision], "
                   "or a folder")
    args = p.parse_args()
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
