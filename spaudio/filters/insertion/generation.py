"""Filtering with the key/value cache of a model that generates token by token.

A causal filter needs the last tokens before the new ones. They are stored on the cache object, so
that they are kept and copied together with the keys and values of the same tokens.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.base import TokenFilter
from spaudio.filters.definition import without_padding
from spaudio.filters.insertion.calls import Call, calls_with_cache, past_tokens
from spaudio.filters.insertion.subclass import make_subclass
from spaudio.filters.precision import join

KEPT = "_tokens_before_filters"


@dataclass
class _Kept:
    """The input of a filter's last call: (batch, n, dim), up to position ``end``."""

    tokens: Tensor
    end: int
    call: object


def filter_with_cache(
    filter: TokenFilter,
    x: Tensor,
    padding_mask: Tensor | None,
    calls: Sequence[Call],
    layer: str,
    key: str,
) -> Tensor:
    """Filters (batch, tokens, dim) that may continue the tokens of a key/value cache.

    Several tokens may be passed at once. Between calls the cache may be cropped (no further back
    than the start of the last call), reordered, repeated or copied.

    Args:
        filter: The filter.
        x: The new tokens.
        padding_mask: Padding mask of the new tokens.
        calls: The layer's own call and those around it, innermost first.
        layer: Name of the layer, for errors.
        key: Tells the filter from all others that use the cache.

    Raises:
        ValueError: If the earlier tokens are needed but not available.
    """
    taking = calls_with_cache(calls)
    cache = next((call.cache for call in taking if call.cache is not None), None)
    if cache is None or filter.receptive_field == (0, 0):
        plain: Tensor = filter(x, padding_mask)
        return plain
    # A model that creates the cache itself starts without one.
    start = past_tokens(calls)
    if start is None:
        raise ValueError(
            f"{_problem(filter, layer)} of type {type(cache).__name__}, which does not tell how "
            "many tokens it holds, such as one of recurrent states"
        )
    streams = filter.causal and math.isfinite(filter.receptive_field[0])
    if start == 0:
        y: Tensor = filter(x, padding_mask)
        if streams:
            # A copy: the model may change the layer's output in place.
            inside = x.clone() if padding_mask is None else without_padding(x, padding_mask)
            _keep(cache, key, inside, x.shape[1], taking[-1].token)
        return y
    if not streams:
        raise ValueError(
            f"{_problem(filter, layer)}, as "
            + (
                "it attends to all tokens"
                if filter.causal
                else "it is not causal: it reads the tokens to be generated; in a language model, "
                "pass causal=True to insert_filters"
            )
        )
    left, _ = filter.extent
    kept: _Kept | None = vars(cache).get(KEPT, {}).get(key)
    if (
        kept is None
        or len(kept.tokens) != len(x)
        or kept.end < start
        or kept.call is taking[-1].token
    ):
        raise ValueError(
            f"{_problem(filter, layer)}: the cache was not filled by one pass at a time through "
            "this layer and its filter; insert filters into the whole model that takes the cache, "
            "not into a part of it. Tokens that are only in the cache, as of PEFT's prefix tuning, "
            "are not supported"
        )
    first = kept.end - kept.tokens.shape[1]  # position of the first token kept
    if first > max(start - left, 0):
        raise ValueError(
            f"{_problem(filter, layer)} from token {start}: the cache was cropped to before the "
            f"last pass, which began at token {first + left}"
        )
    before = kept.tokens[:, max(start - left - first, 0) : start - first]
    inside = without_padding(x, padding_mask)
    before = join([x.new_zeros(len(x), left - before.shape[1], x.shape[2]), before], 1)
    window = join([before, inside], 1)
    known = window[:, left - min(left, start) :]  # without the zeros before the first token
    _keep(cache, key, known, start + x.shape[1], taking[-1].token)
    # Through the filter's call, whose hooks may load its weights, as those of accelerate do.
    continued: Tensor = filter(x, padding_mask, initial_state=before.to(x.dtype))
    return continued


def _keep(cache: Any, key: str, tokens: Tensor, end: int, call: object) -> None:
    """Keeps the tokens of a filter on a cache."""
    if torch.compiler.is_compiling() or not hasattr(cache, "reorder_cache"):
        return  # a later step that needs them raises an error
    if KEPT not in vars(cache):
        setattr(cache, KEPT, {})
        base: Any = type(cache)
        cache.__class__ = _keeping_class(base)
    getattr(cache, KEPT)[key] = _Kept(tokens, end, call)


def _problem(filter: TokenFilter, layer: str) -> str:
    return (
        f"use_cache=False, or no cache, is needed: filter {filter.name!r} of layer {layer!r} "
        "cannot continue the tokens of a key/value cache"
    )


@functools.cache
def _keeping_class(base: Any) -> Any:
    """Subclass of a cache's class that reorders the kept tokens with the keys and values."""

    def also(name: str, change: Callable[[Tensor, Any], Tensor]) -> Callable[..., Any]:
        @functools.wraps(getattr(base, name))
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            argument = (*args, *kwargs.values())[0]  # the only one; each method names it otherwise
            for kept in getattr(self, KEPT).values():
                kept.tokens = change(kept.tokens, argument)
            return getattr(super(cls, self), name)(*args, **kwargs)

        return method

    def select(tokens: Tensor, indices: Tensor) -> Tensor:
        return tokens[indices.to(tokens.device)]

    changes: dict[str, Callable[[Tensor, Any], Tensor]] = {
        "reorder_cache": select,
        "batch_select_indices": select,
        "batch_repeat_interleave": lambda tokens, n: tokens.repeat_interleave(n, dim=0),
    }
    body = {name: also(name, change) for name, change in changes.items() if hasattr(base, name)}
    cls = make_subclass(_keeping_class, base, {**body, "__module__": base.__module__})
    return cls
