"""Weights in Hugging Face's file layout: config.json, model.safetensors (or pytorch_model.bin), sentencepiece.bpe.model.

A safetensors file is 8 bytes of length n (little-endian), n bytes of JSON {name: {dtype, shape, data_offsets}}, and one
buffer. Reading it runs no code, unlike a pickle. https://github.com/huggingface/safetensors
"""
import json
import math
import os
import struct
from pathlib import Path

import torch

from . import UserError, hub
from .checkpoint import writing
from .xlmr import Config, XLMR

POCKET = Path(__file__).parent / "pocket"
TOKENIZER_FILE = hub.TOKENIZER
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}
OTHERS = {"xlm-roberta-xl": "its layer norms stand before each block (pre-LN), XLM-R's after", "bert": "another tokenizer",
          "modernbert": "rotary positions, pre-LN", "roberta": "another tokenizer", "deberta-v2": "relative positions",
          **dict.fromkeys(("gpt2", "xglm", "bloom", "llama", "gemma", "qwen2", "mistral"), "a decoder, which has no <mask>")}
MAX_HEADER = 100_000_000  # bytes; the limit of the reference implementation


# ---- safetensors --------------------------------------------------------------------------------------------------

def read_safetensors(path):
    """-> ({name: tensor}, {metadata}). Raises UserError, naming file and fault, for anything but a whole, sound file.

    Nothing is allocated before every bound is checked, so no file can ask for more memory than its own size.
    """
    def check(sound, fault):
        if not sound:
            raise UserError(f"{path}: damaged safetensors file: {fault}")

    def no_duplicates(pairs):
        check(len({k for k, _ in pairs}) == len(pairs), "a name occurs twice in the header")
        return dict(pairs)

    def whole(n):
        return type(n) is int and 0 <= n < 2**63  # bool is an int in Python, and JSON's integers have no end

    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        check(size >= 8, f"{size} bytes, shorter than its own length field")
        (n,) = struct.unpack("<Q", file.read(8))
        check(n <= min(size - 8, MAX_HEADER), f"the header should have {n} bytes, the file has {size}")
        try:
            header = json.loads(file.read(n).decode("utf-8"), object_pairs_hook=no_duplicates)
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            check(False, f"the header is not JSON ({type(error).__name__})")
        check(isinstance(header, dict), "the header is not a JSON object")
        metadata = header.pop("__metadata__", {})
        check(isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()),
              "its metadata are not texts")
        for name, entry in header.items():
            check(isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"},
                  f"{name!r} needs dtype, shape and data_offsets")
            dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
            check(isinstance(dtype, str) and dtype in DTYPES, f"{name!r} has the unknown dtype {dtype!r}")
            check(isinstance(shape, list) and all(map(whole, shape)) and math.prod(max(1, n) for n in shape) < 2**63,
                  f"{name!r} has a bad shape")
            check(isinstance(offsets, list) and len(offsets) == 2 and all(map(whole, offsets)),
                  f"{name!r} has bad offsets")
            check(offsets[1] - offsets[0] == math.prod(shape) * DTYPES[dtype].itemsize,
                  f"{name!r}: shape and offsets disagree")
        end, tensors = 0, {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            check(entry["data_offsets"][0] == end, f"gap or overlap before {name!r}")
            end = entry["data_offsets"][1]
        check(end == size - 8 - n, f"{size - 8 - n} bytes of data, the header describes {end}: cut short?")
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = entry["data_offsets"]
            dtype, buffer = DTYPES[entry["dtype"]], bytearray(end - start)
            check(file.readinto(buffer) == end - start, "the file shrank while it was read")
            check(dtype is not torch.bool or not buffer.strip(b"\0\1"), f"{name!r} has a truth value beyond 0 and 1")
            tensor = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
            tensors[name] = tensor.reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    """{name: tensor} -> one file, written aside and then renamed, so that a crash never leaves half a file."""
    names, header, offset = {dtype: name for name, dtype in DTYPES.items()}, {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.itemsize
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data start at a multiple of 8
    with writing(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


# ---- names: a bijection between Hugging Face's keys and ours ----------------------------------------------------------

def key_map(layers):
    """{Hugging Face key: our key}, for every tensor of an XLM-R."""
    names = {"roberta.embeddings.word_embeddings.weight": "word.weight",
             "roberta.embeddings.position_embeddings.weight": "position.weight",
             "roberta.embeddings.token_type_embeddings.weight": "token_type.weight",
             "lm_head.bias": "head.bias"}
    pairs = {"roberta.embeddings.LayerNorm": "embed_norm", "lm_head.dense": "head.dense", "lm_head.layer_norm": "head.norm"}
    for n in range(layers):
        pairs |= {f"roberta.encoder.layer.{n}.{theirs}": f"layers.{n}.{ours}" for theirs, ours in (
            ("attention.self.query", "query"), ("attention.self.key", "key"), ("attention.self.value", "value"),
            ("attention.output.dense", "out"), ("attention.output.LayerNorm", "attn_norm"),
            ("intermediate.dense", "up"), ("output.dense", "down"), ("output.LayerNorm", "ffn_norm"))}
    return names | {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in pairs.items() for kind in ("weight", "bias")}


def from_hugging_face(tensors, config, path):
    """Their state dict -> ours. Raises UserError that lists every missing, unexpected or misshapen key."""
    tensors = {k: v for k, v in tensors.items()
               if not k.startswith("roberta.pooler.") and k != "roberta.embeddings.position_ids"}
    for duplicate, original in (("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
                                ("lm_head.decoder.bias", "lm_head.bias")):
        if duplicate in tensors and original in tensors:
            if not torch.equal(tensors.pop(duplicate), tensors[original]):
                raise UserError(f"{path}: {duplicate} differs from {original}, but XLM-R ties the two")
    names = key_map(config.layers)
    missing, unexpected = sorted(names.keys() - tensors.keys()), sorted(tensors.keys() - names.keys())
    if missing or unexpected:
        if any(k.startswith("lm_head.") for k in missing):
            raise UserError(f"{path}: no masked-LM head, so nothing can be read off the mask; missing: {missing}")
        raise UserError(f"{path}: not an XLM-R of {config.layers} layers; missing: {missing}; unexpected: {unexpected}")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in XLMR(config).state_dict().items()}
    for theirs, name in names.items():
        if tensors[theirs].shape != shapes[name] or not tensors[theirs].is_floating_point():
            raise UserError(f"{path}: {theirs} is {tensors[theirs].dtype} {tuple(tensors[theirs].shape)}, "
                            f"config.json asks for floats {tuple(shapes[name])}")
    return {name: tensors[theirs].float() for theirs, name in names.items()}


def to_hugging_face(state):
    """Our state dict -> theirs; the inverse of from_hugging_face."""
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    return {theirs: state[ours] for theirs, ours in key_map(layers).items()}


# ---- whole encoders ---------------------------------------------------------------------------------------------------

def encoder_folder(name_or_path):
    """"pocket", a folder, or a name on the hub (downloaded if need be) -> its Path. Raises UserError if there is nothing."""
    folder = POCKET if str(name_or_path) == "pocket" else Path(name_or_path)
    if folder.is_dir():
        return folder
    if not hub.parse(str(name_or_path)):
        raise UserError(f'{name_or_path}: not "pocket", nor a folder that holds config.json, model.safetensors and '
                        f"{TOKENIZER_FILE}, nor a name such as xlm-roberta-base or org/name@revision")
    return hub.snapshot(str(name_or_path), read_config)


def read_config(path):
    """config.json -> Config. Raises UserError for anything that is not an XLM-R with a masked-LM head."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        kind = raw.get("model_type")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON object ({type(error).__name__})") from None
    if kind != "xlm-roberta":
        reason = OTHERS.get(str(kind), "another architecture")
        raise UserError(f"{path}: model_type is {kind!r} ({reason}); only 'xlm-roberta' can be read")
    heads = raw.get("architectures")
    if isinstance(heads, list) and heads and not any("MaskedLM" in str(head) for head in heads):
        raise UserError(f"{path}: {heads[0]} has no masked-LM head, so nothing can be read off the mask")
    if raw.get("hidden_act", "gelu") != "gelu" or raw.get("position_embedding_type", "absolute") != "absolute":
        raise UserError(f"{path}: only hidden_act 'gelu' and absolute positions are XLM-R's")
    try:
        c = Config(vocab_size=raw["vocab_size"], width=raw["hidden_size"], layers=raw["num_hidden_layers"],
                   heads=raw["num_attention_heads"], ffn=raw["intermediate_size"],
                   positions=raw["max_position_embeddings"], eps=raw.get("layer_norm_eps", 1e-5))
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from None
    sizes = (c.vocab_size, c.width, c.layers, c.heads, c.ffn, c.positions)
    if not all(type(n) is int and 0 < n < 10**7 for n in sizes) or c.width % c.heads or c.positions < 4 \
            or type(c.eps) is not float or not 0 < c.eps < 1:
        raise UserError(f"{path}: impossible sizes: {c}")
    return c


def load_encoder(name_or_path):
    """-> XLMR in float32 on the CPU. Raises UserError for whatever is missing, damaged or another architecture."""
    folder = encoder_folder(name_or_path)
    config = read_config(folder / "config.json")
    path = folder / "model.safetensors"
    if path.exists():
        tensors, _ = read_safetensors(path)
    else:
        path = folder / "pytorch_model.bin"
        if not path.exists():
            raise UserError(f"{folder}: neither model.safetensors nor pytorch_model.bin")
        try:  # weights_only: a pickle that holds more than tensors is refused, not run
            tensors = torch.load(path, map_location="cpu", weights_only=True)
            tensors = {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise UserError(f"{path}: not a file of plain weights ({type(error).__name__})") from None
    with torch.device("meta"):
        encoder = XLMR(config)
    encoder.load_state_dict(from_hugging_face(tensors, config, path), assign=True)
    return encoder


def save_encoder(folder, encoder, dtype=torch.float16):
    """Writes config.json and model.safetensors in Hugging Face's layout (transformers loads them too)."""
    c = encoder.config
    raw = {"architectures": ["XLMRobertaForMaskedLM"], "model_type": "xlm-roberta", "vocab_size": c.vocab_size,
           "hidden_size": c.width, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
           "intermediate_size": c.ffn, "max_position_embeddings": c.positions, "type_vocab_size": 1,
           "hidden_act": "gelu", "layer_norm_eps": c.eps, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    with writing(Path(folder) / "config.json") as file:
        file.write(json.dumps(raw, indent=2) + "\n")
    state = {name: tensor.to(dtype) for name, tensor in to_hugging_face(encoder.state_dict()).items()}
    write_safetensors(Path(folder) / "model.safetensors", state, {"format": "pt"})
