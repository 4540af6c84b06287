"""A layer that filters what it returns.

A filtered layer keeps its identity. It becomes an instance of a subclass of its own class, made
here, whose ``forward`` filters what the class returned; the filter is a child module of the layer.
Torch's ``parametrize`` and ``fully_shard`` do the same, for the same reasons: ``isinstance`` and
attributes hold, names in the state dict stay, deepcopy and pickle copy the filter with the layer,
compile and export see plain code, and ``nn.TransformerEncoderLayer`` keeps the fast path that a
hook would turn off, so that its output stays bit-identical.
"""

from __future__ import annotations

import functools
import types
from typing import Any

from torch import nn

from spaudio.filters.base import TokenFilter
from spaudio.filters.layout import Layout

CHILD = "token_filter"
LAYOUT = "_token_layout"
UNFILTERED = "_unfiltered_class"


def is_filtered(module: nn.Module) -> bool:
    """Whether :func:`attach` gave the module a filter."""
    return hasattr(module, LAYOUT)


def attach(layer: nn.Module, filter: TokenFilter, layout: Layout) -> None:
    """Makes a layer filter what it returns."""
    filter.train(layer.training)
    layer.add_module(CHILD, filter)
    setattr(layer, LAYOUT, layout)
    base: Any = type(layer)
    layer.__class__ = filtered_class(base)


def detach(layer: nn.Module) -> None:
    """Undoes :func:`attach`.

    Raises:
        ValueError: If something else subclassed the layer since, as ``fully_shard`` does.
    """
    base = vars(type(layer)).get(UNFILTERED)
    if base is None:
        raise ValueError(f"{type(layer).__name__} was subclassed after its filter; undo that first")
    layer.__class__ = base
    delattr(layer, CHILD)
    delattr(layer, LAYOUT)


@functools.cache
def filtered_class(base: Any) -> Any:
    """The subclass of a layer's class that filters; one for each class."""

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = base.forward(self, *args, **kwargs)
        return getattr(self, LAYOUT).apply(getattr(self, CHILD), output, args, kwargs)

    def reduce_ex(self: Any, protocol: Any) -> Any:
        # The class has no importable name: copies and pickles make it anew from its base.
        return _blank, (base,), self.__getstate__()

    body = {
        "forward": forward,
        "__reduce_ex__": reduce_ex,
        "__module__": base.__module__,
        UNFILTERED: base,
    }
    return types.new_class(f"Filtered{base.__name__}", (base,), {}, lambda ns: ns.update(body))


def _blank(base: Any) -> Any:
    """A filtered layer without content, for copy and pickle to fill."""
    cls = filtered_class(base)
    return cls.__new__(cls)
