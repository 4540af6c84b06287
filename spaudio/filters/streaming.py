"""Causal filters, token by token."""

from __future__ import annotations

import torch
from torch import Tensor

from spaudio.filters.base import TokenFilter, check_tokens


class FilterStream:
    """Runs a causal filter on tokens as they arrive; the same values as on the whole sequence.

    It keeps the last K - 1 tokens, and for a token-adaptive filter the keys and values of its
    mask's attention, which grow with the stream. Streams are independent of each other; padding
    has no place in one.

    Args:
        filter: A causal filter.

    Raises:
        ValueError: If the filter is not causal.
    """

    def __init__(self, filter: TokenFilter) -> None:
        if not filter.causal:
            raise ValueError(
                f"filter {filter.name!r} is not causal: its output depends on tokens still to "
                "come; stream one made with causal=True"
            )
        self.filter = filter
        self.reset()

    def reset(self) -> None:
        """Begins a new sequence."""
        self._past: Tensor | None = None
        self._memory = self.filter.new_memory()

    def step(self, x: Tensor) -> Tensor:
        """Filters the next tokens.

        Args:
            x: (batch, tokens, dim), one token or more.

        Returns:
            (batch, tokens, dim), filtered with the residual.

        Raises:
            ValueError: If batch or dim differ from the tokens before; :meth:`reset` begins anew.
        """
        check_tokens(x, None)
        left, _ = self.filter.extent
        past = x.new_zeros(x.shape[0], left, x.shape[2]) if self._past is None else self._past
        if (past.shape[0], past.shape[2]) != (x.shape[0], x.shape[2]):
            raise ValueError(
                f"tokens of shape {tuple(x.shape)} do not continue a stream of batch "
                f"{past.shape[0]} and dim {past.shape[2]}; call reset() to begin another"
            )
        window = torch.cat([past, x], dim=1)
        y = x + self.filter.step(window, self._memory)
        # A copy, lest the state keep the whole window alive.
        self._past = window[:, window.shape[1] - left :].clone()
        return y
