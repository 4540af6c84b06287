"""Asserts causality: a later token changes no bit of an earlier output."""

from collections.abc import Callable

import torch
from torch import Tensor


def assert_causal(
    run: Callable[[Tensor], Tensor], x: Tensor, change: Callable[[Tensor], Tensor]
) -> None:
    """Changes one token, at several positions: only outputs from there on may change.

    Args:
        run: (batch, tokens, ...) to (batch, tokens, ...).
        x: The input.
        change: (batch, ...) of one token to another value.
    """
    tokens = x.shape[1]
    whole = run(x)
    for at in sorted({1, 2, tokens // 2, tokens - 2, tokens - 1} - {0}):
        other = x.clone()
        other[:, at] = change(x[:, at])
        y = run(other)
        assert torch.equal(bits(y[:, :at]), bits(whole[:, :at])), f"a change at {at} is seen before"
        assert not torch.equal(y[:, at], whole[:, at]), f"a change at {at} has no effect there"


def bits(x: Tensor) -> Tensor:
    """Floats as integers, which distinguish 0 and -0."""
    return x.contiguous().view(torch.int32)
