"""Dropout with cheap random numbers on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.tracing import is_eager

LEVELS = 1 << 16  # probabilities are rounded to multiples of 1 / LEVELS


def drop(x: Tensor, p: float) -> Tensor:
    """Sets each value to zero with probability ``p`` and scales the others to keep the mean.

    On a CPU, ``torch.nn.functional.dropout`` draws one random number at a time, which takes longer
    than the rest. Here each random word gives four decisions, so ``p`` is rounded to 16 bits; the
    scale is that of the rounded probability. Elsewhere torch's own dropout runs.

    Args:
        x: Floating-point tensor of any shape.
        p: Probability, in [0, 1).
    """
    dropped = round(p * LEVELS)
    if x.device.type != "cpu" or not is_eager() or not 0 < dropped < LEVELS:
        return F.dropout(x, p)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)
    drawn = words.view(torch.int16)[: x.numel()].view(x.shape)
    kept = drawn >= dropped - LEVELS // 2
    return x * (kept * (LEVELS / (LEVELS - dropped))).to(x.dtype)


class Dropout(nn.Dropout):
    """``nn.Dropout`` implemented with :func:`drop`."""

    @override
    def forward(self, input: Tensor) -> Tensor:
        return drop(input, self.p) if self.training and self.p else input
