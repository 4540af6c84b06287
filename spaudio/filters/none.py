"""The identity: the baseline of every ablation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from spaudio.filters.base import TokenFilter


class NoFilter(TokenFilter):
    """The identity, with the interface of a filter.

    Args:
        causal: Recorded in the config; has no effect.
    """

    name = "none"

    @override
    def forward(self, x: Tensor, padding_mask: Tensor | None = None, **sequences: Any) -> Any:
        return super().forward(x, padding_mask, **sequences) if sequences else x

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return torch.zeros_like(window)

    @override
    def taps(self) -> Sequence[Tensor]:
        return []

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return 0
