"""PyTorch's own layers, faster. x W^T + b goes through the better of its two CPU libraries.

PyTorch hands a float32 matrix product to Intel's MKL, which leaves half of what an AMD processor
with AVX-512 can do unused, and a convolution to oneDNN, which does not. A linear layer is a
convolution with a window of one token: so written, on such processors, an XLM-R base computes the
same sums in half the time (benchmarks/README.md). Everywhere else this is PyTorch's own linear. So
it is for matrices as small as pocket's, which would gain a tenth to a fifth: pocket's results
should not depend on the maker of the processor.
"""
import platform
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F


def new_amd():
    """Is this an AMD processor with AVX-512, and has PyTorch oneDNN (which it calls mkldnn)?"""
    info = Path("/proc/cpuinfo")  # Linux; elsewhere Python knows the maker
    maker = info.read_text(errors="replace") if info.exists() else platform.processor()
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "AuthenticAMD" in maker and wide and torch.backends.mkldnn.is_available()


AS_CONVOLUTION = new_amd()
SMALL = 100_000  # entries of a weight; pocket's largest has 65,536, XLM-R base's smallest 589,824


def linear(x, weight, bias):
    """x: (..., in), weight: (out, in), bias: (out,) -> (..., out)"""
    plain = x.is_cuda or x.dtype != torch.float32 or weight.numel() < SMALL
    if plain or not AS_CONVOLUTION:
        return F.linear(x, weight, bias)
    # Every token is one pixel of a picture with `in` channels. Nothing is copied.
    pixels = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)       # (1, in, 1, tokens)
    y = F.conv2d(pixels, weight[:, :, None, None], bias)                # (1, out, 1, tokens)
    return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)             # (..., out)


class Linear(nn.Linear):
    """nn.Linear by way of linear()."""

    def forward(self, x):
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """nn.Embedding, which is not filled where it has no memory, on the "meta" device.

    That would take a second: for random numbers there PyTorch imports 800 of its modules. Some of
    them hold on to the processes' connection, whose threads then outlive Python and abort it.
    """

    def reset_parameters(self):
        if not self.weight.is_meta:
            super().reset_parameters()
