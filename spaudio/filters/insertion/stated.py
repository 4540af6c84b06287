"""What the user states for calls of a model: which tokens are padding, or that filters are off."""

import threading
from typing import Any

import torch
from torch import Tensor

from spaudio.filters.insertion.passes import SEVERAL, UNKNOWN, Passes
from spaudio.filters.tracing import in_backward, is_exported

#: Nothing is stated.
NOTHING = object()
#: The filter is off.
OFF = object()


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

    def find(self, tokens: Tensor | None, passes: Passes, layer: str) -> Any:
        """Returns what is stated for a call: a mask, None for no padding, ``OFF`` or ``NOTHING``.

        Args:
            tokens: The first tensor among the layer's arguments.
            passes: What was found in its calls before, as ``stated``.
            layer: Name of the layer, for errors.

        Raises:
            ValueError: If a mask would become a constant of an exported model, or what was stated
                for a call that is repeated in the backward pass is unknown.
        """
        blocks = self.blocks
        self.repeated |= bool(blocks) and torch.is_grad_enabled()
        if in_backward() and self.repeated:
            found = passes.recall(tokens, "stated")
            if found is UNKNOWN or found is SEVERAL:
                raise ValueError(
                    f"layer {layer!r} is recomputed in the backward pass, where the block of "
                    "handle.padding or handle.disabled of its first pass is unknown. Checkpoint "
                    "each filtered layer by itself, with use_reentrant=False. Do not change a mask "
                    "in place, and give passes with different masks tensors of their own"
                )
            return found
        value = blocks[-1] if blocks else NOTHING
        if any(block is OFF for block in blocks):
            value = OFF
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
