"""The filterbank as a function: checks its arguments and calls a backend."""

import functools
import os
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from spaudio.filters.arguments import check_device, check_flag, check_tokens
from spaudio.filters.definition import check_activation, filterbank_definition
from spaudio.filters.fused.op import BACKENDS, fused_filterbank
from spaudio.filters.precision import autocast_dtype, join, without_autocast
from spaudio.filters.tracing import is_exported, is_transformed


def filterbank(
    x: Tensor,
    kernels: Tensor | Sequence[Tensor],
    gains: Tensor,
    *,
    causal: bool = False,
    padding_mask: Tensor | None = None,
    activation: str = "relu",
    residual: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Filters every dimension along the tokens with M kernels, a ReLU, gains and a sum.

    For each batch item and dimension: ``Conv1d(1 -> M, K)`` over tokens, ReLU, multiplication by
    the gains, and a sum over the M kernels. Tokens outside the sequence count as zeros. This is the
    filtered signal of arXiv 2406.10254, Fig. 1C.

    Args:
        x: Token embeddings (batch, tokens, dim), floating point.
        kernels: (M, K), or a sequence of such tensors for several scales. Taps are applied as in
            ``Conv1d``: causal ones cover tokens ``t-K+1 ... t``, centred ones
            ``t-(K-1)//2 ... t+K//2``.
        gains: (M,) shared by all dimensions, (dim, M), or (batch, tokens, M), where M is the number
            of kernels of all scales, in order.
        causal: Whether a token sees only itself and the past. This changes only the padding.
        padding_mask: Boolean (batch, tokens), True where a token is padding. Such tokens count as
            zeros in the input and are zero in the output.
        activation: ``"relu"``, ``"gelu"`` or ``"identity"``.
        residual: Whether to add ``x`` to the result, including padded tokens.
        backend: The implementation; by default the environment variable SPAUDIO_FILTER_BACKEND or,
            if it is not set, ``"auto"``. One of

            - ``"auto"``: the fastest for the device and type;
            - ``"cpu"``: native kernel for float32 and half precision on a CPU. Where it multiplies
              in bfloat16 and a kernel has an odd number of taps, a NaN or an infinity in ``x`` also
              spreads to the output of the token before it;
            - ``"triton"``: kernel for float32 and half precision on an NVIDIA GPU;
            - ``"gemm"``: matrix products in torch, for any device and type; ``"auto"`` selects it
              for float64 on a CPU, for example. It multiplies more tokens than the kernels cover,
              by zero: a NaN or an infinity in ``x`` also spreads to the outputs of tokens nearby,
              up to 14 tokens earlier if ``causal``;
            - ``"reference"``: ``conv1d``, which stores batch * tokens * dim * M numbers.

    Where the call is traced or exported, ``"auto"`` means ``"reference"``, as other runtimes lack
    the operator. Within transformations of ``torch.func`` and forward-mode differentiation, every
    backend means ``"reference"``, which torch can differentiate and batch in any way.

    Under autocast ``x`` is cast as for ``conv1d``. Kernels and gains keep their type, since sums on
    a CPU are computed in at least float32; where the call is traced or exported, ``conv1d`` casts
    them, too. If ``x`` is bfloat16 and the processor supports bfloat16 products (AVX-512 BF16),
    their operands are rounded to bfloat16: kernels and the gradients of their responses. The latter
    are not rounded for kernels of up to four taps with ReLU or no activation and gains (M,) or
    (dim, M).

    Returns:
        (batch, tokens, dim), with the dtype of ``x``; under autocast with autocast's dtype or, if
        ``residual``, the wider of the two.

    Raises:
        ValueError: If a shape, type, device or option does not fit, or the backend does not support
            the device or type.
    """
    several = isinstance(kernels, Iterable) and not isinstance(kernels, Tensor)
    scales: list[Tensor] = list(kernels) if several else [kernels]  # type: ignore[list-item]
    if backend is None:
        backend = os.environ.get("SPAUDIO_FILTER_BACKEND") or "auto"
    check_tokens(x, padding_mask)
    check_flag(causal=causal, residual=residual)
    for value in (gains, *scales):
        if not isinstance(value, Tensor):
            raise ValueError(f"kernels and gains must be tensors; got {type(value).__name__}")
        check_device(x, value, "kernels or gains")
        if value.is_complex():
            raise ValueError(f"kernels and gains must be real; got {value.dtype}")
    if not scales or any(k.dim() != 2 or 0 in k.shape for k in scales):
        given = [tuple(k.shape) for k in scales]
        raise ValueError(f"kernels must be (M, K), M and K at least 1, for each scale; got {given}")
    autocast = None if x.dtype == torch.float64 else autocast_dtype(x)
    batch, tokens, dim = x.shape
    filters = sum(k.shape[0] for k in scales)
    # Looked up by rank: comparing with shapes of other ranks would specialize a symbolic batch.
    allowed = {1: (filters,), 2: (dim, filters), 3: (batch, tokens, filters)}
    if tuple(gains.shape) != allowed.get(gains.dim()):
        raise ValueError(
            f"gains must have one of the shapes {list(allowed.values())}; got {tuple(gains.shape)}"
        )
    check_activation(activation)
    if backend not in ("auto", "reference", *BACKENDS):
        raise ValueError(
            f"backend must be auto, reference, {', '.join(BACKENDS)}; got {backend!r} "
            "(argument or environment variable SPAUDIO_FILTER_BACKEND)"
        )
    signal = x.to(autocast or x.dtype)
    if backend == "reference" or (backend == "auto" and is_exported()) or is_transformed():
        dtype = functools.reduce(torch.promote_types, (v.dtype for v in (signal, gains, *scales)))
        # The exporter to ONNX cannot convert a graph that switches autocast off.
        with nullcontext() if is_exported() else without_autocast(x):
            y = filterbank_definition(
                signal.to(dtype),
                [kernel.to(dtype) for kernel in scales],
                gains.to(dtype),
                causal=causal,
                padding_mask=padding_mask,
                activation=activation,
            ).to(signal.dtype)
        return x + y if residual else y
    flat = join([kernel.reshape(-1) for kernel in scales], 0)
    shapes = [size for kernel in scales for size in kernel.shape]
    # Autocast rounds what is filtered, but not the residual.
    within = residual and signal.dtype == x.dtype
    options = (padding_mask, causal, activation, within, backend)
    result: Tensor = fused_filterbank(signal, flat, shapes, gains, *options)
    return x + result if residual and not within else result
