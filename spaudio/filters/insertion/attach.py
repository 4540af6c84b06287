"""Attaches a filter to a layer, so that the layer filters its output.

The layer's class is replaced by a generated subclass whose ``forward`` filters the output, and the
filter becomes a child module of the layer. ``torch.nn.utils.parametrize`` and ``fully_shard`` use
the same technique. Its advantages: ``isinstance`` checks and attributes still work, names in the
state dict stay the same, deepcopy and pickle copy the filter with the layer, compile and export see
plain code, and ``nn.TransformerEncoderLayer`` keeps its fast path, which a hook would disable.
"""

import functools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.filters.arguments import require
from spaudio.filters.base import TokenFilter
from spaudio.filters.insertion.calls import Call, Watch, calls_around, in_progress, past_tokens
from spaudio.filters.insertion.generation import filter_with_cache
from spaudio.filters.insertion.layout import Layout
from spaudio.filters.insertion.packing import find_packed
from spaudio.filters.insertion.padding import find_padding, warn_if_inverted
from spaudio.filters.insertion.passes import Passes
from spaudio.filters.insertion.stated import NOTHING, OFF, Stated, check_fits
from spaudio.filters.insertion.subclass import make_subclass
from spaudio.filters.tracing import (
    as_leaf,
    in_backward,
    in_forward,
    is_eager,
    is_exported,
    is_symbolic,
)

CHILD = "token_filter"
PLACE = "_filtered_place"
UNFILTERED = "_unfiltered_class"


@dataclass(eq=False)
class Place:
    """Where a filter is attached.

    Attributes:
        layer: Name of the layer in the model.
        layout: Layout of its output.
        watches: Watches of the layer and of the modules around it, innermost first.
        key: Tells the filter from all others that use the same key/value cache. Names do not: they
            are relative to the module that filters were inserted into.
        checked: Whether a mask has been checked.
        stated: What the user states for calls.
        passes: What was found in calls that a backward pass may repeat.
    """

    layer: str
    layout: Layout
    watches: Sequence[Watch]
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    checked: bool = False
    stated: Stated = field(default_factory=Stated)
    passes: Passes = field(default_factory=Passes)

    @property
    def reads_padding_around(self) -> bool:
        """Whether a module around the layer takes a padding mask."""
        return any(watch.takes_padding for watch in self.watches[1:])

    @property
    def may_be_given_lengths(self) -> bool:
        """Whether a traced module around the layer is given the lengths of the items.

        Of the outermost one, torch.fx calls no hook, so only its signature is known.
        """
        calls = {call.watch: call for call in in_progress()}
        return any(
            calls[watch].lengths is not None
            if watch in calls
            else any(name.endswith("s") for name in watch.length_names)
            for watch in self.watches[1:]
        )

    def apply(self, filter: TokenFilter, output: Any, own: Call) -> Any:
        """Filters the output of the layer's own call."""
        if torch.compiler.is_compiling() and not is_exported():
            self._refuse_repetition(own)
        stated = self.stated.find(own.tokens, self.passes, self.layer)
        if stated is OFF:
            self._keep(own, stated=stated)
            return output
        calls = calls_around(own, self.watches)

        def run(x: Tensor, padding_mask: Tensor | None) -> Tensor:
            if is_eager():
                self._check_batch_first(x, calls)
            if padding_mask is None:
                padding_mask = self._padding(x, calls, stated)
            elif stated is not NOTHING:
                raise ValueError(
                    f"layer {self.layer!r} returned a nested tensor, which has padding of its own "
                    "beside that of handle.padding; make an nn.TransformerEncoder with "
                    "enable_nested_tensor=False"
                )
            if padding_mask is not None:  # of the whole model, whose layers may be on other devices
                padding_mask = padding_mask.to(x.device)
            past, packed = past_tokens(calls), None
            if past is not None and not past:
                packed = find_packed(
                    calls,
                    x.shape[0],
                    x.shape[1],
                    layer=self.layer,
                    padding_mask=padding_mask,
                    passes=self.passes,
                )
            self._keep(own, stated=stated, padding=padding_mask, packed=packed)
            if packed is not None:
                flat = x.reshape(1, -1, x.shape[2])
                y: Tensor = filter(flat, cu_seqlens=packed.to(x.device))
                return y.view(x.shape)
            return filter_with_cache(filter, x, padding_mask, calls, self.layer, self.key)

        return self.layout.apply(run, output, self.layer)

    def _keep(self, own: Call, **found: Any) -> None:
        """Keeps what was found for a call, if a backward pass may repeat it."""
        # Reentrant checkpointing, whose first pass has no gradients, copies the tokens.
        if is_eager() and torch.is_grad_enabled():
            self.passes.keep(own.tokens, **found)

    def _padding(self, x: Tensor, calls: Sequence[Call], stated: Any) -> Tensor | None:
        """Returns the padding mask of the layer's tokens: the stated one, or that of the calls."""
        wanted, mask = self.layout.padding_mask, None
        if stated is not NOTHING:
            mask = stated
            if mask is not None:
                check_fits(mask, x, self.layer)
        elif wanted is not None:
            mask = find_padding(
                calls,
                x.shape[0],
                x.shape[1],
                layer=self.layer,
                repeated=in_backward() and self._misses_padding(calls),
                named=wanted != "auto",
                passes=self.passes,
            )
        # First whether it is eager: a compiler would guard what an eager call changes.
        if is_eager() and mask is not None and not self.checked:
            warn_if_inverted(mask, self.layer)
            self.checked = True
        return mask

    def _refuse_repetition(self, own: Call) -> None:
        """Makes compiled code raise RuntimeError if a backward pass repeats the layer alone.

        Compiled for the calls around it, a layer is compiled again where these are over.
        """
        missing = self._missing(calls_around(own, self.watches))
        unstated = self.stated.repeated and (missing or not self.watches[1:])
        if own.tokens is not None and (unstated or any(watch.gave_padding for watch in missing)):
            require(
                in_forward(own.tokens.detach()),
                # Without its name, by which each layer would be compiled anew.
                "a filtered layer is compiled by itself and recomputed in the backward pass, "
                "outside the calls that know its padding or packed sequences. Compile the whole "
                "model, or do not compile its checkpointed layers. If no token is ever padding, "
                "pass insert_filters(padding_mask=None)",
            )

    def _misses_padding(self, calls: Sequence[Call]) -> bool:
        """Whether a module around the layer that takes a padding mask is not among the calls."""
        return any(watch.takes_padding for watch in self._missing(calls))

    def _missing(self, calls: Sequence[Call]) -> list[Watch]:
        """Watches of modules around the layer that are not among the calls."""
        called = {call.watch for call in calls}
        return [watch for watch in self.watches[1:] if watch not in called]

    def _check_batch_first(self, x: Tensor, calls: Sequence[Call]) -> None:
        """Raises ValueError if the model's ids (batch, tokens) show that x is (tokens, batch)."""
        ids = calls[-1].tokens
        if ids is None or ids.dim() != 2 or ids.is_floating_point() or not self.layout.batch_first:
            return
        batch, tokens = ids.shape
        if batch != tokens and (tokens, batch) == tuple(x.shape[:2]):
            raise ValueError(
                f"layer {self.layer!r} returns (tokens, batch, dim) = {tuple(x.shape)}, as the "
                f"model was given {batch} items of {tokens} tokens; pass "
                "insert_filters(batch_first=False)"
            )


def is_filtered(module: nn.Module) -> bool:
    """Whether a filter is attached to the module."""
    return PLACE in vars(module)  # hasattr on a compiled layer also looks at the layer inside


def attach(layer: nn.Module, filter: TokenFilter, place: Place) -> None:
    """Attaches a filter to a layer, in place."""
    # A class that registers its subclasses by name may have made the layer of a filtering one.
    base: Any = vars(type(layer)).get(UNFILTERED, type(layer))
    kind = filtered_class(base)  # first, as the class may refuse subclasses
    layer.add_module(CHILD, filter.train(layer.training))
    setattr(layer, PLACE, place)
    for watch in place.watches:
        watch.filters += 1
    layer.__class__ = kind


def check_detachable(layer: nn.Module) -> None:
    """Raises ValueError if the layer's class was replaced after :func:`attach`."""
    if UNFILTERED not in vars(type(layer)):
        raise ValueError(
            f"the layer's class was changed to {type(layer).__name__} after its filter was "
            "attached; undo that first"
        )


def detach(layer: nn.Module) -> None:
    """Undoes :func:`attach`.

    Raises:
        ValueError: If the layer's class was replaced again later, as ``fully_shard`` does.
    """
    check_detachable(layer)
    layer.__class__ = vars(type(layer))[UNFILTERED]
    for watch in getattr(layer, PLACE).watches:
        watch.release()
    delattr(layer, CHILD)
    delattr(layer, PLACE)


@functools.cache
def filtered_class(base: Any) -> Any:
    """The filtering subclass of a layer's class, cached."""

    # Without attributes: one of a compiled forward makes Dynamo call that instead of this one.
    @functools.wraps(base.forward, updated=())
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_filtered(self):  # made by a class that registers its subclasses by name
            return base.forward(self, *args, **kwargs)
        place: Place = getattr(self, PLACE)
        if place.stated.open and getattr(self, "_is_replica", False):
            raise RuntimeError(
                "handle.padding and handle.disabled do not reach the replicas of nn.DataParallel; "
                "use DistributedDataParallel"
            )
        if is_symbolic(args, kwargs):
            if place.reads_padding_around and not place.watches[0].takes_padding:
                raise TypeError(
                    f"torch.fx does not record the padding of layer {place.layer!r}, which the "
                    "modules around it take; insert filters with padding_mask=None to ignore it"
                )
            if place.layout.padding_mask is not None and place.may_be_given_lengths:
                raise TypeError(
                    f"torch.fx does not check the lengths that modules around layer "
                    f"{place.layer!r} take; insert filters with padding_mask=None to ignore padding"
                )
            return as_leaf(self, args, kwargs)
        own = place.watches[0].record(args, kwargs)
        output = base.forward(self, *args, **kwargs)
        return place.apply(getattr(self, CHILD), output, own)

    # Not the module torch.nn, whose classes torch.fx does not trace into.
    body = {"forward": forward, "__module__": __name__, UNFILTERED: base}
    return make_subclass(filtered_class, base, body)
