"""The definition of a filterbank over tokens, written with conv1d: the oracle of every faster path.

Reference: Verma & Pilanci, "Towards Signal Processing In Large Language Models", arXiv 2406.10254,
Fig. 1C. The public summary of the paper leaves shapes open; ours is the reading
``Conv1d(1 -> M, K) -> ReLU -> Conv1d(M -> 1, 1x1)``, shared by all dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "identity": lambda value: value,
}


def padding(kernel_size: int, causal: bool) -> tuple[int, int]:
    """Zeros that go before and after the tokens so that output and input have the same length.

    They are also the receptive field to the left and right of a token. Causal taps cover
    ``t-K+1 ... t``; centred ones ``t-(K-1)//2 ... t+K//2``, so an even kernel reaches one token
    further into the future than into the past, as ``padding="same"`` does in ``Conv1d``.

    Args:
        kernel_size: Number of taps K, in tokens.
        causal: Whether a token may see only itself and the past.

    Returns:
        Tokens to the left, tokens to the right.
    """
    if causal:
        return kernel_size - 1, 0
    return (kernel_size - 1) // 2, kernel_size // 2


def filterbank_definition(
    x: Tensor,
    kernels: Sequence[Tensor],
    gains: Tensor,
    *,
    causal: bool,
    padding_mask: Tensor | None,
    activation: str,
) -> Tensor:
    """Filters every dimension of ``x`` along the tokens, by the book.

    It holds the whole time-frequency representation, (batch, dim, M, tokens); use
    :func:`spaudio.filters.filterbank`, which checks its arguments, unless you need an oracle.

    Args:
        x: Token embeddings (batch, tokens, dim).
        kernels: One tensor (M_i, K_i) a scale. Taps are applied as ``Conv1d`` applies them
            (cross-correlation): the last tap of a causal kernel weighs the current token.
        gains: (M,), (dim, M) or (batch, tokens, M), where M = sum of all M_i, in order of scale.
        causal: Causal or centred taps; see :func:`padding`.
        padding_mask: (batch, tokens), True where a token is padding, or None.
        activation: A key of ``ACTIVATIONS``.

    Returns:
        (batch, tokens, dim), without the residual.
    """
    batch, tokens, dim = x.shape
    if padding_mask is not None:
        x = x.masked_fill(padding_mask.unsqueeze(-1), 0)
    signals = x.transpose(1, 2).reshape(batch * dim, 1, tokens)
    scales = [
        F.conv1d(F.pad(signals, padding(kernel.shape[-1], causal)), kernel.unsqueeze(1))
        for kernel in kernels
    ]
    representation = ACTIVATIONS[activation](torch.cat(scales, dim=1))
    # No einsum: it reshapes inside, which torch.export cannot prove where the number of tokens is
    # itself computed from that of samples.
    if gains.dim() == 1:
        y = F.conv1d(representation, gains.view(1, -1, 1)).view(batch, dim, tokens)
    else:
        factor = gains.unsqueeze(-1) if gains.dim() == 2 else gains.transpose(1, 2).unsqueeze(1)
        y = (representation.view(batch, dim, gains.shape[-1], tokens) * factor).sum(2)
    y = y.transpose(1, 2)
    if padding_mask is not None:
        y = y.masked_fill(padding_mask.unsqueeze(-1), 0)
    return y
