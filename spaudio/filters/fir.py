"""The filterbank without ReLU: a baseline that shows the effect of the non-linearity."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from spaudio.filters.bank import FilterBank
from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import kernel_extent
from spaudio.filters.depthwise import depthwise_window
from spaudio.filters.functional import filterbank
from spaudio.filters.precision import without_autocast


class FIRFilter(FilterBank):
    """A filterbank without activation, which is equivalent to one FIR filter of K taps.

    It is trained with the parameters of the bank and computed as the single kernel that they
    collapse to, at 1/M of the cost.

    Args:
        num_filters: M. All arguments are as for :class:`FilterBank`.
        kernel_size: K, in tokens.
        causal: Whether a token sees only itself and the past.
        gains: ``"shared"`` for one filter for all dimensions, ``"per_dim"`` for one per dimension.
        dim: Embedding dimension.
        init: Initialisation of the kernels, ``"random"`` or ``"bandpass"``.
        zero_init: Whether gains start at zero.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a size is below 1, or an option is unknown or missing.
    """

    name = "fir"

    def __init__(
        self,
        num_filters: int = 36,
        kernel_size: int = 4,
        *,
        causal: bool = False,
        gains: str = "shared",
        dim: int | None = None,
        init: str = "random",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_filters,
            kernel_size,
            causal=causal,
            gains=gains,
            dim=dim,
            activation="identity",
            init=init,
            zero_init=zero_init,
            device=device,
            dtype=dtype,
        )

    def collapsed(self) -> Tensor:
        """The FIR filter that the bank is equivalent to.

        Returns:
            (1, K) for shared gains, (dim, K) for gains per dimension, in at least float32;
            differentiable.
        """
        wider = torch.promote_types(self.gains.dtype, torch.float32)
        with without_autocast(self.gains):
            kernel = self.gains.to(wider) @ self.scale_kernels()[0].to(wider)
        return kernel.reshape(-1, self.kernel_size)

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        if self.gains.dim() == 1:  # a bank of one kernel
            kernel = self.collapsed()
            return filterbank(
                x,
                kernel,
                kernel.new_ones(1),
                causal=self.causal,
                padding_mask=padding_mask,
                activation=self.activation,
                residual=residual,
            )
        return TokenFilter.filtered(self, x, padding_mask, residual=residual)

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return depthwise_window(window, self.collapsed())

    @property
    @override
    def extent(self) -> tuple[int, int]:
        return kernel_extent(self.kernel_size, self.causal)

    @override
    def taps(self) -> Sequence[Tensor]:
        # The M kernels mean nothing individually: only their weighted sum acts on the tokens.
        return [self.collapsed()]

    @override
    def after_taps(self) -> tuple[Tensor | None, str]:
        return None, "identity"  # the gains are in the weighted sum

    @override
    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key != "activation"}

    @override
    def flops(self, tokens: int, dim: int) -> int:
        collapse = 2 * self.gains.numel() * self.kernel_size
        return 2 * tokens * dim * self.kernel_size + collapse
