"""Filterbanks of arXiv 2406.10254: kernels of one length (Fig. 1C) or of several (Fig. 3)."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.arguments import check_device, check_flag, check_size
from spaudio.filters.bandpass import check_init, reset_bandpass
from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import ACTIVATIONS, check_activation, kernel_extent
from spaudio.filters.functional import filterbank
from spaudio.filters.precision import without_autocast

SCALES = ((36, 4), (36, 8), (36, 16), (36, 32))


class _Bank(TokenFilter):
    """Kernels, an activation and gains: what all filterbanks share.

    Args:
        kernels: Kernels (M, K), or a list of such kernels; not initialised.
        causal: As for :class:`FilterBank`, as are all arguments below.
        gains: ``"shared"`` or ``"per_dim"``.
        dim: Embedding dimension.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        init: Initialisation of the kernels.
        zero_init: Whether gains start at zero.
    """

    def __init__(
        self,
        kernels: nn.Parameter | nn.ParameterList,
        *,
        causal: bool,
        gains: str,
        dim: int | None,
        activation: str,
        init: str,
        zero_init: bool,
    ) -> None:
        super().__init__(causal=causal)
        check_activation(activation)
        check_init(init)
        self.activation = activation
        self.init = init
        check_flag(zero_init=zero_init)
        self.zero_init = zero_init
        self.kernels = kernels
        self.num_filters = sum(len(kernel) for kernel in self.scale_kernels())
        self.dim = dim if gains == "per_dim" else None
        shape = gains_shape(gains, self.num_filters, dim)
        self.gains = nn.Parameter(self.scale_kernels()[0].new_empty(shape))
        self.reset_parameters()

    def scale_kernels(self) -> list[Tensor]:
        """The kernels (M_i, K_i) of each scale."""
        # torch.func.functional_call replaces the parameter by a plain tensor.
        return [self.kernels] if isinstance(self.kernels, Tensor) else list(self.kernels)

    def reset_parameters(self) -> None:
        """Initialises kernels and gains as ``Conv1d(1, M, K)`` and ``Conv1d(M, 1, 1)`` do.

        Kernels are uniform within ±1/sqrt(K), or set by
        :func:`spaudio.filters.bandpass.reset_bandpass`; gains are uniform within ±1/sqrt(M).
        """
        for kernels in self.scale_kernels():
            (reset_bandpass if self.init == "bandpass" else reset_rows)(kernels)
        reset_rows(self.gains, zero=self.zero_init)

    @override
    def filtered(
        self, x: Tensor, padding_mask: Tensor | None = None, *, residual: bool = False
    ) -> Tensor:
        return filterbank(
            x,
            self.scale_kernels(),
            self.gains,
            causal=self.causal,
            padding_mask=padding_mask,
            activation=self.activation,
            residual=residual,
        )

    @override
    def convolve(self, window: Tensor) -> Tensor:
        return filterbank_window(
            window, self.scale_kernels(), self.gains, self.activation, causal=self.causal
        )

    @override
    def taps(self) -> Sequence[Tensor]:
        return self.scale_kernels()

    @override
    def after_taps(self) -> tuple[Tensor | None, str]:
        return self.gains, self.activation

    @override
    def config(self) -> dict[str, Any]:
        gains: dict[str, Any] = {"gains": "shared"}
        if self.gains.dim() == 2:
            gains = {"gains": "per_dim", "dim": self.gains.shape[0]}
        options = {
            "activation": self.activation,
            "init": self.init,
            "zero_init": self.zero_init,
        }
        return super().config() | gains | options

    @override
    def flops(self, tokens: int, dim: int) -> int:
        return sum(2 * tokens * dim * len(k) * (k.shape[1] + 1) for k in self.scale_kernels())


class FilterBank(_Bank):
    """M learned kernels over tokens, ReLU, learned gains, a sum and a residual.

    ``y = x + sum_m gain_m * relu(kernel_m * x)``, the same for every embedding dimension. With
    shared gains it has M (K + 1) parameters. It has no bias and does not mix dimensions. Source:
    arXiv 2406.10254, Fig. 1C, which has M = 144 and does not give K. The defaults saved more
    training time than larger banks in our study of text (``recipes/text8/RESULTS.md``).

    Args:
        num_filters: M.
        kernel_size: K, in tokens.
        causal: Whether a token sees only itself and the past. This changes only the padding.
        gains: ``"shared"`` for gains (M,), or ``"per_dim"`` for (dim, M).
        dim: Embedding dimension; needed for ``gains="per_dim"``.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        init: Initialisation of the kernels: ``"random"``, or ``"bandpass"``, filters over
            modulation frequency; see :func:`spaudio.filters.bandpass.reset_bandpass`.
        zero_init: Whether gains start at zero, which makes the module the identity at first.
        device: Device of the parameters.
        dtype: Data type of the parameters.

    Raises:
        ValueError: If a size is below 1, or an option is unknown or missing.
    """

    name = "bank"

    def __init__(
        self,
        num_filters: int = 36,
        kernel_size: int = 4,
        *,
        causal: bool = False,
        gains: str = "shared",
        dim: int | None = None,
        activation: str = "relu",
        init: str = "random",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size(num_filters=num_filters, kernel_size=kernel_size)
        super().__init__(
            nn.Parameter(torch.empty(num_filters, kernel_size, device=device, dtype=dtype)),
            causal=causal,
            gains=gains,
            dim=dim,
            activation=activation,
            init=init,
            zero_init=zero_init,
        )
        self.kernel_size = kernel_size

    @override
    def config(self) -> dict[str, Any]:
        sizes = {"num_filters": self.num_filters, "kernel_size": self.kernel_size}
        return super().config() | sizes


class MultiScaleFilterBank(_Bank):
    """A filterbank with kernels of several lengths, whose outputs are weighted and summed together.

    Source: arXiv 2406.10254, Fig. 3, which does not state the sizes of its multi-scale kernels. The
    default divides the paper's 144 kernels among four lengths, an octave apart.

    Args:
        scales: Pairs (num_filters, kernel_size), kernel sizes in tokens; M is the total.
        causal: As for :class:`FilterBank`, as are all arguments below.
        gains: ``"shared"`` or ``"per_dim"``.
        dim: Embedding dimension.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        init: ``"random"``, or ``"bandpass"`` for each scale.
        zero_init: Whether gains start at zero.
        device: Device of the parameters.
        dtype: Data type of the parameters.

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
        init: str = "random",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(scales, Iterable):
            raise ValueError(f"scales must be pairs (num_filters, kernel_size); got {scales!r}")
        scales = list(scales)  # an iterator could not be shown in the message
        pairs = [tuple(scale) if isinstance(scale, Iterable) else () for scale in scales]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"scales must be pairs (num_filters, kernel_size); got {scales}")
        for filters, size in pairs:
            check_size(num_filters=filters, kernel_size=size)
        super().__init__(
            nn.ParameterList(torch.empty(*pair, device=device, dtype=dtype) for pair in pairs),
            causal=causal,
            gains=gains,
            dim=dim,
            activation=activation,
            init=init,
            zero_init=zero_init,
        )

    @override
    def config(self) -> dict[str, Any]:
        return super().config() | {"scales": [list(k.shape) for k in self.scale_kernels()]}


def filterbank_window(
    window: Tensor, kernels: Sequence[Tensor], gains: Tensor, activation: str, *, causal: bool
) -> Tensor:
    """Filters the tokens of a window that includes their neighbours, for streaming.

    Unlike :func:`spaudio.filters.filterbank`, it does not recompute the outputs of past tokens. It
    maps (batch, K - 1 + tokens, dim), where K is the size of the longest kernel, to (batch, tokens,
    dim). As there, sums are computed in at least float32, also under autocast: in half precision
    they could overflow.
    """
    parameters = (gains, *kernels)
    for parameter in parameters:
        check_device(window, parameter, "the filter")
    longest = max(kernel.shape[-1] for kernel in kernels)
    if window.shape[1] < longest:  # no tokens, which unfold rejects
        return window[:, :0] * sum(p.sum() for p in parameters)  # keeps them in the graph
    left, _ = kernel_extent(longest, causal)
    types = (value.dtype for value in (window, *parameters))
    dtype = functools.reduce(torch.promote_types, types, torch.float32)
    with without_autocast(window):
        slices = window.to(dtype).unfold(1, longest, 1)
        scales = []
        for kernel in kernels:
            taps = kernel.shape[-1]
            first = left - kernel_extent(taps, causal)[0]
            scales.append(F.linear(slices[..., first : first + taps], kernel.to(dtype)))
        representation = ACTIVATIONS[activation](torch.cat(scales, dim=-1))
        weights = {1: "m", 2: "dm", 3: "btm"}[gains.dim()]
        y = torch.einsum(f"btdm,{weights}->btd", representation, gains.to(dtype))
    return y.to(window.dtype)


def gains_shape(gains: str, num_filters: int, dim: int | None) -> tuple[int, ...]:
    """Returns the shape of the gains: (M,) for ``"shared"``, (dim, M) for ``"per_dim"``.

    Raises:
        ValueError: If ``gains`` is neither, or there is no ``dim`` for ``"per_dim"``.
    """
    if gains == "shared":
        return (num_filters,)
    if gains != "per_dim":
        raise ValueError(f"gains must be 'shared' or 'per_dim'; got {gains!r}")
    if dim is None:
        raise ValueError("gains='per_dim' needs dim, the embedding dimensions")
    check_size(dim=dim)
    return (dim, num_filters)


def reset_rows(weight: Tensor, *, zero: bool = False) -> None:
    """Draws rows (..., n) uniformly within ±1/sqrt(n), as ``Conv1d`` does for fan-in n."""
    bound = 0.0 if zero else 1 / math.sqrt(weight.shape[-1])
    nn.init.uniform_(weight, -bound, bound)
