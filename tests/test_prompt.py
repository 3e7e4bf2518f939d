"""Template, soft prompt, the encoder that reads it; and prompts as files."""
import pytest
import torch
from conftest import random_encoder
from torch.utils._python_dispatch import TorchDispatchMode

from minirosprompt import UserError
from minirosprompt.io.prompts import fingerprint, load_prompt, save_prompt
from minirosprompt.prompt import TOKENS_AT_ONCE, PromptedEncoder, Template, init_prompt, pad
from minirosprompt.verbalizer import Verbalizer
from minirosprompt.xlmr import XLMR, Config


def test_template_becomes_ids(tokenizer):
    apple = tokenizer.encode("apple")
    sky = tokenizer.encode("sky")
    mask = tokenizer.mask
    P1 = mask + 1  # the virtual id of the first prompt vector
    P2 = mask + 2

    def encode(pattern, prompt):
        return Template(pattern, tokenizer, prompt, 64).encode(["apple"])[0]

    assert encode("{prompt} {text} {mask}", 2) == [0, P1, P2, *apple, mask, 2]
    assert encode("{prompt} {text} {mask}", "sky") == [0, *sky, *apple, mask, 2]
    assert encode("{text} sky {mask} sky {prompt}", 1) == [0, *apple, *sky, mask, *sky, P1, 2]
    assert encode("{mask} {text}", 0) == [0, mask, *apple, 2]


def test_hard_prompt_is_what_one_would_type(tokenizer):
    """Template round trip: the ids of the hard-prompted text read as template, prompt and text."""
    ids = Template("{prompt} {text} sea {mask}", tokenizer, "sky", 64).encode(["apple leaf"])[0]
    assert tokenizer.decode(ids) == "sky apple leaf sea"


def test_text_is_cut_and_nothing_else(tokenizer):
    template = Template("{prompt} {text} sky {mask}", tokenizer, 3, 20)
    (row,) = template.encode(["apple " * 100])
    first = tokenizer.mask + 1
    assert len(row) == 20
    assert len([i for i in row if i >= first]) == 3
    assert row[-2:] == [tokenizer.mask, 2]
    assert row[:4] == [0, first, first + 1, first + 2]
    assert template.encode([""])[0] == template.before + template.after


@pytest.mark.parametrize(
    "pattern, prompt, words",
    [
        ("{prompt} {text}", 1, "{mask} must occur once"),
        ("{text} {mask} {mask}", 0, "{mask} must occur once"),
        ("{prompt} {mask}", 1, "{text} must occur once"),
        ("{text} {mask}", 1, "{prompt} must occur once"),
        ("{text} {label} {mask}", 0, "unknown placeholder {label}"),
        ("{prompt} {text} {mask}", 61, "no room for a text"),
    ],
)
def test_bad_templates(tokenizer, pattern, prompt, words):
    with pytest.raises(UserError) as error:
        Template(pattern, tokenizer, prompt, 64)
    assert words in str(error.value)


def test_prompt_vectors_stand_where_the_template_has_them(encoder, tokenizer):
    """A soft prompt made of the embeddings of words gives the state of those words, anywhere."""
    for pattern in ("{prompt} {text} {mask}", "{text} {prompt} {mask}", "{mask} {text} {prompt}"):
        words = tokenizer.encode("red sea")
        texts = ["apple", "sky moss lime snow", "leaf leaf"]
        soft = PromptedEncoder(encoder, tokenizer.mask, encoder.word.weight[words])
        hard = PromptedEncoder(encoder, tokenizer.mask)
        h = soft(pad(Template(pattern, tokenizer, len(words), 64).encode(texts)))
        want = hard(pad(Template(pattern, tokenizer, "red sea", 64).encode(texts)))
        torch.testing.assert_close(h, want, atol=1e-5, rtol=0)


def test_virtual_ids_say_which_vector_not_their_order(encoder, tokenizer):
    """Permuted, left out or repeated: every virtual id gets its own vector, by hand."""
    prompt = torch.randn(3, 32)
    model = PromptedEncoder(encoder, tokenizer.mask, prompt)
    P1, P2, P3 = (tokenizer.mask + 1 + p for p in range(3))
    apple = tokenizer.encode("apple")[0]
    E = encoder.word.weight
    rows = [
        [0, P1, P2, P3, tokenizer.mask, apple, 2],
        [0, P3, P1, P2, tokenizer.mask, apple, 2],
        [P2, 0, tokenizer.mask, P2, apple, 2, P1],
    ]
    found = model.embed(torch.tensor(rows))                             # (3, 7, 32)
    vectors = {P1: prompt[0], P2: prompt[1], P3: prompt[2]}
    for row, embedded in zip(rows, found):
        for i, vector in zip(row, embedded):
            want = vectors[i] if i in vectors else E[i]
            assert torch.equal(vector, want)
    one, two = model(torch.tensor(rows[:2]))
    assert (one - two).abs().max() > 1e-3  # and the encoder sees the difference


def test_permuted_ids_and_permuted_vectors_cancel(encoder, tokenizer):
    """The same sequence from a prompt whose vectors stand in another order: the same state."""
    prompt = torch.randn(3, 32)
    order = [2, 0, 1]
    (row,) = Template("{prompt} {mask} {text}", tokenizer, 3, 64).encode(["apple sky"])
    first = tokenizer.mask + 1
    # Vector order[p] of the first prompt is vector p of the second.
    moved = [first + order.index(i - first) if i >= first else i for i in row]
    h = PromptedEncoder(encoder, tokenizer.mask, prompt)(pad([row]))
    again = PromptedEncoder(encoder, tokenizer.mask, prompt[order])(pad([moved]))
    torch.testing.assert_close(h, again)


def test_several_prompts_in_one_parameter(encoder, tokenizer, tmp_path):
    """A prompt of shape (F, P, D): virtual ids shifted by f P take the vectors of prompt f."""
    F = 3
    P = 2
    prompt = torch.randn(F, P, 32)
    sequences = Template("{prompt} {mask} {text}", tokenizer, P, 64).encode(["apple", "sky sea"])
    with pytest.raises(UserError, match=r"the prompt has the shape \(3, 2, 32\)"):
        PromptedEncoder(encoder, tokenizer.mask, prompt)  # as it is, it would read the first alone
    model = PromptedEncoder(encoder, tokenizer.mask, prompt[0])
    model.prompt = torch.nn.Parameter(prompt)  # a fork that knows better
    for f in range(F):
        shifted = []
        for row in sequences:
            shifted.append([i + f * P if i > tokenizer.mask else i for i in row])
        alone = PromptedEncoder(encoder, tokenizer.mask, prompt[f])
        torch.testing.assert_close(model.read(shifted), alone.read(sequences))
        # Its gradient goes to prompt f alone.
        model.prompt.grad = None
        model.read(shifted).square().sum().backward()
        used = [int(g) for g in model.prompt.grad.abs().sum((1, 2)).nonzero()]
        assert used == [f]
    save_prompt(tmp_path / "prompt", model.prompt, encoder, "soft-x", 0, {})
    again, _ = load_prompt(tmp_path / "prompt", encoder)
    assert torch.equal(again, prompt)


def test_a_hard_prompt_has_no_vectors(encoder, tokenizer):
    model = PromptedEncoder(encoder, tokenizer.mask)
    ids = torch.tensor([[0, 5, tokenizer.mask, 2]])
    assert model.prompt is None
    assert torch.equal(model.embed(ids), encoder.word(ids))


def test_read_is_forward_in_the_order_of_the_rows(encoder, tokenizer, monkeypatch):
    """Whatever the batches: states and gradient are those of all rows padded to the longest."""
    texts = ["apple " * n for n in (9, 1, 30, 2, 9, 4)]
    rows = Template("{prompt} {text} {mask}", tokenizer, 2, 64).encode(texts)
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
    """In float64, against (loss(p + eps) - loss(p - eps)) / 2 eps in random directions.

    Two texts of different length.
    """
    encoder = random_encoder(Config(tokenizer.vocab_size, 16, 2, 4, 24, 40)).double()
    template = Template("{prompt} {text} {mask}", tokenizer, 3, 38)
    ids = pad(template.encode(["apple", "sky sea moss lime"]))
    target = random_numbers(16, seed=1)
    model = PromptedEncoder(encoder, tokenizer.mask, torch.zeros(3, 16))
    model.prompt.data = 0.3 * random_numbers(3, 16, seed=0)

    def loss():
        return (states(model, ids) @ target).square().sum()

    loss().backward()
    for seed in range(5):
        direction = random_numbers(3, 16, seed=seed)
        slope = (model.prompt.grad * direction).sum()
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                model.prompt.add_(sign * 1e-5 * direction)
                values.append(loss())
                model.prompt.sub_(sign * 1e-5 * direction)
        assert abs((values[0] - values[1]) / 2e-5 - slope) < 1e-6 * max(1, abs(slope))


def random_numbers(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def states(model, ids):
    """PromptedEncoder.forward without its last step.

    That is the conversion to float32, which would hide small differences.
    """
    original = torch.Tensor.float
    torch.Tensor.float = lambda self: self
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
    """Neither a training step nor scoring makes any tensor with V columns.

    V is some 60 here, and nothing else is.
    """
    V = encoder.config.vocab_size
    shapes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    shapes.append((str(func), tuple(tensor.shape)))
            return out

    # looks at E once, for a label set
    verbalizer = Verbalizer(encoder, tokenizer, {"red": ["red"], "blue": ["blue"]}, k=3)
    model = PromptedEncoder(encoder, tokenizer.mask, torch.randn(2, 32))
    ids = pad(Template("{prompt} {text} {mask}", tokenizer, 2, 64).encode(["apple", "sky sea"]))
    with Watch():
        verbalizer.scores(model(ids)).logsumexp(1).sum().backward()
    assert len(shapes) > 50
    assert not [s for s in shapes if V in s[1]]
    with Watch():
        encoder.logits(torch.randn(1, 32))
    assert [s for s in shapes if V in s[1]]  # it would have been seen


def test_fingerprint_is_the_same_in_bfloat16(encoder, tiny):
    assert fingerprint(XLMR.from_pretrained(tiny, dtype=torch.bfloat16)) == fingerprint(encoder)


def test_initialisation(encoder, tokenizer):
    E = encoder.word.weight

    def init(mode, n, seed=0):
        return init_prompt(mode, n, encoder, tokenizer, "red sea", seed)

    ids = tokenizer.encode("red sea")
    assert torch.equal(init("words", len(ids) + 1), E[[*ids, ids[0]]])
    assert torch.equal(init("words", 1), E[ids[:1]])
    rows = init("vocab", 50)
    assert all((row == E[4:tokenizer.mask]).all(1).any() for row in rows)  # ordinary tokens only
    assert torch.equal(init("normal", 4), init("normal", 4))
    assert not torch.equal(init("normal", 4), init("normal", 4, seed=1))
    assert abs(init("normal", 2000).std() / E.std() - 1) < 0.1


def test_save_and_load(encoder, tiny, tmp_path):
    prompt = torch.randn(3, 32)
    path = tmp_path / "p" / "prompt.safetensors"
    settings = {"template": "{prompt} {text} {mask}"}
    save_prompt(path, prompt, encoder, "soft-erm", 7, settings)
    again, about = load_prompt(path, encoder)
    assert torch.equal(again, prompt)
    assert about == {"method": "soft-erm", "seed": 7, "settings": settings}
    assert path.stat().st_size < 1000
    other = random_encoder(encoder.config, seed=5)
    assert fingerprint(other) != fingerprint(encoder)
    with pytest.raises(UserError, match="another encoder"):
        load_prompt(path, other)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        load_prompt(path, encoder)


def test_the_fingerprint_is_of_norms_and_biases(encoder):
    """Other rounding of the matrices: the same encoder. Another bias: another one."""
    before = fingerprint(encoder)
    for weight in encoder.parameters():
        if weight.ndim > 1:
            weight.copy_((weight * 4).round() / 4)
    assert fingerprint(encoder) == before
    encoder.layers[1].up.bias[3] += 0.5
    assert fingerprint(encoder) != before
