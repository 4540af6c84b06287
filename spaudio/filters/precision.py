"""The types in which filters compute: mixed types, and autocast."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from spaudio.filters.arguments import check_device


def wider_type(x: Tensor, kernels: Tensor) -> torch.dtype | None:
    """The dtype to filter in when tokens and kernels have different dtypes.

    Returns:
        The narrowest dtype that holds both; None if they are equal or autocast casts them.

    Raises:
        ValueError: If the kernels are on another device than the tokens.
    """
    check_device(x, kernels, "the filter")
    if x.dtype == kernels.dtype:
        return None
    wider = torch.promote_types(x.dtype, kernels.dtype)
    return None if autocast_dtype(x) is not None and wider != torch.float64 else wider


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype to which autocast casts on the device of ``x``; None if it is off there."""
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def join(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenates tensors of one type, also under an autocast that cannot join this type."""
    with without_autocast(tensors[0]):
        return torch.cat(tuple(tensors), dim)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which autocast does not cast on the device of ``x``."""
    # Switching off what is off would leave a call in exported graphs.
    if autocast_dtype(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
