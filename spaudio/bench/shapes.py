"""A shape of a filterbank benchmark, with its inputs and passes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spaudio.filters import filterbank


@dataclass(frozen=True)
class Shape:
    """A batch of tokens and a filterbank.

    Attributes:
        name: Short name for the command line.
        batch: Batch size.
        tokens: Tokens per item.
        dim: Embedding dimensions.
        bank: Number of filters and taps of each scale.
        dtype: Type of the tokens; kernels and gains are float32.
    """

    name: str
    batch: int
    tokens: int
    dim: int
    bank: tuple[tuple[int, int], ...]
    dtype: str = "float32"

    @property
    def operations(self) -> int:
        """Number of additions and multiplications in a product of all kernels with all windows."""
        return 2 * self.batch * self.tokens * self.dim * sum(m * k for m, k in self.bank)

    def inputs(self, device: str = "cpu") -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Returns x, kernels and gains, which require gradients, and the gradient of the result."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        size = (self.batch, self.tokens, self.dim)
        x, grad = (normal(*size).to(getattr(torch, self.dtype)) for _ in range(2))
        kernels = [normal(*scale).requires_grad_() for scale in self.bank]
        gains = normal(sum(filters for filters, _ in self.bank)).requires_grad_()
        return x.requires_grad_(), kernels, gains, grad

    def forward(self, backend: str, device: str = "cpu") -> Callable[[], Tensor]:
        """Returns a forward pass without gradients."""
        x, kernels, gains, _ = self.inputs(device)
        return torch.no_grad()(lambda: filterbank(x, kernels, gains, backend=backend))

    def step(self, backend: str, device: str = "cpu") -> Callable[[], tuple[Tensor, ...]]:
        """Returns a function that runs both passes and returns the result and all gradients."""
        x, kernels, gains, grad = self.inputs(device)

        def run() -> tuple[Tensor, ...]:
            y = filterbank(x, kernels, gains, backend=backend)
            return y.detach(), *torch.autograd.grad(y, [x, gains, *kernels], grad)

        return run
