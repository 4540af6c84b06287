"""One linear kernel per dimension: the Canon layer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.arguments import check_flag, check_kernels, check_size, check_tokens
from spaudio.filters.bank import reset_rows
from spaudio.filters.base import TokenFilter
from spaudio.filters.fused.depthwise_op import is_native, native_depthwise
from spaudio.filters.precision import wider_type

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
}


class DepthwiseFilter(TokenFilter):
    """Residual depthwise convolution over tokens: one kernel per dimension, no bias.

    With four causal taps it is the Canon layer of "Physics of Language Models: Part 4.1"
    (arXiv 2512.17351). Primer (arXiv 2109.08668) uses three taps.

    Under autocast, float32 tokens are rounded to autocast's dtype, as by ``conv1d``. Exception: on
    a CPU, in eager mode and without an activation, whole unpacked sequences stay in float32.

    Args:
        dim: Embedding dimension.
        kernel_size: K, in tokens.
        causal: Whether a token sees only itself and the past.
        activation: Applied before the residual is added: ``"relu"``, ``"silu"`` or ``"gelu"``;
            None or ``"identity"`` for none.
        zero_init: Whether kernels start at zero, which makes the module the identity at first.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a size is below 1, the activation is unknown, or kernels that start at zero
            would stay there, as with ``"relu"``.
    """

    name = "depthwise"

    def __init__(
        self,
        dim: int,
        kernel_size: int = 4,
        *,
        causal: bool = False,
        activation: str | None = None,
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(causal=causal)
        check_size(dim=dim, kernel_size=kernel_size)
        if activation == "identity":  # as a bank calls it
            activation = None
        if activation is not None and activation not in list(ACTIVATIONS):
            raise ValueError(
                f"activation must be None or one of {['identity', *sorted(ACTIVATIONS)]}; got "
                f"{activation!r}"
            )
        check_flag(zero_init=zero_init)
        if zero_init and activation == "relu":
            raise ValueError(
                "kernels that start at zero get no gradient through activation='relu'; use 'silu' "
                "or 'gelu', or pass zero_init=False"
            )
        self.dim = dim
        self.activation = activation
        self.kernel_size = kernel_size
        self.zero_init = zero_init
        self.kernels = nn.Parameter(torch.empty(dim, kernel_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as ``Conv1d(dim, dim, K, groups=dim)`` does: uniform within ±1/sqrt(K)."""
        reset_rows(self.kernels, zero=self.zero_init)

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        check_tokens(x, padding_mask, self.dim)
        if not residual or self.activation is not None or not is_native(x, self.kernels):
            return super().filtered(x, padding_mask, residual=residual)
        y: Tensor = native_depthwise(x, self.kernels, padding_mask, self.causal)
        return y

    @override
    def convolve(self, window: Tensor) -> Tensor:
        check_kernels(self.kernels, window.shape[-1])  # (1, K) would be used for all dimensions
        y = depthwise_window(window, self.kernels)
        return y if self.activation is None else ACTIVATIONS[self.activation](y)

    @override
    def taps(self) -> Sequence[Tensor]:
        return [self.kernels]

    @override
    def after_taps(self) -> tuple[Tensor | None, str]:
        return None, self.activation or "identity"

    @override
    def config(self) -> dict[str, Any]:
        sizes = {"dim": self.dim, "kernel_size": self.kernel_size}
        options = {"activation": self.activation, "zero_init": self.zero_init}
        return super().config() | sizes | options

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return 2 * tokens * dim * self.kernel_size


def depthwise_window(window: Tensor, kernels: Tensor) -> Tensor:
    """Filters each dimension of (batch, K - 1 + tokens, dim) with its own kernel, unpadded.

    ``kernels`` are (dim, K), or (1, K) for one kernel shared by all dimensions.
    """
    dim = window.shape[-1]
    wider = wider_type(window, kernels)
    if window.shape[1] < kernels.shape[-1]:  # no tokens, which conv2d rejects
        return window[:, :0] * kernels.sum()  # keeps the kernels in the graph
    if wider is not None:
        return depthwise_window(window.to(wider), kernels.to(wider)).to(window.dtype)
    # An image of one row in channels-last format has the layout of tokens, so torch does not
    # reorder it. On a CPU, forward and backward in float32 with conv1d take almost three
    # times as long for 4 taps, and 0.5 to 1.4 times as long for 32.
    image = window.transpose(1, 2).unsqueeze(2)
    weight = kernels.expand(dim, -1)[:, None, None]
    return F.conv2d(image, weight, groups=dim).squeeze(2).transpose(1, 2)
