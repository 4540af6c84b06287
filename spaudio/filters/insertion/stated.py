"""What the user states for calls of a model: which tokens are padding, or that filters are off."""

import threading
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


class _InProgress(threading.local):
    """The blocks in progress of a thread. Not in the model, of which a block may make copies."""

    def __init__(self) -> None:
        self.blocks: dict[Stated, list[Any]] = {}


_IN_PROGRESS = _InProgress()


class Stated:
    """What is stated for one filter; see ``FilterHandle.padding`` and ``FilterHandle.disabled``."""

    def __init__(self) -> None:
        self.open = 0  # number of blocks in progress in all threads
        self.repeated = False  # whether one had calls that a backward pass may repeat

    def __reduce__(self) -> Any:
        return Stated, ()  # copies begin without any

    @property
    def blocks(self) -> list[Any]:
        """The blocks in progress in this thread, innermost last: masks, None or ``OFF``."""
        return _IN_PROGRESS.blocks.get(self, [])

    def begin(self, value: Any) -> None:
        """Begins a block: of a padding mask, of None for no padding, or of ``OFF``."""
        _IN_PROGRESS.blocks.setdefault(self, []).append(value)
        self.open += 1
        # Reentrant checkpointing switches gradients off in the first pass.
        self.repeated |= torch.is_grad_enabled()

    def end(self) -> None:
        """Ends the innermost block."""
        self.open -= 1
        self.blocks.pop()
        if not self.blocks:
            del _IN_PROGRESS.blocks[self]

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
        blocks = self.blocks
        self.repeated |= bool(blocks) and torch.is_grad_enabled()
        if not (blocks or self.repeated):
            return NOTHING
        if in_backward():
            found: Any = _BY_CALL[call].get(key, _SEVERAL) if call in _BY_CALL else _SEVERAL
            if found is _SEVERAL or found[1] != _version(found[0]):
                raise ValueError(
                    f"layer {layer!r} is recomputed in the backward pass, where the block of "
                    "handle.padding or handle.disabled of its first pass is unknown. Checkpoint "
                    "each filtered layer by itself, with use_reentrant=False. Do not change a mask "
                    "in place, and give passes with different masks tensors of their own"
                )
            return found[0]
        value = blocks[-1] if blocks else NOTHING
        if any(block is OFF for block in blocks):
            value = OFF
        # Not under the mask itself, which the entry would keep alive.
        if call is not None and call is not value and is_eager() and torch.is_grad_enabled():
            if call not in _BY_CALL:
                _BY_CALL[call] = {}
            kept, entry = _BY_CALL[call], (value, _version(value))
            kept[key] = entry if _same(kept.get(key, entry), entry) else _SEVERAL
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
            f"{layer!r} returned {tuple(x.shape[:2])}. In generate(), pass attention_mask instead"
        )


def _version(value: Any) -> int | None:
    """Counts the changes of a mask in place."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def _same(one: Any, other: Any) -> bool:
    """Whether the same is stated for two calls."""
    if one is _SEVERAL:
        return False
    (value, version), (again, now) = one, other
    if value is again:
        return bool(version == now)
    both = isinstance(value, Tensor) and isinstance(again, Tensor)
    return both and version == _version(value) and torch.equal(value, again)
