"""What was found in calls of a layer, for when activation checkpointing repeats them.

The backward pass repeats a checkpointed layer alone: the calls around it, which told its padding or
its packing, are over.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spaudio.filters.tracing import has_values, in_backward, is_eager

#: Nothing was found that still holds.
UNKNOWN = object()
#: Different things were found, and any of these calls may be repeated.
SEVERAL = object()


class _Found(NamedTuple):
    """A value, and if it is a tensor, its version when it was found."""

    value: Any
    version: int | None


#: What was found by name, and the version of the tensor that was given.
_Calls = MutableMapping[Tensor, tuple[dict[str, _Found], int | None]]


class Passes:
    """What was found in calls, by name: tensors, None or constants.

    A call is recognised by a tensor among its arguments that a repeated call is given again. What
    was found goes with that tensor, and holds until one of them is changed in place. Copies begin
    without any.

    Attributes:
        packed: Whether a call was ever given packed sequences, also one that is not kept.
        by_boundaries: Whether such a call was given their boundaries, which count before positions.
    """

    def __init__(self) -> None:
        self.packed = self.by_boundaries = False
        self._calls: _Calls = WeakTensorKeyDictionary()

    def __reduce__(self) -> Any:
        return Passes, ()

    def keep(self, given: Tensor | None, **values: Any) -> None:
        """Keeps what was found for the call that was given a tensor."""
        # First whether it is eager: a compiler would guard the entries of other calls, which go.
        if not is_eager() or given is None or not has_values(given):
            return
        found = {n: _Found(v, version_of(v)) for n, v in values.items() if not _holds(v, given)}
        before, version = self._calls.get(given, ({}, None))
        if version == version_of(given):
            for name in before.keys() & found.keys():
                if not _same(before[name], found[name]):
                    found[name] = _Found(SEVERAL, None)
        self._calls[given] = found, version_of(given)

    def recall(self, given: Tensor | None, name: str) -> Any:
        """Returns what was found for such a call: the value, ``UNKNOWN`` or ``SEVERAL``."""
        if given is None or given not in self._calls:
            return UNKNOWN
        found, version = self._calls[given]
        known = name in found and version == version_of(given) and _unchanged(found[name])
        return found[name].value if known else UNKNOWN


def version_of(value: Any) -> int | None:
    """Counts the changes of a tensor in place; None where they are not counted."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def _unchanged(found: _Found) -> bool:
    return found.version == version_of(found.value)


def _holds(value: Any, given: Tensor) -> bool:
    """Whether a value keeps a tensor alive, under which its entry would then stay forever."""
    return value is given or (isinstance(value, Tensor) and value._base is given)


def _same(one: _Found, other: _Found) -> bool:
    """Whether the same was found for two calls."""
    if one.value is other.value:
        return one.version == other.version
    if not (isinstance(one.value, Tensor) and isinstance(other.value, Tensor) and _unchanged(one)):
        return False
    # To compare values, the backward pass would wait for a GPU; during a capture they are unknown.
    if in_backward() or (one.value.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    return one.value.device == other.value.device and torch.equal(one.value, other.value)
