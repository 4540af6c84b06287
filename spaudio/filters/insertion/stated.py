"""Padding that the user states for calls of a model, where filters cannot find it by themselves."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaudio.filters.tracing import in_backward, is_eager, is_exported

# What was stated for a call, for when activation checkpointing reruns it: by the first tensor
# among its arguments, then by the filter's key.
_BY_CALL = WeakTensorKeyDictionary()
_NOTHING = object()  # nothing was stated
_SEVERAL = object()  # calls with the same tensor had different padding


class StatedPadding:
    """The padding that is stated for one filter; see ``FilterHandle.padding``."""

    def __init__(self) -> None:
        self.masks: list[Tensor | None] = []  # of the blocks in progress, innermost last
        self.used = False  # whether any was ever stated

    def begin(self, mask: Tensor | None) -> None:
        """Begins a block in which ``mask`` is the padding."""
        self.masks.append(mask)
        self.used = True

    def end(self) -> None:
        """Ends the innermost block."""
        self.masks.pop()

    def find(self, x: Tensor, call: Tensor | None, *, layer: str, key: str) -> Any:
        """Returns whether padding is stated for a call, and that padding.

        Args:
            x: The layer's output, (batch, tokens, dim).
            call: The first tensor among the layer's arguments.
            layer: Name of the layer, for errors.
            key: Tells the filter from all others.

        Raises:
            ValueError: If the mask does not fit, the model is exported, or what was stated for a
                call that is repeated in the backward pass is unknown.
        """
        if not self.used:
            return False, None
        if in_backward():
            found = _BY_CALL[call].get(key, _SEVERAL) if call in _BY_CALL else _SEVERAL
            if found is _SEVERAL:
                raise ValueError(
                    f"layer {layer!r} is recomputed in the backward pass, where the padding that "
                    "was stated for its first pass is unknown. Checkpoint each filtered layer by "
                    "itself, with use_reentrant=False"
                )
            return found is not _NOTHING, None if found is _NOTHING else found
        mask = self.masks[-1] if self.masks else _NOTHING
        # Not under the mask itself, which the entry would keep alive.
        if call is not None and call is not mask and is_eager():
            if call not in _BY_CALL:
                _BY_CALL[call] = {}
            kept = _BY_CALL[call]
            kept[key] = mask if _same(kept.get(key, mask), mask) else _SEVERAL
        if isinstance(mask, Tensor):
            if is_exported():
                raise ValueError(
                    "the mask of handle.padding(mask) would be a constant of the exported model; "
                    "export it outside of that block"
                )
            if mask.shape != x.shape[:2]:
                raise ValueError(
                    f"handle.padding(mask) got a mask (batch, tokens) = {tuple(mask.shape)}, but "
                    f"layer {layer!r} returned {tuple(x.shape[:2])}"
                )
        return mask is not _NOTHING, None if mask is _NOTHING else mask


def _same(one: Any, other: Any) -> bool:
    """Whether two calls have the same padding."""
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return one is other or (both and torch.equal(one, other))
