"""The classifier: its parts put together by hand, calibration, stacking, settings."""
import shutil

import pytest
import torch

from minirosprompt import UserError
from minirosprompt.classifier import Classifier, load_encoder
from minirosprompt.data import Example
from minirosprompt.io.settings import default_settings
from minirosprompt.io.weights import SPARE_ROWS, TOKENIZER_FILE, save_encoder
from minirosprompt.prompt import PromptedEncoder, Template, pad
from minirosprompt.tokenizer import Tokenizer
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.xlmr import XLMR, Config

LABELS = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf"]}
EXAMPLES = [Example("apple rose"), Example("sky sea whale"), Example("moss")]


@pytest.mark.parametrize("vectors", [0, 3])
def test_it_is_template_encoder_and_verbalizer(encoder, tokenizer, vectors):
    """With a hard prompt (no vectors) and a soft one."""
    prompt = torch.randn(vectors, 32) if vectors else None
    settings = default_settings(hard_prompt="sky", k=3, combine="mean")
    classifier = Classifier(encoder, tokenizer, LABELS, settings, prompt)
    template = Template("{prompt} {mask} {text}", tokenizer, vectors or "sky", 64)
    sequences = template.encode(e.text for e in EXAMPLES)
    assert classifier.encode(EXAMPLES) == sequences
    h = PromptedEncoder(encoder, tokenizer.mask, prompt)(pad(sequences))            # (3, 32)
    want = Verbalizer(encoder, tokenizer, LABELS, 3, "mean").scores(h)              # (3, 3)
    torch.testing.assert_close(classifier(sequences), want)
    torch.testing.assert_close(classifier.score(EXAMPLES), want.detach())
    assert classifier.classes == ["red", "blue", "green"]


def test_only_the_prompt_has_a_gradient(encoder, tokenizer):
    classifier = Classifier(encoder, tokenizer, LABELS, prompt=torch.randn(2, 32))
    classifier(classifier.encode(EXAMPLES)).square().sum().backward()
    assert classifier.prompt.grad.abs().sum() > 0
    trained = [name for name, weight in classifier.named_parameters() if weight.requires_grad]
    assert trained == ["model.prompt"]
    assert Classifier(encoder, tokenizer, LABELS).prompt is None


def test_contextual_calibration(encoder, tokenizer):
    """What a text without content gets is subtracted: it favours nothing."""
    empty = Example("")
    plain = Classifier(encoder, tokenizer, LABELS).score([*EXAMPLES, empty])
    settings = default_settings(calibration="contextual")
    calibrated = Classifier(encoder, tokenizer, LABELS, settings).calibrate()
    scores = calibrated.score([*EXAMPLES, empty])
    torch.testing.assert_close(scores, plain - plain[-1], atol=1e-5, rtol=0)
    assert scores[-1].abs().max() < 1e-5
    again = calibrated.calibrate().score([*EXAMPLES, empty])  # twice is once
    torch.testing.assert_close(again, scores)


def test_calibrated_stacking(encoder, tokenizer):
    """A constant is subtracted from the seen classes' scores, and from no others."""
    plain = Classifier(encoder, tokenizer, LABELS).score(EXAMPLES)
    settings = default_settings(seen=["blue", "not here"], stacking=2.5)
    stacked = Classifier(encoder, tokenizer, LABELS, settings)
    torch.testing.assert_close(stacked.score(EXAMPLES), plain)  # not before calibrate()
    stacked.calibrate()
    torch.testing.assert_close(stacked.score(EXAMPLES), plain - torch.tensor([0, 2.5, 0]))


def test_both_at_once(encoder, tokenizer):
    empty = Example("")
    plain = Classifier(encoder, tokenizer, LABELS).score([*EXAMPLES, empty])
    settings = default_settings(calibration="contextual", seen=["red"], stacking=1.0)
    scores = Classifier(encoder, tokenizer, LABELS, settings).calibrate().score(EXAMPLES)
    want = plain[:-1] - plain[-1] - torch.tensor([1.0, 0, 0])
    torch.testing.assert_close(scores, want, atol=1e-5, rtol=0)


def test_calibration_changes_nothing_in_training(encoder, tokenizer):
    """forward, which train.py's loss comes from, has the plain scores."""
    settings = default_settings(calibration="contextual", seen=["red"], stacking=1.0)
    classifier = Classifier(encoder, tokenizer, LABELS, settings)
    sequences = classifier.encode(EXAMPLES)
    before = classifier(sequences)
    torch.testing.assert_close(classifier.calibrate()(sequences), before)


def test_defaults_are_those_of_the_flags():
    settings = default_settings(k=7)
    assert (settings.encoder, settings.data) == ("multilingual-e5-small", "minitopics")
    assert settings.k == 7


def test_a_tokenizer_of_another_encoder(tiny, tmp_path):
    """More ids than the encoder has embeddings."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    pocket, tokenizer = load_encoder("pocket")
    assert tokenizer.vocab_size <= pocket.config.vocab_size
    model = tokenizer.sp.serialized_model_proto()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    with pytest.raises(UserError, match="not of one encoder"):
        load_encoder(tmp_path)


def test_a_smaller_tokenizer_beside_an_encoder(tiny, tmp_path, recwarn):
    """Its ids all have an embedding, of other pieces. A few spare rows are nobody's fault."""
    spare = SPARE_ROWS
    V = Tokenizer(tiny / TOKENIZER_FILE).vocab_size
    for rows in (V + spare, V + spare + 1):
        config = Config(vocab_size=rows, width=8, layers=1, heads=2, ffn=8, positions=32)
        save_encoder(tmp_path, XLMR(config))
        shutil.copy(tiny / TOKENIZER_FILE, tmp_path)
        load_encoder(tmp_path)
        assert len(recwarn) == (rows > V + spare)
    assert f"has {V} ids, its config.json a vocab_size of {rows}:" in str(recwarn[0].message)
