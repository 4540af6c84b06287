"""The filterbank on an NVIDIA GPU with Triton kernels: support, layout and launch.

A float32 product is three TF32 products on tensor cores (tf32x3), as exact as float32, or a single
one where torch's matrix products may use TF32 (``torch.set_float32_matmul_precision("high")``).
Half precision is multiplied as it is. All sums are float32.
"""

import functools
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.definition import kernel_extent
from spaudio.filters.fused.problem import Problem

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_CAPABILITY = (8, 0)  # the first with TF32 and bfloat16
_BLOCK = 32  # filters per product; 144 are padded to 160
_TAPS = 32  # most taps per product; 64 would not fit into the shared memory of some GPUs
# Programs that compute the gradient of the bank, each with its own partial sum: several for every
# multiprocessor of any GPU. A constant, so that the order of sums does not depend on the device.
PROGRAMS = 512


@functools.cache
def kernels() -> Any:
    """Imports the kernels; returns None, with a warning once, if Triton does not import."""
    try:
        from spaudio.filters.fused import triton_kernels
    except ImportError as error:
        warnings.warn(
            f"Triton does not import ({error}); the filterbank uses a slower path in torch on "
            "the GPU. To use Triton, install the version that your torch requires.",
            UserWarning,
            stacklevel=2,
        )
        return None
    return triton_kernels


def interpreted() -> bool:
    """Whether Triton's interpreter replaces a GPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels do not support tensors of this device and type, or None if they do."""
    devices = ("cuda", "cpu") if interpreted() else ("cuda",)
    if dtype not in DTYPES or device.type not in devices:
        return (
            "supports float32, bfloat16 and float16 on a CUDA device (on a CPU only under "
            f"TRITON_INTERPRET=1); got {dtype} on {device.type}"
        )
    if device.type == "cuda" and not interpreted():
        if torch.version.hip is not None:
            return "supports NVIDIA GPUs only"
        capability = torch.cuda.get_device_capability(device)
        if capability < _CAPABILITY:
            return f"needs compute capability 8.0 (Ampere) or newer; got {capability}"
    return "needs the package triton, which does not import" if kernels() is None else None


def forward(problem: Problem) -> Tensor:
    """Computes the result (batch, tokens, dim), float32; ``problem.x`` is float32 or half."""
    batch, tokens, dim = problem.x.shape
    y = torch.zeros(problem.x.shape, dtype=torch.float32, device=problem.x.device)
    if problem.x.numel() == 0:
        return y
    problem, signals = _prepare(problem)
    with torch.cuda.device(problem.x.get_device()):  # no effect for -1, a CPU
        for index, (taps, gains) in enumerate(problem.scales()):
            options = _options(problem, taps)
            kernels().forward[(batch * dim * -(-tokens // options["tile"]),)](
                signals, taps, gains, y, *_sizes(problem, taps), **options, add=index > 0
            )
    return problem.mask(y)


def backward(
    grad: Tensor, problem: Problem, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes gradients of x, kernels (flat) and gains, float32; empty where not ``wanted``."""
    batch, tokens, dim = problem.x.shape
    values = (problem.x, problem.kernels, problem.gains)
    grad_x, grad_kernels, grad_gains = (
        torch.zeros(value.shape if want else 0, dtype=torch.float32, device=value.device)
        for value, want in zip(values, wanted, strict=True)
    )
    if problem.x.numel() == 0:
        return grad_x, grad_kernels, grad_gains
    problem, signals = _prepare(problem)
    grad = problem.mask(grad)
    first_tap = first_gain = 0
    with torch.cuda.device(problem.x.get_device()):  # no effect for -1, a CPU
        for index, (taps, gains) in enumerate(problem.scales()):
            if wanted[0]:
                options = _options(problem, taps, halo=True)
                yields = options["tile"] - min(taps.shape[1], options["c"]) + 1
                kernels().backward_signal[(batch * dim * -(-tokens // yields),)](
                    grad, signals, taps, gains, grad_x, *grad.stride(), *_sizes(problem, taps),
                    **options, add=index > 0,
                )  # fmt: skip
            if wanted[1] or wanted[2]:
                sums = _launch_bank(grad, signals, taps, gains, problem, wanted)
                if wanted[1]:
                    grad_kernels[first_tap : first_tap + taps.numel()] = sums[0].flatten()
                if wanted[2]:
                    grad_gains[..., first_gain : first_gain + taps.shape[0]] = sums[1]
            first_tap += taps.numel()
            first_gain += taps.shape[0]
    return problem.mask(grad_x) if wanted[0] else grad_x, grad_kernels, grad_gains


def _launch_bank(
    grad: Tensor,
    signals: Tensor,
    taps: Tensor,
    gains: Tensor,
    problem: Problem,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Gradients of one scale's kernels (M, K) and of its gains; see ``backward_bank``."""
    batch, tokens, dim = problem.x.shape
    filters = taps.shape[0]
    # With 128 tokens the three products of tf32x3 spill registers.
    options = _options(problem, taps, tile=64)
    spans = batch * -(-tokens // options["tile"])
    groups, members = (spans, dim) if gains.dim() == 3 else (dim, spans)
    blocks = -(-filters // options["block"])
    workers = min(groups, max(1, PROGRAMS // blocks))
    splits = min(members, max(1, PROGRAMS // (blocks * workers)))
    rows = (batch, tokens) if gains.dim() == 3 else (dim,)
    shapes = ((splits, workers, *taps.shape), (splits, *rows, filters))
    partial = [
        torch.empty(shape if want else 0, dtype=torch.float32, device=grad.device)
        for shape, want in zip(shapes, wanted[1:], strict=True)
    ]
    kernels().backward_bank[(workers, blocks * splits, -(-taps.shape[1] // options["c"]))](
        grad, signals, taps, gains, *partial, *grad.stride(), groups, members,
        *_sizes(problem, taps), **options, want_kernels=wanted[1], want_gains=wanted[2],
    )  # fmt: skip
    kernel_sum = partial[0].sum((0, 1)) if wanted[1] else partial[0]
    gain_sum = partial[1].sum((0, 1) if gains.dim() == 1 else 0) if wanted[2] else partial[1]
    return kernel_sum, gain_sum


def _prepare(problem: Problem) -> tuple[Problem, Tensor]:
    """The problem as the kernels read it, and ``x`` as (batch, dim, tokens) with zeros for padding.

    The bank's kernels are converted to the dtype of ``x``, the gains to float32.
    """
    x = problem.x
    if interpreted() and x.dtype == torch.bfloat16:
        x = x.float()  # the interpreter would multiply it as integers
    taps, gains = problem.kernels.to(x.dtype).contiguous(), problem.gains.float().contiguous()
    problem = replace(problem, x=x, kernels=taps, gains=gains)
    return problem, problem.mask(x).transpose(1, 2).contiguous()


def _sizes(problem: Problem, taps: Tensor) -> tuple[int, ...]:
    """The size arguments of all kernels, in order."""
    _, tokens, dim = problem.x.shape
    left = kernel_extent(taps.shape[1], problem.causal)[0]
    return tokens, dim, taps.shape[0], left, problem.gains.shape[-1]


def _options(problem: Problem, taps: Tensor, tile: int = 128, halo: bool = False) -> dict[str, Any]:
    """Constants of the kernels for tiles of at most ``tile`` tokens, ``halo`` included."""
    tokens, columns = problem.x.shape[1], min(_TAPS, _power(taps.shape[1]))
    if halo:
        tokens += min(taps.shape[1], columns) - 1
    tile = min(tile, _power(tokens))
    precision = "ieee"
    if problem.x.dtype == torch.float32:
        fast = torch.backends.cuda.matmul.fp32_precision == "tf32"
        precision = "tf32" if fast else "tf32x3"
    return {
        "taps": taps.shape[1],
        "rank": problem.gains.dim(),
        "activation": problem.activation,
        "precision": precision,
        "tile": tile,
        "block": min(_BLOCK, _power(taps.shape[0])),
        "c": columns,
        # With several blocks of taps, three stages would not fit into shared memory.
        "num_stages": 3 if taps.shape[1] <= columns else 2,
    }


def _power(size: int) -> int:
    """The smallest power of two that is at least ``size`` and 16, the tensor cores' minimum."""
    return max(16, 1 << (size - 1).bit_length())
