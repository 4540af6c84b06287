"""Attaches a filter to a layer, so that the layer filters its output.

The layer's class is replaced by a generated subclass whose ``forward`` filters the output, and the
filter becomes a child module of the layer. ``torch.nn.utils.parametrize`` and ``fully_shard`` use
the same technique. Its advantages: ``isinstance`` checks and attributes still work, names in the
state dict stay the same, deepcopy and pickle copy the filter with the layer, compile and export see
plain code, and ``nn.TransformerEncoderLayer`` keeps its fast path, which a hook would disable.
"""

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
    """Whether a filter is attached to the module."""
    return hasattr(module, LAYOUT)


def attach(layer: nn.Module, filter: TokenFilter, layout: Layout) -> None:
    """Attaches a filter to a layer, in place."""
    layer.add_module(CHILD, filter.train(layer.training))
    setattr(layer, LAYOUT, layout)
    base: Any = type(layer)
    layer.__class__ = filtered_class(base)


def detach(layer: nn.Module) -> None:
    """Undoes :func:`attach`.

    Raises:
        ValueError: If the layer's class was replaced again since, as ``fully_shard`` does.
    """
    base = vars(type(layer)).get(UNFILTERED)
    if base is None:
        raise ValueError(
            f"the class {type(layer).__name__} was set after its filter; undo that first"
        )
    layer.__class__ = base
    delattr(layer, CHILD)
    delattr(layer, LAYOUT)


@functools.cache
def filtered_class(base: Any) -> Any:
    """The filtering subclass of a layer's class, cached."""

    @functools.wraps(base.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = base.forward(self, *args, **kwargs)
        return getattr(self, LAYOUT).apply(getattr(self, CHILD), output, args, kwargs)

    def reduce_ex(self: Any, protocol: Any) -> Any:
        # The class cannot be imported by name: copies and pickles create it from its base, and set
        # the state of the blank layer.
        return _blank, (base,), self.__getstate__()

    body = {
        "forward": forward,
        "__reduce_ex__": reduce_ex,
        "__module__": base.__module__,
        UNFILTERED: base,
    }
    return types.new_class(f"Filtered{base.__name__}", (base,), {}, lambda ns: ns.update(body))


def _blank(base: Any) -> Any:
    cls = filtered_class(base)
    return cls.__new__(cls)
