"""The identity: the baseline of every ablation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from spaudio.filters.arguments import check_tokens
from spaudio.filters.base import TokenFilter


class NoFilter(TokenFilter):
    """The identity, with the interface of a filter.

    Args:
        causal: Recorded in the config; has no effect.
    """

    name = "none"

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        check_tokens(x, padding_mask)
        return x if residual else torch.zeros_like(x)

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return torch.zeros_like(window)

    @override
    def taps(self) -> Sequence[Tensor]:
        return []

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return 0
