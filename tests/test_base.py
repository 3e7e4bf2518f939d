"""XLM-R base in its true size, config and keys: everything but what it has learnt.

Its weights are random.
"""
import json
import re
import shutil

import pytest
import torch
from conftest import assert_agree

from minirosprompt.io import hub
from minirosprompt.io.safetensors import read_safetensors, write_safetensors
from minirosprompt.io.weights import POCKET, encoder_folder, save_encoder
from minirosprompt.xlmr import XLMR, Config

CONFIG = {
    "architectures": ["XLMRobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "xlm-roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "transformers_version": "4.17.0.dev0",
    "type_vocab_size": 1,
    "use_cache": True,
    "vocab_size": 250002,
}


def test_the_hubs_keys_and_config_agree_with_transformers(tmp_path, monkeypatch):
    """By its name, from a cache, with the pooler and the keys of old versions in the file.

    Hidden states and logits agree to 1e-5.
    """
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    commit, _ = hub.PINNED["FacebookAI/xlm-roberta-base"]
    folder = tmp_path / "models--FacebookAI--xlm-roberta-base" / "snapshots" / commit
    torch.manual_seed(0)
    theirs = transformers.XLMRobertaForMaskedLM(transformers.XLMRobertaConfig(**CONFIG)).eval()
    theirs.save_pretrained(folder)
    tensors = read_safetensors(folder / "model.safetensors")[0]
    tensors |= {
        "roberta.pooler.dense.weight": torch.randn(768, 768),
        "roberta.pooler.dense.bias": torch.randn(768),
        "roberta.embeddings.position_ids": torch.arange(514)[None],
        "lm_head.decoder.bias": tensors["lm_head.bias"].clone(),
        "lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"],
    }
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    shutil.copy(POCKET / hub.TOKENIZER, folder)
    assert encoder_folder("xlm-roberta-base") == folder

    ours = XLMR.from_pretrained("xlm-roberta-base")
    ids = torch.randint(4, 250001, (3, 40))
    ids[1, 30:] = 1  # padding
    ids[2, 5:] = 1
    assert_agree(ours, theirs, ids)


@pytest.mark.slow
def test_trains_ten_steps_and_evaluates(run_script, tmp_path):
    encoder = XLMR(Config()).requires_grad_(False)
    for name, weight in encoder.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=0.02)
    save_encoder(tmp_path / "base", encoder, torch.float32)
    shutil.copy(POCKET / hub.TOKENIZER, tmp_path / "base")
    del encoder
    flags = ["--encoder", "base", "--steps", 10, "--seeds", 0, "--objective", "group-dro"]
    flags += ["--languages", "eng_Latn,swh_Latn", "--name", "base", "--batch-size", 16]
    done = run_script("train.py", *flags)
    assert done.returncode == 0, done.stderr
    assert float(re.search(r"peak memory (\d+\.\d) GB", done.stdout).group(1)) > 1
    done = run_script("eval.py", "--split", "dev", "--languages", "yor_Latn")
    assert done.returncode == 0, done.stderr
    assert "peak memory" in done.stdout, done.stderr
    assert "yor_Latn" in (tmp_path / "runs/base/eval-dev/results.csv").read_text(), done.stderr
