"""The filterbank as a function: arguments checked, then handed to a backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spaudio.filters.definition import ACTIVATIONS, filterbank_definition


def filterbank(
    x: Tensor,
    kernels: Tensor | Sequence[Tensor],
    gains: Tensor,
    *,
    causal: bool = False,
    padding_mask: Tensor | None = None,
    activation: str = "relu",
) -> Tensor:
    """Decomposes every dimension along the tokens, rectifies, weighs by gains and sums.

    Per batch item and dimension: ``Conv1d(1 -> M, K)`` over tokens, ReLU, a 1x1 weighting by the
    gains, a sum over the M filters; tokens outside the sequence count as zeros. This is the
    filtered signal of arXiv 2406.10254, Fig. 1C, without the residual.

    Args:
        x: Token embeddings (batch, tokens, dim), floating point.
        kernels: (M, K), or a sequence of such tensors for several scales. Taps are applied as
            ``Conv1d`` applies them: causal ones cover tokens ``t-K+1 ... t``, centred ones
            ``t-(K-1)//2 ... t+K//2``.
        gains: (M,) shared by all dimensions, (dim, M), or (batch, tokens, M). With several scales
            M counts the filters of all, in order.
        causal: Whether a token may see only itself and the past. A choice of padding.
        padding_mask: Boolean (batch, tokens), True where a token is padding. Such tokens count as
            zeros on the way in and come out as zeros.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.

    Returns:
        (batch, tokens, dim), of the type of ``x``.

    Raises:
        ValueError: If a shape, type or option does not fit; the message names it.
    """
    scales = [kernels] if isinstance(kernels, Tensor) else list(kernels)
    _check(x, scales, gains, padding_mask, activation)
    return filterbank_definition(
        x, scales, gains, causal=causal, padding_mask=padding_mask, activation=activation
    )


def _check(
    x: Tensor, kernels: list[Tensor], gains: Tensor, padding_mask: Tensor | None, activation: str
) -> None:
    """Raises ValueError where arguments do not fit together."""
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(
            f"x must be floating point (batch, tokens, dim); got {x.dtype} {tuple(x.shape)}"
        )
    if not kernels or any(k.dim() != 2 or 0 in k.shape for k in kernels):
        shapes = [tuple(k.shape) for k in kernels]
        raise ValueError(f"kernels must be (M, K), M and K at least 1, for each scale; got {shapes}")
    batch, tokens, dim = x.shape
    filters = sum(k.shape[0] for k in kernels)
    allowed = [(filters,), (dim, filters), (batch, tokens, filters)]
    if tuple(gains.shape) not in allowed:
        raise ValueError(f"gains must have one of the shapes {allowed}; got {tuple(gains.shape)}")
    if padding_mask is not None and (
        padding_mask.dtype != torch.bool or padding_mask.shape != (batch, tokens)
    ):
        raise ValueError(
            f"padding_mask must be boolean (batch, tokens) = {(batch, tokens)}, True where a token "
            f"is padding; got {padding_mask.dtype} {tuple(padding_mask.shape)}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")
