"""The reference implementation of a filterbank over tokens, with conv1d.

Source: Verma & Pilanci, "Towards Signal Processing In Large Language Models", arXiv 2406.10254,
Fig. 1C. The public summary of the paper does not state the shapes; this implementation is
``Conv1d(1 -> M, K) -> ReLU -> Conv1d(M -> 1, 1x1)``, shared by all dimensions.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.filters.tracing import is_exported

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "identity": lambda value: value,
}


def check_activation(activation: str) -> None:
    """Raises ValueError if the activation is unknown."""
    if activation not in list(ACTIVATIONS):  # a list takes values that cannot be hashed
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}; got {activation!r}")


def kernel_extent(kernel_size: int, causal: bool) -> tuple[int, int]:
    """Number of tokens that a kernel covers to the left and to the right of a token.

    As many zeros before and after the tokens preserve the sequence length. Causal taps cover
    ``t-K+1 ... t``, centred ones ``t-(K-1)//2 ... t+K//2``: an even kernel reaches one token
    further into the future than into the past, as with ``padding="same"`` in ``Conv1d``.

    Args:
        kernel_size: Number of taps K, in tokens.
        causal: Whether a token sees only itself and the past.

    Returns:
        Number of tokens to the left, and to the right.
    """
    if causal:
        return kernel_size - 1, 0
    return (kernel_size - 1) // 2, kernel_size // 2


def without_padding(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """``x`` (batch, tokens, dim) with zeros at padded tokens."""
    return x if padding_mask is None else x.masked_fill(padding_mask.unsqueeze(-1), 0)


def filterbank_definition(
    x: Tensor,
    kernels: Sequence[Tensor],
    gains: Tensor,
    *,
    causal: bool,
    padding_mask: Tensor | None,
    activation: str,
) -> Tensor:
    """Filters every dimension of ``x`` along the tokens.

    This is the reference for tests: it stores the whole time-frequency representation (batch, dim,
    M, tokens) and does not check its arguments. Use :func:`spaudio.filters.filterbank` instead,
    which has the same arguments and result.
    """
    batch, tokens, dim = x.shape
    if not is_exported() and tokens == 0:  # which conv1d rejects
        return x * sum(value.sum() for value in (gains, *kernels))  # keeps them in the graph
    signals = without_padding(x, padding_mask).transpose(1, 2).reshape(batch * dim, 1, tokens)
    scales = [
        F.conv1d(F.pad(signals, kernel_extent(kernel.shape[-1], causal)), kernel.unsqueeze(1))
        for kernel in kernels
    ]
    representation = ACTIVATIONS[activation](torch.cat(scales, dim=1))
    # No einsum: torch.export cannot verify its internal reshape where the number of tokens is
    # computed from the number of samples.
    if gains.dim() == 1:
        y = F.conv1d(representation, gains.view(1, -1, 1)).view(batch, dim, tokens)
    else:
        factor = gains.unsqueeze(-1) if gains.dim() == 2 else gains.transpose(1, 2).unsqueeze(1)
        y = (representation.view(batch, dim, gains.shape[-1], tokens) * factor).sum(2)
    return without_padding(y.transpose(1, 2), padding_mask)
