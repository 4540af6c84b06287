"""Fixed averages over half of the dimensions: WaveletGPT."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from spaudio.filters.arguments import check_size, check_tokens
from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import kernel_extent, without_padding
from spaudio.filters.precision import join


class HaarFilter(TokenFilter):
    """Replaces the second half of the dimensions with averages over 2, 4, ..., 2^levels tokens.

    After WaveletGPT (arXiv 2409.12924): the first half of the dimensions stays as it is; the others
    are replaced with their moving averages, whose lengths grow in powers of two with the dimension.
    Nothing is learned. The paper leaves open how many dimensions have each length; here they are
    spread evenly. Tokens outside the sequence count as zeros, as in all filters.

    Args:
        dim: Embedding dimension.
        levels: Number of averaging lengths: 2, 4, ..., 2^levels tokens. With fewer averaged
            dimensions than levels, each has a different length, the first has 2, and 2^levels is
            unused.
        causal: Whether averages end at the token, as in the paper, or are centred on it.

    Raises:
        ValueError: If a size is below 1.
    """

    name = "haar"

    def __init__(self, dim: int, levels: int = 6, *, causal: bool = False) -> None:
        super().__init__(causal=causal)
        check_size(dim=dim, levels=levels)
        self.dim = dim
        self.levels = levels
        self.untouched = dim // 2
        averaged = dim - self.untouched
        exponents = [1 + levels * i // averaged for i in range(averaged)]
        # Kernel size, and the number of adjacent dimensions that it averages.
        self.groups = [(1 << e, exponents.count(e)) for e in sorted(set(exponents))]

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        if not residual:
            return super().filtered(x, padding_mask)
        # The averages themselves: to subtract ``x`` and add it again would lose digits.
        check_tokens(x, padding_mask, self.dim)
        y = self._replaced(F.pad(without_padding(x, padding_mask), (0, 0, *self.extent)))
        return y if padding_mask is None else torch.where(padding_mask.unsqueeze(-1), x, y)

    @override
    def convolve(self, window: Tensor) -> Tensor:
        y = self._replaced(window)
        left, _ = self.extent
        return y - window[:, left : left + y.shape[1]]  # the residual adds it again

    def _replaced(self, window: Tensor) -> Tensor:
        """Returns the tokens of a window with averages in the second half of the dimensions."""
        left, right = self.extent
        tokens = window.shape[1] - left - right
        averages = [window[:, left : left + tokens, : self.untouched]]
        first = self.untouched
        for kernel_size, width in self.groups:
            before, after = kernel_extent(kernel_size, self.causal)
            covered = window[:, left - before : left + tokens + after, first : first + width]
            # Repeated averages of pairs; sums could overflow in half precision.
            shift = 1
            while shift < kernel_size:
                covered = (covered[:, shift:] + covered[:, :-shift]) * 0.5
                shift *= 2
            averages.append(covered)
            first += width
        return join(averages, -1)

    @property
    @override
    def extent(self) -> tuple[int, int]:
        return kernel_extent(self.groups[-1][0], self.causal)

    @override
    def taps(self) -> Sequence[Tensor]:
        return [torch.full((1, size), 1 / size, device="cpu") for size, _ in self.groups]

    @override
    def config(self) -> dict[str, Any]:
        return super().config() | {"dim": self.dim, "levels": self.levels}

    @override
    def flops(self, tokens: int, dim: int) -> int:
        # log2(K) additions, a division and a subtraction per value.
        return tokens * sum(width * (size.bit_length() + 1) for size, width in self.groups)
