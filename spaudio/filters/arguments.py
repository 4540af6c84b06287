"""Checks of the arguments of filters: each error names the value and what is expected."""

from numbers import Integral

import torch
from torch import Tensor

from spaudio.filters.tracing import has_values


def check_flag(**flags: bool) -> None:
    """Raises ValueError if a named value is not a bool, such as ``"false"``, which is truthy."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be True or False; got {value!r}")


def check_size(**sizes: int) -> None:
    """Raises ValueError if one of the named sizes is not a whole number of at least 1."""
    if not all(
        isinstance(size, Integral) and not isinstance(size, bool) and size >= 1
        for size in sizes.values()
    ):
        given = ", ".join(f"{name}={size!r}" for name, size in sizes.items())
        raise ValueError(f"{' and '.join(sizes)} must be whole numbers, at least 1; got {given}")


def check_tokens(x: Tensor, padding_mask: Tensor | None, dim: int | None = None) -> None:
    """Raises ValueError if ``x`` is not (batch, tokens, dim) or the mask does not fit it."""
    if not isinstance(x, Tensor):
        raise ValueError(f"x must be a tensor (batch, tokens, dim); got {type(x).__name__}")
    if x.is_nested:
        raise ValueError(
            "x is a nested tensor; pad it (x.to_padded_tensor(0)) and pass padding_mask, or insert "
            "the filter with insert_filters"
        )
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(
            f"x must be floating point (batch, tokens, dim); got {x.dtype} {tuple(x.shape)}"
        )
    if dim is not None and x.shape[-1] != dim:
        raise ValueError(
            f"this filter was made for dim={dim}; got x of shape {tuple(x.shape)}, read as (batch, "
            f"tokens, dim); if that is right, pass dim={x.shape[-1]} where the filter is made"
        )
    if padding_mask is not None and not isinstance(padding_mask, Tensor):
        raise ValueError(f"padding_mask must be a tensor; got {type(padding_mask).__name__}")
    if padding_mask is not None and (
        padding_mask.dtype != torch.bool or padding_mask.shape != x.shape[:2]
    ):
        raise ValueError(
            f"padding_mask must be boolean (batch, tokens) = {tuple(x.shape[:2])}, True where a "
            f"token is padding; got {padding_mask.dtype} {tuple(padding_mask.shape)}"
        )
    if padding_mask is not None:
        check_device(x, padding_mask, "padding_mask")


def check_kernels(kernels: Tensor, dim: int) -> None:
    """Raises ValueError if kernels of a depthwise filter are not (dim, K)."""
    if kernels.dim() != 2 or kernels.shape[0] != dim or kernels.shape[1] < 1:
        raise ValueError(
            f"kernels must be (dim, K) = ({dim}, K), one for each dimension of the tokens, K at "
            f"least 1; got {tuple(kernels.shape)}"
        )


def check_gradient(grad: Tensor, x: Tensor) -> None:
    """Raises ValueError if the gradient of an output is not of the shape and device of ``x``."""
    if grad.shape != x.shape or grad.device != x.device:
        raise ValueError(
            f"the gradient must be {tuple(x.shape)} on {x.device}, like x; got "
            f"{tuple(grad.shape)} on {grad.device}"
        )


def check_device(x: Tensor, other: Tensor, name: str) -> None:
    """Raises ValueError if ``other`` is on another device than the tokens."""
    # Some torch and native operations would read invalid memory.
    if other.device != x.device:
        raise ValueError(f"x is on {x.device} and {name} on {other.device}; move one with to()")


def require(fits: Tensor, message: str, got: Tensor | None = None) -> None:
    """Raises ValueError with a message if a boolean tensor of one value is False.

    On a GPU the check is asynchronous; there and in compiled code it raises RuntimeError, without
    the values ``got``.
    """
    if fits.device.type == "cuda" or torch.compiler.is_compiling():
        torch._assert_async(fits, message)
    elif has_values(fits) and not fits:
        raise ValueError(message if got is None else f"{message}; got {got.tolist()}")
