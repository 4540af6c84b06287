"""The shapes that are measured, and a filter step of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from spaudio.filters import filterbank


@dataclass(frozen=True)
class Shape:
    """A batch of tokens and a filterbank.

    Attributes:
        name: Short, for the table.
        batch: Items.
        tokens: Tokens an item.
        dim: Width of the embeddings.
        bank: Filters and taps of each scale.
    """

    name: str
    batch: int
    tokens: int
    dim: int
    bank: tuple[tuple[int, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; :meth:`from_dict` undoes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Shape:
        """The shape that :meth:`as_dict` described."""
        bank = tuple((filters, taps) for filters, taps in values["bank"])
        return cls(**{**values, "bank": bank})

    @property
    def operations(self) -> int:
        """Additions and multiplications of one product of all kernels with all windows."""
        return 2 * self.batch * self.tokens * self.dim * sum(m * k for m, k in self.bank)

    def inputs(self, device: str = "cpu") -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """x, kernels and gains, which need gradients, and the gradient of the result."""
        generator = torch.Generator().manual_seed(0)
        size = (self.batch, self.tokens, self.dim)
        filters = sum(m for m, _ in self.bank)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        x, grad = normal(*size), normal(*size)
        kernels = [normal(*k).requires_grad_() for k in self.bank]
        gains = normal(filters).requires_grad_()
        return x.requires_grad_(), kernels, gains, grad

    def forward(self, backend: str, device: str = "cpu") -> Callable[[], Tensor]:
        """A forward pass that keeps nothing for a backward pass."""
        x, kernels, gains, _ = self.inputs(device)

        def run() -> Tensor:
            with torch.no_grad():
                return filterbank(x, kernels, gains, backend=backend)

        return run

    def step(self, backend: str, device: str = "cpu") -> Callable[[], tuple[Tensor, ...]]:
        """A forward and a backward pass; returns the result and all gradients."""
        x, kernels, gains, grad = self.inputs(device)

        def run() -> tuple[Tensor, ...]:
            y = filterbank(x, kernels, gains, backend=backend)
            return y.detach(), *torch.autograd.grad(y, [x, gains, *kernels], grad)

        return run
