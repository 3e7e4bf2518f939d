"""Prompts as files: kilobytes, the only thing that is ever learnt."""
import hashlib
import json

import torch

from .. import UserError
from .safetensors import read_safetensors, write_safetensors


def fingerprint(encoder):
    """A short name for an encoder, from all its norms and biases.

    It is the same for any --dtype, and for the two copies of multilingual-e5-small, whose matrices
    have 4 and 32 bits: a prompt trained with one serves the other. Training moves every norm and
    bias, so encoders that differ in them are told apart; those that differ in a matrix alone, say
    by an added token, are not, and need not be.
    """
    digest = hashlib.sha256(f"{encoder.config.heads} heads".encode())
    for name, weight in encoder.state_dict().items():
        if weight.ndim == 1 and name != "head.bias":  # as long as the vocabulary
            digest.update(name.encode())
            digest.update(weight.bfloat16().cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def save_prompt(path, prompt, encoder, method, seed, settings):
    """prompt: (..., D); settings: {flag: value}, what classifier.py needs to use it."""
    metadata = {
        "fingerprint": fingerprint(encoder),
        "method": method,
        "seed": str(seed),
        "settings": json.dumps(settings),
    }
    write_safetensors(path, {"prompt": prompt.detach().float().cpu()}, metadata)


def load_prompt(path, encoder=None):
    """-> (prompt (..., D), {"method", "seed", "settings"}).

    The settings are as they stand in the file; read_settings (settings.py) checks them.
    Raises UserError if the file is damaged, or the prompt was trained for another encoder.
    """
    tensors, metadata = read_safetensors(path)
    try:
        prompt = tensors["prompt"]
        of_encoder = metadata["fingerprint"]
        about = {
            "method": metadata["method"],
            "seed": int(metadata["seed"]),
            "settings": json.loads(metadata["settings"]),
        }
    except (KeyError, ValueError, RecursionError):
        raise UserError(f"{path}: not a prompt that train.py saved; train it anew") from None
    if prompt.dtype != torch.float32 or prompt.ndim < 2 or not isinstance(about["settings"], dict):
        raise UserError(f"{path}: not a prompt that train.py saved; train it anew")
    if encoder is not None:
        fits = prompt.shape[-1] == encoder.config.width
        if not fits or of_encoder != fingerprint(encoder):
            name = about["settings"].get("encoder", "unknown")
            raise UserError(f"{path}: trained for another encoder ({name}); "
                            "pass that one with --encoder, or train a prompt for this one")
    return prompt, about
