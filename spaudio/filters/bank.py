"""The filterbank of arXiv 2406.10254, Fig. 1C, as a module: M kernels shared by all dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import ACTIVATIONS
from spaudio.filters.functional import filterbank


class FilterBank(TokenFilter):
    """M learned kernels over tokens, ReLU, learned gains, a sum and a residual.

    ``y = x + sum_m gain_m * relu(kernel_m * x)``, the same for every embedding dimension. With
    shared gains it has M (K + 1) parameters. It has no bias and does not mix dimensions.

    Args:
        num_filters: M.
        kernel_size: K, in tokens.
        causal: Whether a token sees only itself and the past. A choice of padding.
        gains: ``"shared"`` for gains (M,), or ``"per_dim"`` for (dim, M).
        dim: Embedding dimensions; needed for ``gains="per_dim"``.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        zero_init: Whether gains start at zero, which makes the module the identity at first.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: If a size is below 1, or an option is unknown or missing.
    """

    name = "bank"

    def __init__(
        self,
        num_filters: int = 144,
        kernel_size: int = 16,
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
        check_size(num_filters, kernel_size)
        check_activation(activation)
        self.num_filters = num_filters
        self.kernel_size = kernel_size
        self.activation = activation
        self.zero_init = zero_init
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.kernels = nn.Parameter(torch.empty(num_filters, kernel_size, **factory))
        self.gains = nn.Parameter(torch.empty(gains_shape(gains, num_filters, dim), **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises kernels and gains as ``Conv1d(1, M, K)`` and ``Conv1d(M, 1, 1)``.

        Kernels are uniform within ±1/sqrt(K), gains within ±1/sqrt(M).
        """
        reset_rows(self.kernels)
        reset_rows(self.gains, zero=self.zero_init)

    @override
    def filtered(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return filterbank(
            x,
            self.kernels,
            self.gains,
            causal=self.causal,
            padding_mask=padding_mask,
            activation=self.activation,
        )

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return filterbank_window(window, [self.kernels], self.gains, self.activation)

    @override
    def taps(self) -> Sequence[Tensor]:
        return [self.kernels]

    @override
    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "num_filters": self.num_filters,
            "kernel_size": self.kernel_size,
            "causal": self.causal,
            **gains_config(self.gains),
            "activation": self.activation,
            "zero_init": self.zero_init,
        }

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return 2 * tokens * dim * self.num_filters * (self.kernel_size + 1)


def filterbank_window(
    window: Tensor, kernels: Sequence[Tensor], gains: Tensor, activation: str
) -> Tensor:
    """Filters the last tokens of a window, for streaming.

    Unlike :func:`spaudio.filters.filterbank`, it does not compute the outputs of the K - 1 past
    tokens again.

    Args:
        window: (batch, K - 1 + tokens, dim), where K is the size of the longest kernel.
        kernels: One tensor (M_i, K_i) per scale, causal.
        gains: (M,), (dim, M) or (batch, tokens, M).
        activation: A key of ``ACTIVATIONS``.

    Returns:
        (batch, tokens, dim).
    """
    slices = window.unfold(1, max(kernel.shape[-1] for kernel in kernels), 1)
    scales = [F.linear(slices[..., -kernel.shape[-1] :], kernel) for kernel in kernels]
    representation = ACTIVATIONS[activation](torch.cat(scales, dim=-1))
    weights = {1: "m", 2: "dm", 3: "btm"}[gains.dim()]
    return torch.einsum(f"btdm,{weights}->btd", representation, gains)


def check_size(num_filters: int, kernel_size: int) -> None:
    """Raises ValueError if a size is below 1."""
    if num_filters < 1 or kernel_size < 1:
        raise ValueError(
            "num_filters and kernel_size must be at least 1; "
            f"got num_filters={num_filters}, kernel_size={kernel_size}"
        )


def check_activation(activation: str) -> None:
    """Raises ValueError if the activation is unknown."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")


def gains_shape(gains: str, num_filters: int, dim: int | None) -> tuple[int, ...]:
    """Shape of the gains: (M,) for ``"shared"``, (dim, M) for ``"per_dim"``."""
    if gains == "shared":
        return (num_filters,)
    if gains != "per_dim":
        raise ValueError(f"gains must be 'shared' or 'per_dim'; got {gains!r}")
    if dim is None or dim < 1:
        raise ValueError(f"gains='per_dim' needs dim, the embedding dimensions; got dim={dim}")
    return (dim, num_filters)


def gains_config(gains: Tensor) -> dict[str, Any]:
    """The options of :func:`gains_shape` that give gains of this shape."""
    if gains.dim() == 1:
        return {"gains": "shared"}
    return {"gains": "per_dim", "dim": gains.shape[0]}


def reset_rows(weight: Tensor, *, zero: bool = False) -> None:
    """Draws rows (..., n) uniformly within ±1/sqrt(n), as ``Conv1d`` does for fan-in n."""
    bound = 0.0 if zero else 1 / math.sqrt(weight.shape[-1])
    nn.init.uniform_(weight, -bound, bound)
