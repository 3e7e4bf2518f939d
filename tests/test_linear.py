"""linear() beside PyTorch's own, written both ways, whatever processor the tests run on."""
import pytest
import torch
import torch.nn.functional as F

import minirosprompt.io.linear as module
from minirosprompt.xlmr import XLMR, Config


@pytest.mark.parametrize("as_convolution", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 500), (3, 1, 500), (1, 40, 500), (4, 33, 500), (7, 500), (500,)]
)
def test_value_and_gradients(shape, as_convolution, monkeypatch):
    monkeypatch.setattr(module, "AS_CONVOLUTION", as_convolution)
    torch.manual_seed(0)
    inputs = [torch.randn(shape), torch.randn(512, 500) / 20, torch.randn(512)]
    assert inputs[1].numel() >= module.SMALL  # a big one
    mine = [tensor.clone().requires_grad_() for tensor in inputs]
    theirs = [tensor.clone().requires_grad_() for tensor in inputs]
    y = module.linear(*mine)
    want = F.linear(*theirs)
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)
    assert y.is_contiguous()  # so that attention takes it as it is
    direction = torch.randn(want.shape)
    y.backward(direction)
    want.backward(direction)
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_a_part_of_a_matrix_and_inputs_that_are_not_contiguous(monkeypatch):
    monkeypatch.setattr(module, "AS_CONVOLUTION", True)
    x = torch.randn(500, 5, 3).permute(2, 1, 0)
    weight = torch.randn(1536, 500) / 20
    bias = torch.randn(1536)
    y = module.linear(x, weight[512:], bias[512:])
    want = F.linear(x, weight[512:], bias[512:])
    torch.testing.assert_close(y, want, atol=1e-5, rtol=1e-5)


def test_who_gets_a_convolution(monkeypatch):
    """Big float32 matrices, and only where new_amd() said so."""
    calls = []
    convolution = F.conv2d

    def counted(*args):
        calls.append(args)
        return convolution(*args)

    monkeypatch.setattr(F, "conv2d", counted)
    big = torch.randn(512, 512)
    small = torch.randn(128, 512)
    x = torch.randn(3, 512)
    cases = [(big, torch.float32), (small, torch.float32), (big, torch.bfloat16)]
    cases += [(big, torch.float64)]
    for as_convolution in (False, True):
        monkeypatch.setattr(module, "AS_CONVOLUTION", as_convolution)
        for weight, dtype in cases:
            calls.clear()
            module.linear(x.to(dtype), weight.to(dtype), weight[:, 0].to(dtype))
            assert bool(calls) == (as_convolution and weight is big and dtype is torch.float32)


def test_the_encoder_is_the_same_both_ways(monkeypatch):
    """XLM-R base's width, two layers, with padding: states at every position and at one."""
    torch.manual_seed(0)
    encoder = XLMR(Config(vocab_size=20, layers=2)).requires_grad_(False).eval()
    words = torch.randn(3, 9, 768)
    real = torch.ones(3, 9, dtype=torch.bool)
    at = torch.tensor([0, 4, 2])
    real[1, 6:] = False
    found = []
    for as_convolution in (False, True):
        monkeypatch.setattr(module, "AS_CONVOLUTION", as_convolution)
        found.append((encoder(words, real)[real], encoder(words, real, at)))
    for a, b in zip(*found):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "info, capability, want",
    [
        ("vendor_id\t: AuthenticAMD", "AVX512", True),
        ("vendor_id\t: AuthenticAMD", "AVX2", False),
        ("vendor_id\t: GenuineIntel", "AVX512", False),
        ("", "DEFAULT", False),
    ],
)
def test_new_amd(info, capability, want, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert module.new_amd() is want
    (tmp_path / "cpuinfo").unlink()  # as on Windows
    processor = "AMD64 Family 26 Model 68 Stepping 0, " + info
    monkeypatch.setattr(module.platform, "processor", lambda: processor)
    assert module.new_amd() is want
