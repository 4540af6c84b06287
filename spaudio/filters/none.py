"""The filter that does nothing: the baseline of every ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.base import TokenFilter


class NoFilter(TokenFilter):
    """The identity, with the interface of a filter.

    Args:
        causal: Kept for the record; the identity is causal either way.
    """

    name = "none"

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Returns ``x`` itself."""
        return x

    def valid(self, window: Tensor) -> Tensor:
        """See the base class; zeros."""
        return torch.zeros_like(window)

    def taps(self) -> Sequence[Tensor]:
        """See the base class; none."""
        return []

    def config(self) -> dict[str, Any]:
        """See the base class."""
        return {"name": self.name, "causal": self.causal}

    def flops(self, tokens: int, dim: int) -> int:
        """See the base class; zero."""
        return 0
