"""Sequences that are packed one after another, and sequences that are continued later.

The conventions are those of short convolutions in current sequence models, such as
``ShortConvolution`` of flash-linear-attention and causal-conv1d: ``cu_seqlens`` (N + 1,) holds the
position where each of N packed sequences begins and where the last one ends; the state of a causal
filter is its last inputs, (sequences, K - 1, dim).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaudio.filters.arguments import check_device, require
from spaudio.filters.definition import without_padding
from spaudio.filters.precision import join, without_autocast

if TYPE_CHECKING:
    from spaudio.filters.base import TokenFilter


def filter_sequences(
    filter: TokenFilter,
    x: Tensor,
    padding_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    initial_state: Tensor | None,
    output_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Filters packed or continued sequences; see :meth:`TokenFilter.forward`.

    Returns:
        The tokens with the filtered signal added, and the final state if requested.

    Raises:
        ValueError: If the arguments do not fit each other or the filter.
    """
    before, after = filter.receptive_field
    if math.isinf(before):
        raise ValueError(
            f"filter {filter.name!r} attends to all tokens, so it takes no cu_seqlens or state; "
            "pad the sequences instead, or use FilterStream"
        )
    if (initial_state is not None or output_final_state) and after > 0:
        raise ValueError(
            f"filter {filter.name!r} is not causal, so it has no state to continue; make it with "
            "causal=True"
        )
    if cu_seqlens is not None:
        if padding_mask is not None:
            raise ValueError(
                "packed sequences have no padding; pass only one of cu_seqlens and padding_mask"
            )
        return _filter_packed(filter, x, cu_seqlens, initial_state, output_final_state)
    left, _ = filter.extent
    state = x.new_zeros(len(x), left, x.shape[2])
    if initial_state is not None:
        state = check_state(initial_state, state)
    window = join([state, without_padding(x, padding_mask)], 1)
    y = x + without_padding(filter_after(filter, window), padding_mask)
    if not output_final_state:
        return y, None
    tokens = x.shape[1]
    if padding_mask is None:
        return y, window[:, tokens:].clone()
    # The state of an item ends with its last token, before padding on its right.
    end = tokens - padding_mask.flip(1).long().cumprod(dim=1).sum(dim=1)
    places = end.unsqueeze(1) + torch.arange(left, device=x.device)
    return y, window.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))


def _filter_packed(
    filter: TokenFilter,
    x: Tensor,
    cu_seqlens: Tensor,
    initial_state: Tensor | None,
    output_final_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """Filters (1, tokens, dim) as one sequence with gaps that no kernel reaches across."""
    check_cu_seqlens(cu_seqlens, x)
    _, tokens, dim = x.shape
    sequences = len(cu_seqlens) - 1
    left, right = filter.extent
    gap = max(left, right)
    positions = torch.arange(tokens, device=x.device, dtype=cu_seqlens.dtype)
    # There is a gap before each sequence. Tokens after the last sequence count as one more.
    places = positions + gap * (1 + torch.searchsorted(cu_seqlens[1:], positions, right=True))
    outside = ((positions < cu_seqlens[0]) | (positions >= cu_seqlens[-1])).unsqueeze(0)
    spread = x.new_zeros(1, tokens + gap * (sequences + 1), dim)
    with without_autocast(x):
        spread = spread.index_copy(1, places, without_padding(x, outside))
    # Offsets of the ``left`` tokens before a position of each sequence, in order.
    gaps = gap * torch.arange(1, sequences + 1, device=x.device).unsqueeze(1)
    before = gaps + torch.arange(-left, 0, device=x.device)
    if initial_state is not None:
        state = check_state(initial_state, x.new_empty(sequences, left, dim))
        starts = (cu_seqlens[:-1].unsqueeze(1) + before).flatten()
        with without_autocast(x):
            spread = spread.index_copy(1, starts, state.reshape(1, -1, dim))
    y = x + without_padding(filter.filtered(spread)[:, places], outside)
    if not output_final_state:
        return y, None
    return y, spread[0, cu_seqlens[1:].unsqueeze(1) + before]


def filter_after(filter: TokenFilter, window: Tensor) -> Tensor:
    """Computes what a causal filter adds to the tokens of a window after the first K - 1."""
    left, _ = filter.extent
    # For few tokens, the outputs of the first K - 1 would cost more than copying windows.
    if window.shape[1] <= 2 * left:
        return filter.convolve(window)
    return filter.filtered(window)[:, left:]


def check_state(state: Tensor, like: Tensor) -> Tensor:
    """Returns the state; raises ValueError if shape, dtype or device differ from ``like``."""
    if not isinstance(state, Tensor):
        raise ValueError(
            f"the state must be a tensor (sequences, K - 1, dim) = {tuple(like.shape)}, zeros for "
            f"a new sequence; got {type(state).__name__}"
        )
    if state.shape != like.shape or state.dtype != like.dtype:
        raise ValueError(
            f"the state must be (sequences, K - 1, dim) = {tuple(like.shape)} of {like.dtype}; "
            f"got {tuple(state.shape)} of {state.dtype}"
        )
    check_device(like, state, "the state")
    return state


def check_cu_seqlens(cu_seqlens: Tensor, x: Tensor) -> None:
    """Raises an error if ``cu_seqlens`` does not fit ``x``.

    Values on a GPU are checked asynchronously.

    Raises:
        ValueError: If a shape, a type or a value does not fit.
    """
    if x.shape[0] != 1:
        raise ValueError(f"packed tokens must be (1, tokens, dim); got {tuple(x.shape)}")
    if not isinstance(cu_seqlens, Tensor):
        raise ValueError(f"cu_seqlens must be a tensor; got {type(cu_seqlens).__name__}")
    check_device(x, cu_seqlens, "cu_seqlens")
    integers = cu_seqlens.dtype in (torch.int32, torch.int64)
    if cu_seqlens.dim() != 1 or len(cu_seqlens) < 2 or not integers:
        raise ValueError(
            "cu_seqlens must be int32 or int64 (sequences + 1,); "
            f"got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    fits = (cu_seqlens.diff() >= 0).all() & (cu_seqlens[0] >= 0) & (cu_seqlens[-1] <= x.shape[1])
    message = f"cu_seqlens must not decrease, and lie within 0 ... {x.shape[1]} tokens"
    require(fits, message, cu_seqlens)
