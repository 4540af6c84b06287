"""The comparison of learned filterbanks on waveforms: shapes, and the step that is timed."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spaudio.bench.peers.turns import Turns

RATE, SECONDS, BATCH = 16_000, 1, 16
FILTERS, TAPS, STRIDE, HOP = 40, 401, 4, 160  # taps, stride and hop in samples


def train_encoder(module: nn.Module, encode: Callable[[Tensor], Tensor], turns: Turns) -> None:
    """Trains on noise: forward and backward pass of the log energies of each frame.

    Args:
        module: Has the parameters.
        encode: (batch, samples) to frames of any shape.
        turns: Decides when to train.
    """
    waveforms = torch.randn(BATCH, SECONDS * RATE, generator=torch.Generator().manual_seed(0))
    going = turns.step()
    while going:
        module.zero_grad()
        torch.autograd.backward(encode(waveforms).square().mean())
        going = turns.step(BATCH)
