"""Finds which tokens are padding from the calls around a layer."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.arguments import require
from spaudio.filters.insertion.calls import FUNCTION, Call, flat_mask, past_tokens
from spaudio.filters.insertion.passes import SEVERAL, UNKNOWN, Passes
from spaudio.filters.tracing import (
    has_values,
    holds,
    in_backward,
    is_eager,
    is_exported,
    is_jit_traced,
    is_transformed,
)

# For additive masks: torchaudio uses -1e4, which bfloat16 rounds to -9,984, others -inf or the
# minimum of the dtype.
MASKED_BELOW = -9_900.0
# Padding of calls with a mask that does not determine it, by that mask: in a repeated call, the
# tokens are others if reentrant checkpointing copies them, or the filter is in a part of the layer.
_BY_MASK = Passes()
_REMEDY = (
    "Pass insert_filters(padding_mask=NAME): NAME is the argument of the layer, or of a module "
    "around it, that holds the padding mask, an integer or boolean (batch, tokens), or a function "
    "that computes it. Or call the model inside `with handle.padding(mask)`. Or pass "
    "padding_mask=None to ignore padding"
)


def find_padding(
    calls: Sequence[Call],
    batch: int,
    tokens: int,
    *,
    layer: str,
    repeated: bool,
    named: bool,
    passes: Passes,
) -> Tensor | None:
    """Padding of a layer's tokens, from the innermost call that determines it.

    A call that takes a mask but gets none means that there is no padding, whatever the model passes
    to its layers. If it gets a mask of queries and keys for each item instead, that one may include
    the padding; then a call around it must show that there is none. A mask that may mix padding
    with causality or a window determines nothing, nor does a mask of queries and keys given to a
    call that takes no padding mask; then the next call outwards is read. A mask of queries and keys
    that is the same for all items says nothing about padding.

    Args:
        calls: The layer's own call and those around it, innermost first.
        batch: Batch size of the layer's output.
        tokens: Tokens per item.
        layer: Name of the layer, for the error.
        repeated: Whether a backward pass repeats the layer without all calls that take a mask.
        named: Whether the user named the argument, which makes it a padding mask.
        passes: What was found in the layer's calls before, as ``padding``.

    Returns:
        Boolean (batch, tokens), True where a token is padding; None if there is none.

    Raises:
        ValueError: If masks were given but none of them determines the padding.
    """
    unread: tuple[str, Any] | None = None
    # Masks of queries and keys that may include the padding: given instead of a padding mask, and
    # given to a call that takes none.
    merged: tuple[str, Tensor] | None = None
    alone: tuple[str, Tensor] | None = None
    for call in calls:
        if call.padding is None:
            # With several inputs, it may belong to other tokens.
            if call.attends_by and not call.several and not is_for_all_items(call.attends_by[1]):
                alone = alone or call.attends_by
            continue
        name, value = call.padding
        if value is None:
            if call.attends_by:
                merged = merged or call.attends_by
                continue
            _refuse_lengths(calls, batch, layer)
            _remember(calls, unread, None)
            return None
        trusted = named or call.watch.is_padding(name, value, batch, tokens)
        if not trusted and is_shared(value, batch, tokens):
            continue
        # With several inputs, a mask that the user has not named may belong to other tokens.
        if isinstance(value, Tensor) and (named or not call.several):
            inverted = name == "padding_mask" and call.watch.zero_is_padding
            mask = read_padding_mask(
                "attention_mask" if inverted else name,
                value,
                batch,
                tokens,
                past=past_tokens(calls) or 0,
                trusted=trusted,
            )
            if mask is not None and merged and is_eager() and has_values(mask) and mask.any():
                unread = merged
                break
            if mask is not None:
                mask = None if merged else mask
                _remember(calls, unread, mask)
                return mask
        unread = unread or (name, value)
    else:
        # A layer is recomputed only if its first pass was accepted, so without padding.
        if merged and (in_backward() or is_for_all_items(merged[1])):
            _remember(calls, unread, None)
            return None
        unread = unread or merged
    if repeated:
        return _known_padding(unread, calls[0], layer, passes)
    unread = unread or alone
    if unread is None:
        _refuse_lengths(calls, batch, layer)
        _warn_of_other_masks(calls, batch, tokens, layer)
        return None
    remedy = _REMEDY
    fits = isinstance(unread[1], Tensor) and unread[1].shape == (tokens, batch)
    if fits and batch != tokens:
        remedy = (
            "The mask fits a layer of the other layout: is insert_filters(batch_first=...) right? "
            f"{_REMEDY}"
        )
    raise ValueError(
        f"cannot tell the padding of layer {layer!r}, (batch, tokens) = ({batch}, {tokens}), from "
        f"{_describe(*unread)}. {remedy}"
    )


def _refuse_lengths(calls: Sequence[Call], batch: int, layer: str) -> None:
    """Raises an error if a call was given lengths that differ: its items are padded."""
    if any(call.padding is not None and call.padding[0] == FUNCTION for call in calls):
        return  # a function that has seen them
    # Those of a model with several inputs may be of other tokens.
    given = (c.lengths for c in calls if c.lengths is not None and not c.several)
    for name, value in given:
        if isinstance(value, list | tuple):  # of a compiled call, it is a constant
            if len(value) == batch and any(bool(one != value[0]) for one in value):
                raise ValueError(_of_lengths(name, layer))
            continue
        lengths = _as_lengths(value, batch)
        if lengths is None:
            continue
        problem = _of_lengths(name, layer)
        if is_eager() or is_jit_traced():  # with real values
            if has_values(lengths) and holds((lengths != lengths.max()).any()):
                raise ValueError(problem)
        elif is_exported():  # for any lengths
            raise ValueError(problem)
        elif not is_transformed():
            require((lengths == lengths.max()).all(), problem)


def _of_lengths(name: str, layer: str) -> str:
    return (
        f"cannot tell the padding of layer {layer!r}: the model was given {name}, which filters do "
        f"not read, and no mask. Give it a padding mask. {_REMEDY}"
    )


def _as_lengths(value: Any, batch: int) -> Tensor | None:
    """Returns lengths as a tensor (batch,); None if a value is not one number per item."""
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            return None
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            return None
    if value.dim() == 2 and value.shape[1] == 1:
        value = value[:, 0]
    return value if value.dim() == 1 and value.shape[0] == batch and batch else None


def _warn_of_other_masks(calls: Sequence[Call], batch: int, tokens: int, layer: str) -> None:
    """Warns of a mask that may be of padding, by a name or of a shape that is not read."""
    if not is_eager() or batch == tokens:  # in this order, as an export would guard the sizes
        return
    announced = calls[-1].watch.announced
    for name, whole in (one for call in calls for one in call.other_masks):
        mask = flat_mask(whole)
        if mask.shape == (batch, tokens) and name not in announced:
            announced.add(name)
            named = f"padding_mask={name!r}, where True stands for padding (False if the name ends "
            named += "with attention_mask), or "
            if whole is not mask or mask.is_floating_point():  # which cannot be named
                named = ""
            warnings.warn(
                f"the filter after {layer!r} does not read {name}. If it is a padding mask, give "
                f"insert_filters {named}padding_mask=FUNCTION, which computes a boolean (batch, "
                "tokens), True at padding, or state such a mask with `with handle.padding(mask)`; "
                "else pass padding_mask=None",
                stacklevel=2,
            )


def warn_if_inverted(padding: Tensor, layer: str) -> None:
    """Warns of a mask by which an item is padding only, as if True stood for real tokens."""
    if padding.shape[1] and has_values(padding) and padding.all(dim=1).any():
        warnings.warn(
            f"the mask that the filter after {layer!r} was given says that all tokens of an item "
            "are padding. If True (or 1) stands for real tokens in it, the filter has read it the "
            "wrong way round: pass the name of an argument that ends with attention_mask, or give "
            "the model the inverse mask",
            stacklevel=2,
        )


def _known_padding(
    unread: tuple[str, Any] | None, own: Call, layer: str, passes: Passes
) -> Tensor | None:
    """Returns the padding of the first pass of a layer that is recomputed.

    Args:
        unread: Name and value of a mask that does not determine it, if any.
        own: The layer's call.
        layer: Name of the layer, for the error.
        passes: What was found in the layer's calls before.

    Raises:
        ValueError: If it is not known.
    """
    found: Any = passes.recall(own.tokens, "padding")
    if found is UNKNOWN and unread is not None and isinstance(unread[1], Tensor):
        found = _BY_MASK.recall(unread[1], "padding")
    if found is SEVERAL:
        raise ValueError(
            f"layer {layer!r} is recomputed in the backward pass, and its tokens or its mask were "
            "filtered with several paddings. Checkpoint a module that takes the padding mask, or "
            "give the layer a copy of the tokens and of the mask in each pass"
        )
    if found is not UNKNOWN:
        return found  # type: ignore[no-any-return]
    if unread is not None:
        raise ValueError(
            f"layer {layer!r} is recomputed in the backward pass, where the padding of its first "
            f"pass cannot be told from {_describe(*unread)}. Checkpoint with use_reentrant=False"
        )
    raise ValueError(
        f"layer {layer!r} is recomputed in the backward pass, outside the call that knows the "
        "padding. Checkpoint each layer by itself, with use_reentrant=False, or a module that "
        "takes the mask; and insert the filter after the whole checkpointed layer, not in a part "
        "of it. If no token is ever padding, pass insert_filters(padding_mask=None)"
    )


def _remember(
    calls: Sequence[Call], unread: tuple[str, Any] | None, padding: Tensor | None
) -> None:
    """Keeps the padding of a call with a mask that does not determine it, except in evaluation."""
    if unread is None or not isinstance(unread[1], Tensor):
        return
    # In the first pass of a layer, reentrant checkpointing switches gradients off.
    if torch.is_grad_enabled() or any(call.has_gradients for call in calls):
        _BY_MASK.keep(unread[1], padding=padding)


def is_shared(value: Any, batch: int, tokens: int) -> bool:
    """Whether a mask is (tokens, tokens), the same for all items, so it does not show padding."""
    return (
        isinstance(value, Tensor)
        and value.dim() == 2
        # First what is known where both sizes are symbolic: an exported program would refuse
        # batches of as many items as tokens.
        and value.shape[0] != batch
        and value.shape == (tokens, tokens)
    )


def is_for_all_items(value: Tensor) -> bool:
    """Whether a mask with an axis of items is the same for all of them by its shape or strides."""
    return value.shape[0] == 1 or value.stride(0) == 0


def read_padding_mask(
    name: str, value: Tensor, batch: int, tokens: int, *, past: Any = 0, trusted: bool = False
) -> Tensor | None:
    """Converts a mask to (batch, tokens), True where a token is padding, if that is certain.

    Three conventions are supported:

    - ``*attention_mask`` (batch, tokens): False or zero at padding; a floating-point one only if it
      is trusted and holds zeros and ones;
    - other names (batch, tokens): True, or very negative, at padding;
    - (batch, heads, queries, keys), the same for all queries by its shape or strides: as (batch,
      keys). A floating-point one is very negative at padding, whatever its name. Another one that
      is given for a single token may be a row of a mask of queries and keys instead, in which some
      models, such as MPT, set True where nothing is attended to. It is read only if it says that
      the token is no padding.

    With a key/value cache the mask may include the ``past`` tokens.

    Args:
        name: Name of the argument.
        value: Its value.
        batch: Batch size of the layer's output; the mask may have one item for all.
        tokens: Tokens per item.
        past: Number of tokens before these.
        trusted: Whether to read a mask with two axes as (batch, tokens) even if its shape may also
            be (tokens, tokens).

    Returns:
        The padding, or None if the mask does not determine it.

    Raises:
        ValueError: If a floating-point mask holds values that are neither zero nor very negative,
            such as one of zeros and ones.
    """
    additive = value.is_floating_point()
    real = name.endswith("attention_mask")
    by_keys = value.dim() == 4 and (value.shape[2] == 1 or value.stride(2) == 0)
    if by_keys:
        value = value[:, 0, 0]
    if value.dim() != 2 or value.shape[0] not in (1, batch):
        return None
    if value.shape[1] not in (tokens, past + tokens):
        return None
    if additive and (by_keys or not real):
        # To that of one query, models may add a bias by distance.
        if not (is_exported() or is_transformed() or (by_keys and tokens == 1)):
            check_additive(name, value)
        padding = value < MASKED_BELOW
    elif additive:
        if not (trusted and holds_ones(value)):
            return None
        padding = value == 0
    elif real and not (by_keys or trusted or tokens == 1 or value.shape[0] != tokens):
        return None
    else:
        padding = ~value.bool() if real else value.bool()
    padding = padding[:, padding.shape[1] - tokens :].expand(batch, -1)
    row = by_keys and tokens == 1 and not additive
    return None if row and (not has_values(padding) or not is_eager() or padding.any()) else padding


def holds_ones(value: Tensor) -> bool:
    """Whether a floating-point mask is certain to be one of zeros and ones.

    If it holds only zeros it is not: an additive mask of zeros hides nothing, whereas one of zeros
    and ones would hide all tokens. Values can be read only where the call runs eagerly.
    """
    if not has_values(value) or not is_eager():
        return False
    ones = value == 1
    return bool((ones | (value == 0)).all() & ones.any())


def check_additive(name: str, value: Tensor) -> None:
    """Raises ValueError if a mask is not additive.

    On a GPU the check is asynchronous; there and in compiled code it raises RuntimeError.
    """
    require(
        ((value == 0) | (value < MASKED_BELOW)).all(),
        f"{name} is {value.dtype} and holds values other than 0 and those below {MASKED_BELOW:g}, "
        "so it is not an additive padding mask; pass a boolean one",
    )


def _describe(name: str, value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{name}, which is a {type(value).__name__}"
    mixed = "which may mix padding with causality or a window"
    reason = {
        2: "which may be (batch, tokens) or (tokens, tokens) or is of other tokens",
        3: mixed,
        4: mixed,
    }.get(value.dim(), "which follows no known convention")
    return f"{name} of shape {tuple(value.shape)} and type {value.dtype}, {reason}"
