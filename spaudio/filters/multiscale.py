"""Kernels of several lengths in one representation: arXiv 2406.10254, Fig. 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.filters.bank import (
    check_activation,
    check_size,
    filterbank_valid,
    gains_config,
    gains_shape,
    reset_rows,
)
from spaudio.filters.base import TokenFilter
from spaudio.filters.functional import filterbank

SCALES = ((36, 4), (36, 8), (36, 16), (36, 32))


class MultiScaleFilterBank(TokenFilter):
    """A filterbank whose kernels have several lengths, weighed and summed as one.

    The paper shows multi-scale kernels without their numbers; the default spreads its 144 filters
    over four octaves.

    Args:
        scales: Pairs (num_filters, kernel_size), kernel sizes in tokens.
        causal: Whether a token sees only itself and the past.
        gains: ``"shared"`` for gains (M,), or ``"per_dim"`` for (dim, M); M counts all scales.
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
        """Draws each scale and the gains as ``Conv1d`` would; see :class:`FilterBank`."""
        for kernels in self.kernels:
            reset_rows(kernels)
        reset_rows(self.gains, zero=self.zero_init)

    def filtered(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """See the base class."""
        return filterbank(
            x,
            list(self.kernels),
            self.gains,
            causal=self.causal,
            padding_mask=padding_mask,
            activation=self.activation,
        )

    def valid(self, window: Tensor) -> Tensor:
        """See the base class."""
        return filterbank_valid(window, self.taps(), self.gains, self.activation)

    def taps(self) -> Sequence[Tensor]:
        """See the base class."""
        return list(self.kernels)

    def config(self) -> dict[str, Any]:
        """See the base class."""
        return {
            "name": self.name,
            "scales": [list(scale) for scale in self.scales],
            "causal": self.causal,
            **gains_config(self.gains),
            "activation": self.activation,
            "zero_init": self.zero_init,
        }

    def flops(self, tokens: int, dim: int) -> int:
        """See the base class; 2 tokens dim (sum of M_i K_i, + M)."""
        return 2 * tokens * dim * sum(m * (k + 1) for m, k in self.scales)


def check_scales(scales: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The scales as pairs (num_filters, kernel_size).

    Raises:
        ValueError: If there is none, or one is no such pair.
    """
    pairs = [tuple(scale) for scale in scales]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"scales must be pairs (num_filters, kernel_size); got {list(scales)}")
    for num_filters, kernel_size in pairs:
        check_size(num_filters, kernel_size)
    return [(num_filters, kernel_size) for num_filters, kernel_size in pairs]
