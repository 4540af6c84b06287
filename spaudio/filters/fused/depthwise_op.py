"""The depthwise filter as an operator of the native library, ``spaudio::depthwise``.

It computes in float32 and rounds the result once, also under autocast.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spaudio.filters.arguments import check_gradient, check_kernels, check_tokens
from spaudio.filters.definition import kernel_extent, without_padding
from spaudio.filters.fused import cpu
from spaudio.filters.fused.op import differentiable
from spaudio.filters.tracing import is_eager


def is_native(x: Tensor, kernels: Tensor) -> bool:
    """Whether the library takes tensors of this device and type.

    It is not used if the call is compiled, exported or transformed: these need torch's operations.
    """
    return _is_supported(x, kernels) and is_eager() and cpu.library() is not None


def _is_supported(x: Tensor, kernels: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and kernels.device.type == "cpu"
        and kernels.dtype == torch.float32
    )


def _library(x: Tensor, kernels: Tensor, padding_mask: Tensor | None) -> cpu.Library:
    """The library, for tensors that it reads without checking their sizes.

    Raises:
        ValueError: If a shape, type or device does not fit.
    """
    check_tokens(x, padding_mask)
    check_kernels(kernels, x.shape[2])
    if not _is_supported(x, kernels):
        raise ValueError(
            "spaudio::depthwise takes x in float32 or bfloat16 and kernels in float32, on a CPU; "
            f"got {x.dtype} on {x.device} and {kernels.dtype} on {kernels.device}"
        )
    library = cpu.library()
    assert library is not None, "is_native checks this"
    return library


@torch.library.custom_op("spaudio::depthwise", mutates_args=())
def native_depthwise(
    x: Tensor, kernels: Tensor, padding_mask: Tensor | None, causal: bool
) -> Tensor:
    """Adds the output of kernels (dim, K) to (batch, tokens, dim); see ``DepthwiseFilter``."""
    library = _library(x, kernels, padding_mask)
    left, _ = kernel_extent(kernels.shape[1], causal)
    return library.depthwise(x, kernels, padding_mask, left)


@torch.library.custom_op("spaudio::depthwise_backward", mutates_args=())
def _depthwise_backward(
    grad: Tensor,
    x: Tensor,
    kernels: Tensor,
    padding_mask: Tensor | None,
    causal: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``kernels``; empty where not ``wanted``."""
    library = _library(x, kernels, padding_mask)
    check_gradient(grad, x)
    left, _ = kernel_extent(kernels.shape[1], causal)
    return library.depthwise_backward(grad, x, kernels, padding_mask, left, wanted=wanted)


@native_depthwise.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@_depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, kernels: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dx, dkernels = (
        value.new_empty(value.shape if want else 0)
        for value, want in zip((x, kernels), rest[-1], strict=True)
    )
    return dx, dkernels


def _save_depthwise(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernels, padding_mask, ctx.causal = inputs
    ctx.save_for_backward(x, kernels, padding_mask)


def _differentiate_depthwise(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad[:2])
    grads = _depthwise_backward(grad, *ctx.saved_tensors, ctx.causal, wanted)
    dx, dkernels = (g if want else None for g, want in zip(grads, wanted, strict=True))
    return dx, dkernels, None, None


def _save_depthwise_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, x, kernels, padding_mask, ctx.causal, ctx.wanted = inputs
    ctx.save_for_backward(grad, x, kernels, padding_mask)


def _differentiate_depthwise_twice(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives, from the definition, as they are rare."""
    *saved, padding_mask = ctx.saved_tensors
    # Empty gradients have no derivatives.
    grads = tuple(g for g, want in zip(grads, ctx.wanted, strict=True) if want)
    with torch.enable_grad():
        grad, x, kernels = (differentiable(value) for value in saved)
        window = without_padding(x, padding_mask).float().transpose(1, 2)
        window = F.pad(window, kernel_extent(kernels.shape[1], ctx.causal))
        y = F.conv1d(window, kernels.unsqueeze(1), groups=len(kernels)).transpose(1, 2)
        y = x + without_padding(y, padding_mask).to(x.dtype)
        asked = [leaf for leaf, want in zip((x, kernels), ctx.wanted, strict=True) if want]
        first = torch.autograd.grad(y, asked, grad, create_graph=True)
    second = torch.autograd.grad(
        first, [grad, x, kernels], grads, allow_unused=True, create_graph=torch.is_grad_enabled()
    )
    return *second, None, None, None


native_depthwise.register_autograd(_differentiate_depthwise, setup_context=_save_depthwise)
_depthwise_backward.register_autograd(
    _differentiate_depthwise_twice, setup_context=_save_depthwise_backward
)
