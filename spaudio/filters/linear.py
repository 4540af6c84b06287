"""A linear layer whose float32 training on CPUs runs on oneDNN."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.filters.tracing import is_eager

FEWEST = 128  # rows below which the call overhead exceeds the product
_BOTH: bool = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Linear(nn.Linear):
    """``nn.Linear`` that uses oneDNN instead of MKL where oneDNN is faster.

    This is the case in float32 training on an x86 CPU: on AMD processors MKL takes 1.1 times
    (Zen 4) to twice (Zen 5) as long. Results differ in rounding. Without gradients, and where the
    call is compiled, exported or transformed, torch's own implementation runs.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        if not self._is_trained(input):
            return F.linear(input, self.weight, self.bias)
        y: Tensor = _Product.apply(input, self.weight, self.bias)
        return y

    def _is_trained(self, x: Tensor) -> bool:
        return (
            is_eager()  # first: a graph for any number of rows must not depend on this one
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and x.dim() > 1
            and x.numel() >= FEWEST * x.shape[-1] > 0
            and x.shape[-1] == self.weight.shape[1]  # else torch names the two shapes
            and _BOTH
            and not torch.is_autocast_enabled("cpu")
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _multiply(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            # For a second derivative, torch must record the product.
            plain = torch.is_grad_enabled()
            dx = (grad @ weight if plain else _multiply(grad, weight.t(), None)).view(x.shape)
        if ctx.needs_input_grad[1]:
            dweight = grad.t() @ x.reshape(-1, weight.shape[1])
        return dx, dweight, grad.sum(0) if ctx.has_bias else None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y
