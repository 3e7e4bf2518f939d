"""Classes as the encoder's own states for their names, against a loop that does it one by one."""
import pytest
import torch
import torch.nn.functional as F

from minirosprompt import UserError
from minirosprompt.classifier import Classifier
from minirosprompt.data import Example
from minirosprompt.io.settings import complete, default_settings
from minirosprompt.prompt import PromptedEncoder, Template
from minirosprompt.xlmr import XLMR

LABELS = {"red": ["red", "cherry rose"], "blue": ["blue"], "green": ["green", "leaf", "moss"]}
EXAMPLES = [Example("apple rose"), Example("sky sea whale blood brick"), Example("moss")]


def state(encoder, tokenizer, ids, prompt, pooling):
    """One sequence, no batch, no padding: its state by hand."""
    words = []
    for i in ids:
        words.append(prompt[i - tokenizer.vocab_size] if i >= tokenizer.vocab_size
                     else encoder.word.weight[i])
    x = encoder(torch.stack(words)[None])[0]                            # (T, D)
    return x.mean(0) if pooling == "mean" else x[ids.index(tokenizer.mask)]


@pytest.mark.parametrize("pooling", ["mean", "mask"])
@pytest.mark.parametrize("combine", ["mean", "max"])
@pytest.mark.parametrize("vectors", [0, 3])
def test_scores_by_hand(encoder, tokenizer, pooling, combine, vectors):
    prompt = torch.randn(vectors, 32) if vectors else None
    pattern = "{prompt} {mask} {text}" if pooling == "mask" else "{prompt} {text}"
    settings = default_settings(verbalizer="states", pooling=pooling, combine=combine,
                                template=pattern, hard_prompt="sky", temperature=0.1)
    classifier = Classifier(encoder, tokenizer, LABELS, settings, prompt)
    template = Template(pattern, tokenizer, vectors or "sky", 64, needs_mask=False)

    def of(text):
        ids = template.encode([text])[0]
        return F.normalize(state(encoder, tokenizer, ids, prompt, pooling), dim=0)

    for example, got in zip(EXAMPLES, classifier.score(EXAMPLES)):
        want = []
        for words in LABELS.values():
            vectors_of_words = torch.stack([of(word) for word in words])
            if combine == "mean":
                r = F.normalize(vectors_of_words.mean(0), dim=0)
                want.append(of(example.text) @ r / 0.1)
            else:
                want.append((vectors_of_words @ of(example.text) / 0.1).max())
        torch.testing.assert_close(got, torch.stack(want), atol=1e-4, rtol=0)


def test_the_gradient_goes_through_texts_and_names(encoder, tokenizer):
    """Against finite differences; and without the names' side it would be another one."""
    prompt = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    settings = default_settings(verbalizer="states")
    labels = torch.tensor([0, 1, 2])

    def loss_of(p):
        classifier = Classifier(encoder, tokenizer, LABELS, settings, p)
        loss = F.cross_entropy(classifier(classifier.encode(EXAMPLES)), labels)
        return classifier, loss

    classifier, loss = loss_of(prompt)
    loss.backward()
    gradient = classifier.prompt.grad.clone()
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        direction = torch.randn(2, 32, generator=generator)
        up = loss_of(prompt + 1e-3 * direction)[1].item()
        down = loss_of(prompt - 1e-3 * direction)[1].item()
        slope = (gradient * direction).sum().item()
        assert (up - down) / 2e-3 == pytest.approx(slope, abs=2e-2, rel=2e-2)
    h = classifier.model.read(classifier.encode(EXAMPLES))
    classifier.verbalizer.weight = classifier.verbalizer.weight.detach()
    classifier.prompt.grad = None
    F.cross_entropy(classifier.verbalizer.scores(h), labels).backward()
    assert (classifier.prompt.grad - gradient).abs().max() > 1e-3


def test_label_words_are_read_once_to_score_and_anew_to_train(encoder, tokenizer, monkeypatch):
    settings = default_settings(verbalizer="states")
    classifier = Classifier(encoder, tokenizer, LABELS, settings, torch.randn(2, 32))
    sizes = []
    read = PromptedEncoder.read

    def counted(model, sequences):
        sizes.append(len(sequences))
        return read(model, sequences)
    monkeypatch.setattr(PromptedEncoder, "read", counted)
    for n in (1, 200):  # flat in the number of texts
        sizes.clear()
        classifier.score(EXAMPLES * n)
        assert sizes == [6]
    sizes.clear()
    for _ in range(2):
        classifier(classifier.encode(EXAMPLES))
    assert sorted(sizes) == [3, 3, 6, 6]


@pytest.mark.parametrize("verbalizer", ["words", "states"])
def test_a_class_without_words_or_a_word_without_tokens_is_refused(encoder, tokenizer, verbalizer):
    settings = default_settings(verbalizer=verbalizer)
    with pytest.raises(UserError, match=r"its label words are a list, such as \['sky'\]"):
        Classifier(encoder, tokenizer, {"a": "sky", "b": ["sea"]})
    with pytest.raises(UserError, match="every class needs at least one label word"):
        Classifier(encoder, tokenizer, LABELS | {"none": []}, settings)
    # A zero-width space is no white space to Python, and nothing to the tokenizer.
    with pytest.raises(UserError, match="class 'none': the label word '.*' has no tokens"):
        Classifier(encoder, tokenizer, LABELS | {"none": ["\u200b"]}, settings)


def test_the_verbalizer_follows_the_encoder(encoder, headless):
    settings = default_settings()
    complete(settings, encoder)
    assert (settings.verbalizer, settings.template) == ("words", "{prompt} {mask} {text}")
    settings = default_settings()
    complete(settings, XLMR.from_pretrained(headless))
    assert (settings.verbalizer, settings.template) == ("states", "{prompt} {text}")
    settings = default_settings(verbalizer="words", encoder="x")
    with pytest.raises(UserError, match="--verbalizer words: x has no masked-LM head"):
        complete(settings, XLMR.from_pretrained(headless))


@pytest.mark.parametrize("flags", [[], ["--sampler", "natural"], ["--combine", "max"],
                                   ["--calibration", "contextual"], ["--temperature", "0.2"],
                                   ["--pooling", "mask", "--template", "{prompt} {mask} {text}"]])
def test_train_resume_and_evaluate_without_a_head(run_script, headless, colours, tmp_path, flags):
    done = run_script("train.py", "--encoder", headless, "--data", colours, "--source", "aa,bb",
                      "--seen", "red,blue,green", "--shots", 4, "--steps", 4, "--seeds", 0,
                      "--select-every", 2, "--name", "x", "--label-languages", "all", *flags)
    assert done.returncode == 0, done.stderr
    prompt = tmp_path / "runs/x/soft-erm-0/prompt.safetensors"
    before = prompt.read_bytes()
    prompt.unlink()
    assert run_script("train.py", "--resume", "runs/x").returncode == 0
    assert prompt.read_bytes() == before
    again = run_script("eval.py", "--run", "runs/x")
    assert again.returncode == 0, again.stderr
    table = done.stdout[done.stdout.index("accuracy"):done.stdout.index("per language")]
    assert table in again.stdout
    done = run_script("eval.py", "--run", "runs/x", "--labels", "red,made up", "--text", "apple")
    assert done.stdout.startswith("text\tclass\tred\tmade up\napple\t"), done.stderr
    # What stands for a class: its words themselves.
    shown = run_script("eval.py", "--run", "runs/x", "--show-neighbours").stdout
    assert shown == "blue\tblue\t\ngreen\tgreen\t\nred\tred\t\nwhite\twhite\t\n"
