"""A shape of a filter benchmark, with its inputs and passes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.filters import filterbank
from spaudio.filters.definition import kernel_extent, without_padding
from spaudio.filters.fused.depthwise_op import native_depthwise


@dataclass(frozen=True)
class Shape:
    """A batch of tokens and a filterbank, or a depthwise filter.

    Attributes:
        name: Short name for the command line.
        batch: Batch size.
        tokens: Tokens per item.
        dim: Embedding dimensions.
        bank: Number of filters and taps of each scale.
        dtype: Type of the tokens; kernels and gains are float32.
        depthwise: The one scale has a kernel for each dimension. The residual is added, and an
            eighth of the tokens is padding. The reference is ``conv1d`` in groups, whose kernels
            have the type of the tokens, as under autocast; the other backend is ``cpu``.
    """

    name: str
    batch: int
    tokens: int
    dim: int
    bank: tuple[tuple[int, int], ...]
    dtype: str = "float32"
    depthwise: bool = False

    @property
    def operations(self) -> int:
        """Number of additions and multiplications in a product of all kernels with all windows.

        Not of a depthwise filter, whose kernels see one dimension each.
        """
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
        call, _, _ = self._call(backend, device)
        return torch.no_grad()(call)

    def step(self, backend: str, device: str = "cpu") -> Callable[[], tuple[Tensor, ...]]:
        """Returns a function that runs both passes and returns the result and all gradients."""
        call, leaves, grad = self._call(backend, device)

        def run() -> tuple[Tensor, ...]:
            y = call()
            return y.detach(), *torch.autograd.grad(y, leaves, grad)

        return run

    def _call(self, backend: str, device: str) -> tuple[Callable[[], Tensor], list[Tensor], Tensor]:
        """Returns the forward pass, what it is differentiated by, and the result's gradient."""
        x, kernels, gains, grad = self.inputs(device)
        if not self.depthwise:
            return (
                lambda: filterbank(x, kernels, gains, backend=backend),
                [x, gains, *kernels],
                grad,
            )
        (taps,) = kernels
        padded = torch.arange(self.tokens, device=device) >= self.tokens - self.tokens // 8
        mask = padded.repeat(self.batch, 1)
        if backend == "cpu":
            return lambda: native_depthwise(x, taps, mask, False), [x, taps], grad

        def reference() -> Tensor:
            window = without_padding(x, mask).transpose(1, 2)
            window = F.pad(window, kernel_extent(taps.shape[1], causal=False))
            y = F.conv1d(window, taps.to(x.dtype).unsqueeze(1), groups=self.dim).transpose(1, 2)
            return x + without_padding(y, mask)

        return reference, [x, taps], grad
