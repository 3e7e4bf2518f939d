import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minirosprompt import UserError
from minirosprompt.io.prompts import fingerprint, load_prompt, save_prompt
from minirosprompt.prompt import SLOT, TOKENS_AT_ONCE, PromptedEncoder, Template, init_prompt, pad
from conftest import random_encoder
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.xlmr import Config, XLMR


def test_template_becomes_ids(tokenizer):
    apple, sky = tokenizer.encode("apple"), tokenizer.encode("sky")
    encode = lambda pattern, prompt: Template(pattern, tokenizer, prompt, 64).encode(["apple"])[0]  # noqa: E731
    assert encode("{prompt} {text} {mask}", 2) == [0, SLOT, SLOT, *apple, tokenizer.mask, 2]
    assert encode("{prompt} {text} {mask}", "sky") == [0, *sky, *apple, tokenizer.mask, 2]
    assert encode("{text} sky {mask} sky {prompt}", 1) == [0, *apple, *sky, tokenizer.mask, *sky, SLOT, 2]
    assert encode("{mask} {text}", 0) == [0, tokenizer.mask, *apple, 2]


def test_hard_prompt_is_what_one_would_type(tokenizer):
    """Template round trip: the ids of the hard-prompted text read as template, prompt and text."""
    ids = Template("{prompt} {text} sea {mask}", tokenizer, "sky", 64).encode(["apple leaf"])[0]
    assert tokenizer.decode(ids) == "sky apple leaf sea"


def test_text_is_cut_and_nothing_else(tokenizer):
    template = Template("{prompt} {text} sky {mask}", tokenizer, 3, 20)
    (row,) = template.encode(["apple " * 100])
    assert len(row) == 20 and row.count(SLOT) == 3 and row[-2:] == [tokenizer.mask, 2] and row[:4] == [0, SLOT, SLOT, SLOT]
    assert template.encode([""])[0] == template.before + template.after


@pytest.mark.parametrize("pattern, prompt, words", [
    ("{prompt} {text}", 1, "{mask} must occur once"), ("{text} {mask} {mask}", 0, "{mask} must occur once"),
    ("{prompt} {mask}", 1, "{text} must occur once"), ("{text} {mask}", 1, "{prompt} must occur once"),
    ("{text} {label} {mask}", 0, "unknown placeholder {label}"), ("{prompt} {text} {mask}", 61, "no room for a text")])
def test_bad_templates(tokenizer, pattern, prompt, words):
    with pytest.raises(UserError) as error:
        Template(pattern, tokenizer, prompt, 64)
    assert words in str(error.value)


def test_prompt_vectors_stand_where_the_slots_are(encoder, tokenizer):
    """A soft prompt made of the embeddings of words gives the state of those words, in any placement."""
    for pattern in ("{prompt} {text} {mask}", "{text} {prompt} {mask}", "{mask} {text} {prompt}"):
        words = tokenizer.encode("red sea")
        texts = ["apple", "sky moss lime snow", "leaf leaf"]
        soft = PromptedEncoder(encoder, tokenizer.mask, encoder.word.weight[words])
        hard = PromptedEncoder(encoder, tokenizer.mask)
        h = soft(pad(Template(pattern, tokenizer, len(words), 64).encode(texts)))
        torch.testing.assert_close(h, hard(pad(Template(pattern, tokenizer, "red sea", 64).encode(texts))), atol=1e-5, rtol=0)


def test_read_is_forward_in_the_order_of_the_rows(encoder, tokenizer, monkeypatch):
    """Whatever the batches: states and the prompt's gradient are those of all rows padded to the longest."""
    rows = Template("{prompt} {text} {mask}", tokenizer, 2, 64).encode("apple " * n for n in (9, 1, 30, 2, 9, 4))
    found = []
    for tokens in (1, 40, 10**6):  # each row alone; some together; all
        monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", tokens)
        model = PromptedEncoder(encoder, tokenizer.mask, encoder.word.weight[:2])
        h = model.read(rows)
        h.square().sum().backward()
        found.append((h, model.prompt.grad))
    model = PromptedEncoder(encoder, tokenizer.mask, encoder.word.weight[:2])
    h = model(pad(rows))
    h.square().sum().backward()
    for some in found:
        torch.testing.assert_close(some, (h, model.prompt.grad), atol=1e-4, rtol=1e-4)


def test_gradient_of_the_prompt_by_finite_differences(tokenizer):
    """In float64, against (loss(p + eps) - loss(p - eps)) / 2 eps in random directions; two texts of different length."""
    encoder = random_encoder(Config(tokenizer.vocab_size, 16, 2, 4, 24, 40)).double()
    ids = pad(Template("{prompt} {text} {mask}", tokenizer, 3, 38).encode(["apple", "sky sea moss lime"]))
    target = torch.randn(16, generator=torch.Generator().manual_seed(1)).double()
    model = PromptedEncoder(encoder, tokenizer.mask, torch.zeros(3, 16))
    model.prompt.data = 0.3 * torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).double()
    model.forward_double = lambda: (states(model, ids) @ target).square().sum()
    model.forward_double().backward()
    for seed in range(5):
        direction = torch.randn(3, 16, generator=torch.Generator().manual_seed(seed)).double()
        slope = (model.prompt.grad * direction).sum()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                model.prompt.add_(sign * 1e-5 * direction)
                values.append(model.forward_double())
                model.prompt.sub_(sign * 1e-5 * direction)
        assert abs((values[0] - values[1]) / 2e-5 - slope) < 1e-6 * max(1, abs(slope))


def states(model, ids):
    """PromptedEncoder.forward without its last step, the conversion to float32 that would hide small differences."""
    original, torch.Tensor.float = torch.Tensor.float, lambda self: self
    try:
        return model(ids)
    finally:
        torch.Tensor.float = original


def test_nothing_but_the_prompt_is_trained(encoder, tokenizer):
    before = {name: w.clone() for name, w in encoder.state_dict().items()}
    model = PromptedEncoder(encoder, tokenizer.mask, torch.randn(2, 32))
    model.train()
    assert [name for name, w in model.named_parameters() if w.requires_grad] == ["prompt"]
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=0.1)
    ids = pad(Template("{prompt} {text} {mask}", tokenizer, 2, 64).encode(["apple", "sky sea"]))
    start = model.prompt.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model(ids).square().sum().backward()
        optimizer.step()
    assert not torch.equal(model.prompt, start)
    assert all(w.grad is None for w in encoder.parameters())
    assert all(torch.equal(w, before[name]) for name, w in encoder.state_dict().items())


def test_no_product_over_the_vocabulary(encoder, tokenizer):
    """Neither a training step nor scoring makes any tensor with V columns (V = 60 here, and nothing else is 60)."""
    V, shapes = encoder.config.vocab_size, []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend((str(func), tuple(t.shape)) for t in (out if isinstance(out, (tuple, list)) else [out])
                          if isinstance(t, torch.Tensor))
            return out

    verbalizer = Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": ["blue"]}, k=3)  # looks at E once, for a label set
    model = PromptedEncoder(encoder, tokenizer.mask, torch.randn(2, 32))
    ids = pad(Template("{prompt} {text} {mask}", tokenizer, 2, 64).encode(["apple", "sky sea"]))
    with Watch():
        verbalizer.scores(model(ids)).logsumexp(1).sum().backward()
    assert len(shapes) > 50 and not [s for s in shapes if V in s[1]]
    with Watch():
        encoder.logits(torch.randn(1, 32))
    assert [s for s in shapes if V in s[1]]  # it would have been seen


def test_fingerprint_is_the_same_in_bfloat16(encoder, tiny):
    assert fingerprint(XLMR.from_pretrained(tiny, dtype=torch.bfloat16)) == fingerprint(encoder)


def test_initialisation(encoder, tokenizer):
    E, init = encoder.word.weight, lambda mode, n, seed=0: init_prompt(mode, n, encoder, tokenizer, "red sea", seed)  # noqa: E731
    ids = tokenizer.encode("red sea")
    assert torch.equal(init("words", len(ids) + 1), E[[*ids, ids[0]]])
    assert torch.equal(init("words", 1), E[ids[:1]])
    rows = init("vocab", 50)
    assert all((row == E[4:tokenizer.mask]).all(1).any() for row in rows)  # ordinary tokens only
    assert torch.equal(init("normal", 4), init("normal", 4)) and not torch.equal(init("normal", 4), init("normal", 4, seed=1))
    assert abs(init("normal", 2000).std() / E.std() - 1) < 0.1


def test_save_and_load(encoder, tiny, tmp_path):
    prompt, path = torch.randn(3, 32), tmp_path / "p" / "prompt.safetensors"
    save_prompt(path, prompt, encoder, {"template": "{prompt} {text} {mask}"})
    again, settings = load_prompt(path, encoder)
    assert torch.equal(again, prompt) and settings["template"] == "{prompt} {text} {mask}"
    assert path.stat().st_size < 1000
    other = random_encoder(encoder.config, seed=5)
    assert fingerprint(other) != fingerprint(encoder)
    with pytest.raises(UserError, match="another encoder"):
        load_prompt(path, other)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        load_prompt(path, encoder)
