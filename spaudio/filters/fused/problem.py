"""A filterbank and its input: the arguments of every backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spaudio.filters.arguments import check_device, check_tokens
from spaudio.filters.definition import without_padding


@dataclass(frozen=True)
class Problem:
    """The arguments of ``spaudio::filterbank``; see :func:`spaudio.filters.filterbank`.

    Attributes:
        x: (batch, tokens, dim).
        kernels: Kernels of all scales, flat.
        shapes: M and K of each scale in turn.
        gains: (M,), (dim, M) or (batch, tokens, M), M counting the filters of all scales.
        padding_mask: (batch, tokens), True where a token is padding, or None.
        causal: Whether taps are causal, else centred.
        activation: A key of ``ACTIVATIONS``.
        residual: Whether ``x`` is added to the output of the filters.
    """

    x: Tensor
    kernels: Tensor
    shapes: Sequence[int]
    gains: Tensor
    padding_mask: Tensor | None
    causal: bool
    activation: str
    residual: bool = False

    def check(self) -> None:
        """Raises ValueError if sizes or devices differ: native code would read other memory."""
        check_tokens(self.x, self.padding_mask)
        for value in (self.kernels, self.gains):
            check_device(self.x, value, "kernels or gains")
        pairs = list(zip(self.shapes[::2], self.shapes[1::2], strict=True))
        filters, taps = sum(m for m, _ in pairs), sum(m * k for m, k in pairs)
        batch, tokens, dim = self.x.shape
        allowed = [(filters,), (dim, filters), (batch, tokens, filters)]
        if tuple(self.kernels.shape) != (taps,) or tuple(self.gains.shape) not in allowed:
            raise ValueError(
                f"for x {tuple(self.x.shape)} and kernels (M, K) = {pairs}, spaudio::filterbank "
                f"takes {taps} taps and gains of one of the shapes {allowed}; got kernels "
                f"{tuple(self.kernels.shape)} and gains {tuple(self.gains.shape)}"
            )

    def to(self, dtype: torch.dtype, signal: torch.dtype | None = None) -> Problem:
        """Converts kernels, gains and ``x``, which takes the dtype ``signal`` if given."""
        x = self.x.to(dtype if signal is None else signal)
        return replace(self, x=x, kernels=self.kernels.to(dtype), gains=self.gains.to(dtype))

    def scales(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields views for each scale: its kernels (M, K) and its gains (..., M)."""
        first = 0
        for kernel in split(self.kernels, self.shapes):
            yield kernel, self.gains[..., first : first + kernel.shape[0]]
            first += kernel.shape[0]

    def mask(self, signal: Tensor) -> Tensor:
        """Sets padded tokens of (batch, tokens, dim) to zero."""
        return without_padding(signal, self.padding_mask)


def split(kernels: Tensor, shapes: Sequence[int]) -> list[Tensor]:
    """Splits flat ``kernels`` into views (M, K); ``shapes`` is M and K of each scale in turn."""
    pairs = list(zip(shapes[::2], shapes[1::2], strict=True))
    parts = torch.split(kernels, [filters * taps for filters, taps in pairs])
    return [part.view(pair) for part, pair in zip(parts, pairs, strict=True)]


def only(grads: Sequence[Tensor], wanted: Sequence[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, kernels and gains, with empty tensors for those not ``wanted``."""
    x, kernels, gains = (
        grad if want else grad.new_empty(0) for grad, want in zip(grads, wanted, strict=True)
    )
    return x, kernels, gains
