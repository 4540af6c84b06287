"""The filterbank as a ``torch.library`` operator, and the selection of a backend.

``spaudio::filterbank`` has fake and autograd kernels, so that ``torch.compile``, ``torch.export``
and ``gradcheck`` see one opaque, differentiable node. The kernels of all scales are passed as one
flat tensor and their shapes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.arguments import check_gradient
from spaudio.filters.definition import filterbank_definition
from spaudio.filters.fused import cpu, gemm, triton_launch
from spaudio.filters.fused.problem import Problem, only, split

BACKENDS: dict[str, Any] = {"cpu": cpu, "gemm": gemm, "triton": triton_launch}


def select(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Selects one of ``BACKENDS`` for tensors on a device; ``dtype`` is the type of the sums.

    ``"auto"`` selects the fastest one that supports them.

    Raises:
        ValueError: If ``backend`` does not support them; the message says why.
    """
    # Triton's interpreter on a CPU must be requested by name: it is a thousand times slower.
    fastest = "triton" if device.type == "cuda" else "cpu"
    chosen = fastest if backend == "auto" else backend
    obstacle = None if chosen == "gemm" else BACKENDS[chosen].obstacle(device, dtype)
    if obstacle is None:
        return chosen
    if backend == "auto":
        return "gemm"
    raise ValueError(f"backend {backend!r} {obstacle}. Use 'auto' or 'gemm'")


def _prepare(problem: Problem, backend: str) -> tuple[Any, Problem]:
    """Returns the implementation for a problem, and the problem in the type of the sums.

    That type is float64 if any argument is float64, else float32 on a CPU. On other devices half
    precision is kept, since tensor cores sum in float32.

    Raises:
        ValueError: If a shape or device does not fit, or the backend does not support them.
    """
    problem.check()
    x = problem.x
    dtype = torch.float32 if x.device.type == "cpu" else x.dtype
    if torch.float64 in (x.dtype, problem.kernels.dtype, problem.gains.dtype):
        dtype = torch.float64
    chosen = select(backend, x.device, dtype)
    if chosen == "triton":  # takes half-precision x with float32 gains
        return triton_launch, problem
    if chosen == "cpu":  # takes bfloat16 x
        return cpu.library(), problem.to(dtype, x.dtype if x.dtype == torch.bfloat16 else dtype)
    return gemm, problem.to(dtype)


@torch.library.custom_op("spaudio::filterbank", mutates_args=())
def fused_filterbank(
    x: Tensor,
    kernels: Tensor,
    shapes: Sequence[int],
    gains: Tensor,
    padding_mask: Tensor | None,
    causal: bool,
    activation: str,
    residual: bool,
    backend: str,
) -> Tensor:
    """Filters ``x`` with a backend, or "auto"; see :class:`Problem` for the other arguments."""
    problem = Problem(x, kernels, shapes, gains, padding_mask, causal, activation, residual)
    with torch.autocast(x.device.type, enabled=False):
        implementation, problem = _prepare(problem, backend)
        y: Tensor = implementation.forward(problem)
        if residual and not isinstance(implementation, cpu.Library):
            y = y + problem.x
        return y.to(x.dtype)


@torch.library.custom_op("spaudio::filterbank_backward", mutates_args=())
def fused_filterbank_backward(
    grad: Tensor,
    x: Tensor,
    kernels: Tensor,
    shapes: Sequence[int],
    gains: Tensor,
    padding_mask: Tensor | None,
    causal: bool,
    activation: str,
    residual: bool,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``x``, ``kernels`` (flat) and ``gains``; empty where not ``wanted``."""
    problem = Problem(x, kernels, shapes, gains, padding_mask, causal, activation, residual)
    with torch.autocast(x.device.type, enabled=False):
        implementation, problem = _prepare(problem, backend)
        check_gradient(grad, x)
        grad = grad.to(problem.x.dtype)
        dx, dkernels, dgains = implementation.backward(grad, problem, wanted)
        if residual and wanted[0] and not isinstance(implementation, cpu.Library):
            dx = dx + grad
        return dx.to(x.dtype), dkernels.to(kernels.dtype), dgains.to(gains.dtype)


@fused_filterbank.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


@fused_filterbank_backward.register_fake
def _(
    grad: Tensor, x: Tensor, kernels: Tensor, shapes: Sequence[int], gains: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return only([v.new_empty(v.shape) for v in (x, kernels, gains)], rest[-1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, kernels, ctx.shapes, gains, padding_mask, *ctx.options = inputs
    ctx.save_for_backward(x, kernels, gains, padding_mask)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, kernels, gains, padding_mask = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[i] for i in (0, 1, 3)]
    grads = fused_filterbank_backward(
        grad, x, kernels, ctx.shapes, gains, padding_mask, *ctx.options, wanted
    )
    dx, dkernels, dgains = (g if want else None for g, want in zip(grads, wanted, strict=True))
    return dx, dkernels, None, dgains, None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    grad, x, kernels, ctx.shapes, gains, padding_mask, *ctx.options = inputs
    ctx.save_for_backward(grad, x, kernels, gains, padding_mask)


def differentiable(saved: Tensor) -> Tensor:
    """Returns a saved tensor, in a graph of its own, to take gradients with respect to."""
    return saved.view_as(saved) if saved.requires_grad else saved.detach().requires_grad_()


def _double_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives, from the definition: rare enough to store the representation."""
    *saved, padding_mask = ctx.saved_tensors
    causal, activation, residual, _, wanted = ctx.options
    # Empty gradients have no derivatives.
    grads = tuple(g for g, want in zip(grads, wanted, strict=True) if want)
    with torch.enable_grad():
        grad, *leaves = (differentiable(value) for value in saved)
        x, kernels, gains = leaves
        # As in the first derivatives, half precision is summed in float32.
        dtype = torch.float64 if torch.float64 in (v.dtype for v in leaves) else torch.float32
        scales = split(kernels.to(dtype), ctx.shapes)
        options = {"causal": causal, "padding_mask": padding_mask, "activation": activation}
        y = filterbank_definition(x.to(dtype), scales, gains.to(dtype), **options).to(x.dtype)
        y = x + y if residual else y
        asked = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
        first = torch.autograd.grad(y, asked, grad, create_graph=True)
    # With a graph, there are third derivatives, too.
    second = torch.autograd.grad(
        first, [grad, *leaves], grads, allow_unused=True, create_graph=torch.is_grad_enabled()
    )
    return (second[0], second[1], second[2], None, second[3], *[None] * 6)


fused_filterbank.register_autograd(_backward, setup_context=_save)
fused_filterbank_backward.register_autograd(_double_backward, setup_context=_save_backward)
