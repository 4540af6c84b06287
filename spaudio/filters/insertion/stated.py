"""What the user states for calls of a model: which tokens are padding, or that filters are off."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaudio.filters.tracing import in_backward, is_eager, is_exported

#: Nothing is stated.
NOTHING = object()
#: The filter is off.
OFF = object()
# What was stated for a call, for when activation checkpointing reruns it: by the first tensor
# among its arguments, then by the filter's key.
_BY_CALL = WeakTensorKeyDictionary()
_SEVERAL = object()  # different things, for calls with the same tensor


class Stated:
    """What is stated for one filter; see ``FilterHandle.padding`` and ``FilterHandle.disabled``."""

    def __init__(self) -> None:
        self.blocks: list[Any] = []  # those in progress, innermost last: masks, None or OFF
        self.used = False  # whether there ever was one

    def begin(self, value: Any) -> None:
        """Begins a block: of a padding mask, of None for no padding, or of ``OFF``."""
        self.blocks.append(value)
        self.used = True

    def end(self) -> None:
        """Ends the innermost block."""
        self.blocks.pop()

    def find(self, call: Tensor | None, *, layer: str, key: str) -> Any:
        """Returns what is stated for a call: a mask, None for no padding, ``OFF`` or ``NOTHING``.

        Args:
            call: The first tensor among the layer's arguments.
            layer: Name of the layer, for errors.
            key: Tells the filter from all others.

        Raises:
            ValueError: If a mask would become a constant of an exported model, or what was stated
                for a call that is repeated in the backward pass is unknown.
        """
        if not self.used:
            return NOTHING
        if in_backward():
            found = _BY_CALL[call].get(key, _SEVERAL) if call in _BY_CALL else _SEVERAL
            if found is _SEVERAL:
                raise ValueError(
                    f"layer {layer!r} is recomputed in the backward pass, where the block of "
                    "handle.padding or handle.disabled of its first pass is unknown. Checkpoint "
                    "each filtered layer by itself, with use_reentrant=False"
                )
            return found
        value = self.blocks[-1] if self.blocks else NOTHING
        if any(block is OFF for block in self.blocks):
            value = OFF
        # Not under the mask itself, which the entry would keep alive.
        if call is not None and call is not value and is_eager():
            if call not in _BY_CALL:
                _BY_CALL[call] = {}
            kept = _BY_CALL[call]
            kept[key] = value if _same(kept.get(key, value), value) else _SEVERAL
        if isinstance(value, Tensor) and is_exported():
            raise ValueError(
                "the mask of handle.padding(mask) would be a constant of the exported model; "
                "export it outside of that block"
            )
        return value


def check_fits(mask: Tensor, x: Tensor, layer: str) -> None:
    """Raises ValueError if a stated mask is not that of a layer's output (batch, tokens, dim)."""
    if mask.shape != x.shape[:2]:
        raise ValueError(
            f"handle.padding(mask) got a mask (batch, tokens) = {tuple(mask.shape)}, but layer "
            f"{layer!r} returned {tuple(x.shape[:2])}"
        )


def _same(one: Any, other: Any) -> bool:
    """Whether the same is stated for two calls."""
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return one is other or (both and torch.equal(one, other))
