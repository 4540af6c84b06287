"""A filterbank with kernels of several lengths: arXiv 2406.10254, Fig. 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.bank import (
    check_activation,
    check_size,
    filterbank_window,
    gains_config,
    gains_shape,
    reset_rows,
)
from spaudio.filters.base import TokenFilter
from spaudio.filters.functional import filterbank

SCALES = ((36, 4), (36, 8), (36, 16), (36, 32))


class MultiScaleFilterBank(TokenFilter):
    """A filterbank with kernels of several lengths, whose outputs are weighted and summed together.

    The paper does not state the sizes of its multi-scale kernels. The default has its 144 filters,
    spread over four octaves.

    Args:
        scales: Pairs (num_filters, kernel_size), kernel sizes in tokens.
        causal: Whether a token sees only itself and the past.
        gains: ``"shared"`` for gains (M,), or ``"per_dim"`` for (dim, M); M is the total.
        dim: Embedding dimensions; needed for ``gains="per_dim"``.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        zero_init: Whether gains start at zero, which makes the module the identity at first.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: If there is no scale, a size is below 1, or an option is unknown or missing.
    """

    name = "multiscale"

    def __init__(
        self,
        scales: Sequence[tuple[int, int]] = SCALES,
        *,
        causal: bool = False,
        gains: str = "shared",
        dim: int | None = None,
        activation: str = "relu",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(causal=causal)
        self.scales = check_scales(scales)
        check_activation(activation)
        self.num_filters = sum(num_filters for num_filters, _ in self.scales)
        self.activation = activation
        self.zero_init = zero_init
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.kernels = nn.ParameterList(torch.empty(*scale, **factory) for scale in self.scales)
        self.gains = nn.Parameter(torch.empty(gains_shape(gains, self.num_filters, dim), **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises each scale and the gains as :class:`FilterBank` does."""
        for kernels in self.kernels:
            reset_rows(kernels)
        reset_rows(self.gains, zero=self.zero_init)

    @override
    def filtered(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return filterbank(
            x,
            list(self.kernels),
            self.gains,
            causal=self.causal,
            padding_mask=padding_mask,
            activation=self.activation,
        )

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return filterbank_window(window, self.taps(), self.gains, self.activation)

    @override
    def taps(self) -> Sequence[Tensor]:
        return list(self.kernels)

    @override
    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "scales": [list(scale) for scale in self.scales],
            "causal": self.causal,
            **gains_config(self.gains),
            "activation": self.activation,
            "zero_init": self.zero_init,
        }

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return 2 * tokens * dim * sum(m * (k + 1) for m, k in self.scales)


def check_scales(scales: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Converts scales to pairs (num_filters, kernel_size).

    Raises:
        ValueError: If there is no scale, or one is not such a pair.
    """
    pairs = [tuple(scale) for scale in scales]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"scales must be pairs (num_filters, kernel_size); got {list(scales)}")
    for num_filters, kernel_size in pairs:
        check_size(num_filters, kernel_size)
    return [(num_filters, kernel_size) for num_filters, kernel_size in pairs]
