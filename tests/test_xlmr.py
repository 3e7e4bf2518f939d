"""The encoder against transformers: live where it is installed.

And always against numbers that transformers gave once.
"""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_agree, random_encoder

from minirosprompt.io.weights import key_map, save_encoder, to_hugging_face
from minirosprompt.xlmr import XLMR, Config

GOLDEN = Path(__file__).parent / "golden.json"
SMALL = Config(vocab_size=50, width=16, layers=2, heads=4, ffn=24, positions=20)
IDS = torch.tensor([[0, 7, 49, 30, 11, 2], [0, 5, 49, 2, 1, 1]])


def written_out_weights(config):
    """Weights from a formula, so that golden numbers need no weight file.

    Entry i of tensor t is sin(i + 7 t) / 3, plus 1 in the layer norms.
    """
    encoder = XLMR(config)
    theirs = to_hugging_face(encoder.state_dict(), vars(config))
    for t, (name, weight) in enumerate(sorted(theirs.items())):
        norm = "LayerNorm.weight" in name or "layer_norm.weight" in name
        numbers = torch.arange(weight.numel(), dtype=torch.float64) + 7 * t
        weight.copy_((numbers.sin() / 3 + norm).view(weight.shape))
    return encoder.requires_grad_(False).eval()


def test_golden_activations():
    golden = json.loads(GOLDEN.read_text())
    encoder = written_out_weights(SMALL)
    real = IDS != 1
    x = encoder(encoder.word(IDS), real)
    torch.testing.assert_close(x[real], torch.tensor(golden["hidden"]), atol=1e-5, rtol=0)
    logits = encoder.logits(x)[real]
    torch.testing.assert_close(logits, torch.tensor(golden["logits"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "config, B, T",
    [
        (SMALL, 2, 6),
        (Config(300, 64, 3, 4, 128, 70), 5, 33),
        (Config(300, 64, 3, 4, 128, 70), 1, 68),
        (Config(1000, 48, 1, 2, 64, 40), 3, 1),
    ],
)
def test_parity_with_transformers(config, B, T, tmp_path):
    """Hidden states and logits, several shapes, with padding."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    their_config = transformers.XLMRobertaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.ffn,
        max_position_embeddings=config.positions,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    theirs = transformers.XLMRobertaForMaskedLM(their_config).eval()
    theirs.save_pretrained(tmp_path)
    ours = XLMR.from_pretrained(tmp_path)
    ids = torch.randint(4, config.vocab_size - 1, (B, T))
    for row in range(1, B):
        ids[row, max(1, T - 3 * row):] = 1
    assert_agree(ours, theirs, ids)


@pytest.mark.parametrize("bert", [True, False], ids=["BertModel", "XLMRobertaModel"])
@pytest.mark.parametrize("B, T", [(1, 1), (3, 20), (5, 64)])
@pytest.mark.parametrize("form", ["safetensors", "bin", "bin with a prefix"])
def test_parity_of_encoders_without_a_head(bert, B, T, form, tmp_path):
    """multilingual-e5's two layouts: hidden states, several shapes, with padding."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 250_037 if bert else 300, "hidden_size": 16, "num_hidden_layers": 3,
             "num_attention_heads": 4, "intermediate_size": 24, "pad_token_id": 0 if bert else 1}
    if bert:
        config = transformers.BertConfig(max_position_embeddings=64, **sizes)
        config.tokenizer_class = "XLMRobertaTokenizer"
        theirs = transformers.BertModel(config).eval()
    else:
        config = transformers.XLMRobertaConfig(max_position_embeddings=66, type_vocab_size=1,
                                               layer_norm_eps=1e-5, **sizes)
        theirs = transformers.XLMRobertaModel(config).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():  # none trivial, and large enough to tell
            weight.copy_(torch.randn(weight.shape) * 0.2 + ("LayerNorm.weight" in name))
    theirs.save_pretrained(tmp_path)
    if form != "safetensors":
        prefix = ("bert." if bert else "roberta.") if "prefix" in form else ""
        state = {prefix + name: weight for name, weight in theirs.state_dict().items()}
        torch.save(state, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    ours = XLMR.from_pretrained(tmp_path)
    assert ours.head is None
    assert ours.config.max_tokens == 64
    ids = torch.randint(4, 250, (B, T))
    for row in range(1, B):
        ids[row, max(1, T - 3 * row):] = 1
    real = ids != 1
    with torch.no_grad():
        want = theirs(input_ids=ids, attention_mask=real.long()).last_hidden_state
    got = ours(ours.word(ids), real)
    assert (got - want)[real].abs().max() <= 1e-5


def test_transformers_reads_what_we_write(tmp_path):
    transformers = pytest.importorskip("transformers")
    encoder = random_encoder(SMALL)
    save_encoder(tmp_path, encoder, torch.float32)
    theirs = transformers.XLMRobertaForMaskedLM.from_pretrained(tmp_path).eval()
    real = IDS != 1
    with torch.no_grad():
        want = theirs(input_ids=IDS, attention_mask=real.long()).logits
    assert (encoder.logits(encoder(encoder.word(IDS), real)) - want)[real].abs().max() <= 1e-5


def test_stopping_at_the_mask_is_exact():
    encoder = random_encoder(SMALL)
    real = IDS != 1
    at = torch.tensor([2, 2])
    everywhere = encoder(encoder.word(IDS), real)
    there = encoder(encoder.word(IDS), real, at)
    torch.testing.assert_close(there, everywhere[torch.arange(2), at], atol=1e-5, rtol=0)


def test_padding_changes_nothing():
    encoder = random_encoder(SMALL)
    alone = encoder(encoder.word(IDS[1:, :4]))
    padded = encoder(encoder.word(IDS), IDS != 1)
    torch.testing.assert_close(padded[1, :4], alone[0], atol=1e-5, rtol=0)


def test_base_has_the_published_number_of_parameters():
    """278,885,778 with the pooler, whose 768 x 768 + 768 we do not have."""
    with torch.device("meta"):
        base = XLMR(Config())
    assert sum(w.numel() for w in base.parameters()) == 278_885_778 - (768 * 768 + 768)
    assert Config().max_tokens == 512


def test_too_long():
    encoder = random_encoder(SMALL)
    encoder(torch.zeros(1, 18, 16))
    with pytest.raises(ValueError, match="19 tokens"):
        encoder(torch.zeros(1, 19, 16))


def test_key_map_is_a_bijection():
    """Names and shapes are those of the module."""
    config = Config(layers=3)
    table = key_map(vars(config))
    with torch.device("meta"):
        state = XLMR(config).state_dict()
    ours = dict(table.values())
    assert len(ours) == len(table)
    assert ours == {name: tuple(weight.shape) for name, weight in state.items()}
    theirs = to_hugging_face(state, vars(config))
    assert theirs.keys() == table.keys()
    key = theirs["roberta.encoder.layer.2.attention.self.key.weight"]
    assert key.shape == (768, 768)


def test_loading_imports_no_compiler():
    """Random numbers on the "meta" device would: 800 modules, a second, for nothing."""
    code = "import sys; from minirosprompt.xlmr import XLMR; XLMR.from_pretrained('pocket')"
    code += "; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
