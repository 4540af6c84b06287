"""One linear kernel a dimension: the Canon layer, a near relative of the filterbank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.filters.bank import check_size, reset_rows
from spaudio.filters.base import TokenFilter, check_tokens


class DepthwiseFilter(TokenFilter):
    """Residual depthwise convolution over tokens: one kernel a dimension, no activation, no bias.

    With four causal taps, the default, it is the Canon layer of "Physics of Language Models: Part
    4.1" (arXiv 2512.17351); Primer (arXiv 2109.08668) does the like with three taps.

    Args:
        dim: Embedding dimensions.
        kernel_size: K, in tokens.
        causal: Whether a token sees only itself and the past.
        zero_init: Whether kernels start at zero, which makes the module the identity at first.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: If a size is below 1.
    """

    name = "depthwise"

    def __init__(
        self,
        dim: int,
        kernel_size: int = 4,
        *,
        causal: bool = False,
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(causal=causal)
        check_size(dim, kernel_size)
        self.dim = dim
        self.kernel_size = kernel_size
        self.zero_init = zero_init
        self.kernels = nn.Parameter(torch.empty(dim, kernel_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the kernels as ``Conv1d(dim, dim, K, groups=dim)``: uniform within 1/sqrt(K)."""
        reset_rows(self.kernels, zero=self.zero_init)

    def filtered(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """See the base class."""
        check_tokens(x, padding_mask, self.dim)
        return super().filtered(x, padding_mask)

    def valid(self, window: Tensor) -> Tensor:
        """See the base class."""
        return depthwise_valid(window, self.kernels)

    def taps(self) -> Sequence[Tensor]:
        """See the base class."""
        return [self.kernels]

    def config(self) -> dict[str, Any]:
        """See the base class."""
        return {
            "name": self.name,
            "dim": self.dim,
            "kernel_size": self.kernel_size,
            "causal": self.causal,
            "zero_init": self.zero_init,
        }

    def flops(self, tokens: int, dim: int) -> int:
        """See the base class; 2 tokens dim K."""
        return 2 * tokens * dim * self.kernel_size


def depthwise_valid(window: Tensor, kernels: Tensor) -> Tensor:
    """Filters each dimension by its own kernel, without padding.

    Args:
        window: (batch, K - 1 + tokens, dim).
        kernels: (dim, K), or (1, K) for one kernel for all dimensions.

    Returns:
        (batch, tokens, dim).
    """
    dim = window.shape[-1]
    # As an image of one row whose channels lie innermost, which is how tokens lie: torch convolves
    # it as it is. conv1d would reorder it, and forward + backward of four taps in float32 would
    # take almost three times as long (CPU; with 32 taps from half to 1.4 times).
    image = window.transpose(1, 2).unsqueeze(2)
    weight = kernels.expand(dim, -1)[:, None, None]
    return F.conv2d(image, weight, groups=dim).squeeze(2).transpose(1, 2)
