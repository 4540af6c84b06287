"""Inserts filters after layers of any model, without changes to its code or weights."""

import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from spaudio.filters.arguments import check_flag
from spaudio.filters.base import TokenFilter
from spaudio.filters.insertion.attach import (
    CHILD,
    PLACE,
    Place,
    attach,
    check_detachable,
    detach,
    is_filtered,
)
from spaudio.filters.insertion.calls import Watch, check_boolean_mask
from spaudio.filters.insertion.layer_checks import (
    check_layer,
    check_layout,
    check_model,
    check_padding_argument,
    check_unwrapped,
)
from spaudio.filters.insertion.layer_facts import is_causal, layer_dim
from spaudio.filters.insertion.layout import Layout, PaddingFunction, unsaved_function
from spaudio.filters.insertion.locate import Layers, around, find_layers, no_match
from spaudio.filters.insertion.stated import OFF
from spaudio.filters.none import NoFilter
from spaudio.filters.registry import FILTERS, make_filter


class FilterHandle:
    """Handle to filters that were inserted into a model.

    Returned by :func:`insert_filters`, :func:`load_filters` and :func:`find_filters`. Its length is
    its number of filters. Filters that were removed from the model are left out of all results.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._found = {name: (layer, getattr(layer, CHILD)) for name, layer in layers.items()}

    @property
    def _layers(self) -> dict[str, nn.Module]:
        """The layers that still have the filter of this handle."""
        found = self._found.items()
        return {n: layer for n, (layer, f) in found if getattr(layer, CHILD, None) is f}

    @property
    def filters(self) -> dict[str, TokenFilter]:
        """The filters.

        Returns:
            Each filter by the name of the layer that it follows, in order.
        """
        return {name: getattr(layer, CHILD) for name, layer in self._layers.items()}

    @property
    def layouts(self) -> dict[str, Layout]:
        """How the layers lay out their tokens, and where padding is found.

        Returns:
            Each layout by the name of its layer, in order.
        """
        return {name: getattr(layer, PLACE).layout for name, layer in self._layers.items()}

    @contextmanager
    def padding(self, mask: Tensor | None) -> Iterator[None]:
        """States which tokens are padding, for models whose masks filters cannot find or read.

        In the block, filters use this mask instead of those that the model is given::

            places = torch.arange(tokens, device=lengths.device)
            with handle.padding(places >= lengths[:, None]):
                output = model(x, lengths)

        Args:
            mask: Boolean (batch, tokens) of the outputs of the filtered layers, True where a token
                is padding; None if no token is.

        Raises:
            ValueError: If the mask is of another type or has not two axes, or there are no filters.
        """
        check_boolean_mask(mask, "handle.padding takes")
        with self._block(mask):
            yield

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switches the filters off: in the block, the model is the original one.

        To compare the two, or for the reference model of a loss::

            with torch.no_grad(), handle.disabled():
                reference = model(x)

        In this order, later passes may use any kind of activation checkpointing.

        Raises:
            ValueError: If there are no filters.
        """
        with self._block(OFF):
            yield

    @contextmanager
    def _block(self, value: Any) -> Iterator[None]:
        stated = [getattr(layer, PLACE).stated for layer in self._layers.values()]
        if not stated:
            raise ValueError("the handle has no filters")
        for one in stated:
            one.begin(value)
        try:
            yield
        finally:
            for one in stated:
                one.end()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the filters only, for an optimizer that leaves the model unchanged.

        Returns:
            An iterator over the parameters of each filter in order, tied ones once.
        """
        filters = self.filters.values()
        yield from dict.fromkeys(p for filter in filters for p in filter.parameters())

    def remove(self) -> None:
        """Removes the filters of this handle and restores the model.

        A second call does nothing; filters that were inserted later stay.

        Raises:
            ValueError: If a layer's class was replaced later, as ``fully_shard`` does.
        """
        layers = self._layers.values()
        for layer in layers:
            check_detachable(layer)  # before any is changed
        for layer in layers:
            detach(layer)

    def save_pretrained(self, directory: Any, **options: Any) -> None:
        """Saves the filters without the model; :func:`load_filters` loads them.

        Parameters that ``fully_shard`` has divided among processes are gathered: call it on all of
        them, with a folder for each.

        Args:
            directory: The folder.
            options: Options of ``PyTorchModelHubMixin.save_pretrained``, such as ``push_to_hub``.

        Raises:
            ImportError: If huggingface_hub is missing.
            ValueError: If there are no filters or some were removed, the class of one has no
                ``name`` of its own, or parameters are of several types in one filter, shared by
                two, pruned or parametrized.
        """
        from spaudio.filters.hub import SavedFilters  # needs huggingface_hub

        if not self._found:
            raise ValueError("the handle has no filters to save; insert some with insert_filters")
        removed = [name for name in self._found if name not in self._layers]
        if removed:
            raise ValueError(
                f"the filters of the layers {removed} were removed, so there is nothing to save; "
                "save before remove(), or use the handle of find_filters(model)"
            )
        SavedFilters.of(self.filters, self.layouts).save_pretrained(directory, **options)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"FilterHandle({self.filters})"


def insert_filters(
    model: nn.Module,
    layers: Layers,
    filter: str | TokenFilter = "bank",
    *,
    batch_first: bool = True,
    channels_first: bool = False,
    padding_mask: str | PaddingFunction | None = "auto",
    zero_init: bool = True,
    **options: Any,
) -> FilterHandle:
    """Inserts a filter after each named layer of a model, in place; returns a handle to them.

    If ``filter`` is a name, each filter starts as the identity, so the model's output stays
    bit-identical until they are trained; ``haar`` needs ``zero_init=False``. To filter before
    attention, name the norm that precedes it.

    Call the model itself, ``model(...)``: ``model.forward(...)`` runs no hooks, so filters do not
    see the padding mask or the key/value cache passed to it. Insert filters into the module that
    takes these, not into a part of it: filters only see the calls of ``model`` and of the modules
    in it. In a language model, pass ``causal=True``; a warning says if it is missing. With a
    key/value cache of transformers, causal filters continue the tokens of the cache; ``adaptive``
    and centred filters raise an error.

    Args:
        model: Any module.
        layers: Name of a layer (``"encoder.layers.0"``), name of a ``ModuleList``, or of a
            ``Sequential`` of modules of one class, for all layers in it (``"encoder.layers"``), a
            glob in which ``*`` matches one part of a name (``"*.layers.*"``), a module of the
            model, or a sequence of these. Any other ``Sequential`` means its last module.
        filter: Name of a filter, or a filter; each layer gets a copy of it on the layer's device.
        batch_first: Whether layers return (batch, tokens, dim) or (tokens, batch, dim).
        channels_first: Whether layers return (batch, dim, tokens).
        padding_mask: Where to find padding. ``"auto"`` looks at the usual arguments of the layer
            and of the modules around it and reads the innermost one that determines the padding
            (see :func:`spaudio.filters.insertion.padding.find_padding`). A name selects one
            argument of these modules: a mask (batch, tokens), True where a token is padding (False
            if the name ends with ``attention_mask``, or is ``padding_mask`` of a model of
            transformers). A function computes the mask, or None for no padding, from the arguments
            given to ``model``, by name; it is boolean (batch, tokens) of the layers, True at
            padding. None ignores padding.
        zero_init: Whether gains, or kernels without gains, start at zero; has no effect if
            ``filter`` is a module.
        options: Options of the filter, such as ``causal`` or ``kernel_size``. If ``dim`` is needed
            and not given, it is taken from the layer, like device and dtype.

    Returns:
        The handle, to train, save and remove the filters.

    Raises:
        ValueError: If a name matches nothing, a layer cannot be followed by a filter or returns
            another layout, or the filter or an option is unknown. The model is then
            unchanged.
    """
    check_model(model)
    check_unwrapped(model)
    check_flag(batch_first=batch_first, channels_first=channels_first)
    targets = find_layers(model, layers)
    layout = Layout(batch_first, channels_first, padding_mask)
    for name, layer in targets.items():
        check_layer(name, layer, model)
        check_layout(name, layer, layout, model)
        check_padding_argument(name, padding_mask, model)
    prepared = {
        name: (_build(filter, zero_init, options, name, layer, model), layout)
        for name, layer in targets.items()
    }
    return _attach_all(model, targets, prepared)


def load_filters(
    model: nn.Module,
    source: Any,
    *,
    padding_mask: PaddingFunction | None = None,
    **options: Any,
) -> FilterHandle:
    """Loads filters from :meth:`FilterHandle.save_pretrained` into a model; returns a handle.

    Args:
        model: A module with layers of the saved names.
        source: Folder, or repository on the Hugging Face Hub.
        padding_mask: The function, if the filters were inserted with one, which is not saved.
        options: Options of ``PyTorchModelHubMixin.from_pretrained``, such as ``revision``.

    Returns:
        The handle to the loaded filters, which are on the device of their layers; on the CPU if
        these are on ``meta``.

    Raises:
        ImportError: If huggingface_hub is missing.
        ValueError: If there is no such folder, a layer is missing, already has a filter or returns
            another layout, a saved setting is unknown, the weights do not fit, or a padding
            function is needed or not needed. The model is then unchanged.
    """
    from spaudio.filters.hub import SavedFilters

    check_model(model)
    check_unwrapped(model)
    saved = SavedFilters.from_pretrained(source, **options)
    if saved.layouts.keys() != saved.filters.keys():
        raise ValueError(
            f"{source} names no layers; load its filter with TokenFilter.from_pretrained"
        )
    layouts = dict(saved.layouts)
    needing = [n for n, each in layouts.items() if each.padding_mask is unsaved_function]
    layouts |= {name: replace(layouts[name], padding_mask=padding_mask) for name in needing}
    needs_function = bool(needing)
    if padding_mask is not None and not callable(padding_mask):
        raise ValueError(
            "load_filters takes a function as padding_mask; got a value of type "
            f"{type(padding_mask).__name__}. The name of an argument is saved with the filters; "
            "leave padding_mask out"
        )
    if needs_function is not callable(padding_mask):
        raise ValueError(
            f"the filters in {source} were inserted with a function as padding_mask, which is not "
            "saved; pass load_filters(model, source, padding_mask=FUNCTION)"
            if needs_function
            else f"the filters in {source} need no padding function; leave padding_mask out"
        )
    modules = dict(model.named_modules())
    targets = {name: module for name, module in modules.items() if name in saved.filters}
    # Exact names: a downloaded name must not act as a glob.
    if absent := [name for name in saved.filters if name not in modules]:
        raise ValueError(no_match(absent[0], list(modules)))
    for name, layer in targets.items():
        check_layer(name, layer, model)
        try:
            check_layout(name, layer, layouts[name], model)
        except ValueError as error:
            raise ValueError(
                f"{source} holds filters of a model whose layers return another layout, and the "
                f"layout is saved with them: {error}"
            ) from error
        check_padding_argument(name, layouts[name].padding_mask, model)
        _move(saved.filters[name], _weights(layer, model))
    prepared = {name: (saved.filters[name], layouts[name]) for name in targets}
    return _attach_all(model, targets, prepared)


def find_filters(model: nn.Module) -> FilterHandle:
    """Finds the filters that were inserted into a model; also works on a copied model.

    Filters that the model's own code calls, as the encoders of this package do, are not found.

    Args:
        model: Any module.

    Returns:
        A handle to them; of length 0 if there are none.
    """
    check_model(model)
    return FilterHandle({n: m for n, m in model.named_modules() if is_filtered(m)})


def _attach_all(
    model: nn.Module,
    targets: dict[str, nn.Module],
    prepared: dict[str, tuple[TokenFilter, Layout]],
) -> FilterHandle:
    """Attaches filters to layers, and watches the modules around them."""
    outer = {name: around(model, name) for name in targets}
    ahead = [name for name, (filter, _) in prepared.items() if filter.receptive_field[1] > 0]
    _warn_of_the_future(
        [name for name in ahead if is_causal(model, [targets[name], *outer[name].values()])]
    )
    watches: dict[tuple[str, Any], Watch] = {}
    attached: list[nn.Module] = []
    try:
        for name, layer in targets.items():
            filter, layout = prepared[name]
            found = [Watch(layer, layout.padding_mask, outermost=layer is model)]
            for each, module in outer[name].items():
                key = each, id(layout.padding_mask)
                if key not in watches:
                    watches[key] = Watch(module, layout.padding_mask, outermost=module is model)
                    if watches[key].useful:
                        watches[key].attach(module)
                if watches[key].useful:
                    found.append(watches[key])
            attach(layer, filter, Place(name, layout, found))
            attached.append(layer)
    except BaseException:  # a class may refuse subclasses
        for layer in attached:
            detach(layer)
        for watch in watches.values():
            if not watch.filters:
                watch.remove()
        raise
    return FilterHandle(targets)


def _warn_of_the_future(layers: Sequence[str]) -> None:
    """Warns of filters after causal layers that read future tokens."""
    if layers:
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        warnings.warn(
            f"the filters after {layers[0]!r}{more} read future tokens, but the attention there is "
            "causal: trained like this, a language model sees the tokens that it has to predict. "
            "Pass causal=True to insert_filters",
            stacklevel=4,
        )


def _weights(layer: nn.Module, model: nn.Module) -> list[nn.Parameter]:
    """Returns the floating-point weights of a layer, then those of the model."""
    return [p for m in (layer, model) for p in m.parameters() if p.is_floating_point()]


def _move(filter: TokenFilter, weights: list[nn.Parameter]) -> None:
    """Moves a filter to the device of the first weight, in place."""
    # Moving to or from the meta device would lose the weights.
    if weights and not any(p.is_meta for p in (weights[0], *filter.parameters())):
        filter.to(weights[0].device)


def _build(
    filter: str | TokenFilter,
    zero_init: bool,
    options: dict[str, Any],
    name: str,
    layer: nn.Module,
    model: nn.Module,
) -> TokenFilter:
    """Builds a layer's filter on its device, and in its dtype unless a filter is given."""
    weights = _weights(layer, model)
    if isinstance(filter, TokenFilter):
        if options:
            raise ValueError(f"a filter was given, so the options {list(options)} have no effect")
        found = deepcopy(filter)
        _move(found, weights)
        return found
    if not isinstance(filter, str):
        raise ValueError(
            "filter must be a name, such as 'bank', or a filter, such as FilterBank(); got "
            f"{filter!r}"
        )
    if "name" in options:
        raise ValueError(
            f"name={options['name']!r} is not an option; the filter is named by the argument "
            f"filter: insert_filters(model, layers, {options['name']!r})"
        )
    settings = dict(options)
    known = inspect.signature(FILTERS[filter]).parameters if filter in FILTERS else {}
    if "zero_init" in known:
        settings["zero_init"] = zero_init
    elif zero_init and filter in FILTERS and filter != NoFilter.name:
        raise ValueError(
            f"filter {filter!r} has no gains that could start at zero, so it changes the model's "
            "output at once; pass zero_init=False to insert it anyway"
        )
    dim = known.get("dim")
    needed = dim and (dim.default is inspect.Parameter.empty or options.get("gains") == "per_dim")
    if needed and "dim" not in options:
        settings["dim"] = layer_dim(filter, name, layer, model)
    if "device" in known and weights:
        settings.setdefault("device", weights[0].device)
        computing = [w.dtype for w in weights if w.itemsize > 1]  # 8 bits only store weights
        if computing:
            settings.setdefault("dtype", computing[0])
    return make_filter(filter, **settings)
