"""Finds layers of a model by name, glob or module."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from spaudio.filters.attach import CHILD, is_filtered
from spaudio.filters.calls import PADDING_ARGUMENTS, argument_places, takes_any_name
from spaudio.filters.layout import Layout

Layers = str | nn.Module | Sequence[str | nn.Module]
CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
)
_FORWARDS = [kind.forward for kind in CHANNELS_FIRST]


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Finds layers by name, glob or module; see :func:`insert_filters`.

    Raises:
        ValueError: If an item matches nothing (the message gives the nearest names), or several
            ``Sequential`` end with the same module.
    """
    named = dict(model.named_modules(remove_duplicate=False))
    # A module that has several names is one layer, called by the first.
    first = {id(module): name for name, module in reversed(named.items())}
    found: dict[str, nn.Module] = {}
    one = isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable)
    items: Any = [layers] if one else layers
    for item in items:
        if not isinstance(item, str | nn.Module):
            raise ValueError(f"layers must be names or modules of the model; got {item!r}")
        matches: dict[int, str] = {}
        for name, module in named.items():
            if _matches(item, name, module):
                matches.setdefault(id(module), name)
        if not matches:
            raise ValueError(no_match(item, list(named)))
        for name in matches.values():
            found.update(_expand(name, named[name]))
    if not found:
        raise ValueError(f"no layer in {layers!r}; name a layer or a ModuleList that holds some")
    for name, module in found.items():
        _check_shared(first[id(module)], name, model)
    return {first[id(module)]: module for module in found.values()}


def _check_shared(first: str, name: str, model: nn.Module) -> None:
    """Raises ValueError if two names refer to one module that ends two ``Sequential``."""
    holders = [model.get_submodule(each.rpartition(".")[0]) for each in (first, name)]
    if holders[0] is not holders[1] and isinstance(holders[1], nn.Sequential):
        raise ValueError(
            f"{first!r} and {name!r} are one module, whose filter would run twice; give each "
            "Sequential a last module of its own"
        )


def _matches(item: str | nn.Module, name: str, module: nn.Module) -> bool:
    if isinstance(item, nn.Module):
        return module is item
    if not name:  # the model itself, which "*" does not mean
        return not item
    parts, wanted = name.split("."), item.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _expand(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """Replaces a ``ModuleList`` by its items and a ``Sequential`` by its last module."""
    children = list(module.named_children())
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        children = children[-1:]
    elif type(module) is not nn.ModuleList:
        return {name: module}
    found: dict[str, nn.Module] = {}
    for key, child in children:
        found.update(_expand(f"{name}.{key}" if name else key, child))
    return found


def no_match(item: str | nn.Module, names: list[str]) -> str:
    """Error message for a name or a module that is not in the model."""
    if isinstance(item, nn.Module):
        return f"{type(item).__name__} given as a layer is not part of the model"
    near = difflib.get_close_matches(item, names, n=5, cutoff=0.3)
    return f"no layer matches {item!r}; the nearest names are {near or names[1:6]}"


def check_model(model: nn.Module) -> None:
    """Raises ValueError if ``model`` is not a module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module; got {type(model).__name__}")


def check_layer(name: str, layer: nn.Module, model: nn.Module) -> None:
    """Raises ValueError if a filter after the layer would be bypassed or run twice."""
    parts = name.split(".")
    for depth in range(len(parts)):
        outer = model.get_submodule(".".join(parts[:depth]))
        if isinstance(outer, nn.TransformerEncoderLayer | nn.MultiheadAttention) and name:
            raise ValueError(
                f"{name!r} lies inside a {type(outer).__name__}, which may use its weights without "
                "calling it; name the layer itself"
            )
    if is_filtered(layer) or hasattr(layer, CHILD):
        raise ValueError(f"{name!r} has a filter already; remove() its handle first")
    # Copies of an fx GraphModule are of that class, without the filter.
    plain = torch.jit.ScriptModule | torch.fx.GraphModule
    if isinstance(layer, nn.ModuleList | nn.ModuleDict | nn.Sequential | plain):
        raise ValueError(f"{name!r} is a {type(layer).__name__}; name a layer inside it")
    # Setting the class would drop the filter.
    if isinstance(layer, LazyModuleMixin) and hasattr(layer, "_initialize_hook"):
        raise ValueError(
            f"{name!r} is a {type(layer).__name__}, which becomes another class in its first call; "
            "call the model once before inserting filters"
        )
    if "forward" in vars(layer):
        inside = next((f"{name}.{n}".lstrip(".") for n, _ in layer.named_children()), None)
        raise ValueError(
            f"the forward of {name!r} was replaced on the instance, as by torch.compile(layer) or "
            "device_map, which would bypass the filter; insert filters first"
            + (f", or name a module inside it, such as {inside!r}" if inside else "")
        )


def check_layout(name: str, layer: nn.Module, layout: Layout) -> None:
    """Raises ValueError if a layer returns another layout, as its class or ``batch_first`` tells.

    Of layers that contain others, only torch's own are inspected: in other layers, the code around
    an attention module or a convolution may transpose its tokens.
    """
    if layout.channels_first:
        return
    # A subclass with its own forward may take tokens before channels.
    if isinstance(layer, CHANNELS_FIRST) and type(layer).forward in _FORWARDS:
        raise ValueError(
            f"{name!r} is a {type(layer).__name__}, which returns (batch, dim, tokens), so its "
            "filter would take dimensions for tokens; pass insert_filters(channels_first=True)"
        )
    inner = layer
    if isinstance(inner, nn.TransformerEncoder | nn.TransformerDecoder) and len(inner.layers):
        inner = inner.layers[0]
    if isinstance(inner, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        inner = inner.self_attn
    own = getattr(inner, "batch_first", None)
    if isinstance(own, bool) and own != layout.batch_first:
        raise ValueError(
            f"{name!r} has batch_first={own}, so its filter would take items of the batch for "
            f"tokens; pass insert_filters(batch_first={own})"
        )


def around(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """The modules that contain a layer, by name, innermost first: around each of its names."""
    layer = model.get_submodule(name)
    outer: dict[int, str] = {}
    for each, module in model.named_modules(remove_duplicate=False):
        while module is layer and each:
            each = each.rpartition(".")[0]
            outer.setdefault(id(model.get_submodule(each)), each)
    return {each: model.get_submodule(each) for each in outer.values()}


def is_causal(model: nn.Module, modules: Iterable[nn.Module]) -> bool:
    """Whether the attention of a layer, or around it, is causal, as models of transformers say.

    Their attention has a flag ``is_causal``. Where no module has one, a model that generates text
    without an encoder counts as causal.

    Args:
        model: The whole model.
        modules: The layer, and what contains it, innermost first (see :func:`around`).
    """
    for module in modules:
        flags: list[Any] = [getattr(each, "is_causal", None) for each in module.modules()]
        if any(isinstance(flag, bool) for flag in flags):
            return any(flag is True for flag in flags)
    generates = getattr(model, "generation_config", None) is not None
    return generates and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def check_padding_argument(
    model: nn.Module, layers: Iterable[str], padding_mask: str | None
) -> None:
    """Raises ValueError if neither a layer nor a module around it has the named argument."""
    if not isinstance(padding_mask, str | None):
        raise ValueError(
            "padding_mask must be the name of an argument, 'auto' or None; got a "
            f"{type(padding_mask).__name__}. Pass masks to the model when it is called"
        )
    if padding_mask in (None, "auto"):
        return
    for name in layers:
        modules = {name: model.get_submodule(name)} | around(model, name)
        taken = {n for module in modules.values() for n in argument_places(module.forward)}
        if any(takes_any_name(module.forward) for module in modules.values()):
            taken.update(PADDING_ARGUMENTS)
        if padding_mask not in taken:
            raise ValueError(
                f"neither {name!r} nor a module around it has an argument {padding_mask!r}; they "
                f"take {sorted(taken)}"
            )


def layer_dim(filter: str, name: str, layer: nn.Module, model: nn.Module) -> int:
    """Embedding dimension of the tokens that a layer returns.

    It is read from the layer itself if it is linear, a convolution, an embedding or a norm;
    otherwise from its norms if these agree, or from the innermost config of the layer or a module
    around it that has a ``hidden_size``.

    Raises:
        ValueError: If none of them gives it, or norms and config differ; the message shows the call
            that works.
    """
    norms = {_norm_width(module) for module in layer.modules()} - {None}
    inner = norms.pop() if len(norms) == 1 else None
    configs = [getattr(m, "config", None) for m in (layer, *around(model, name).values())]
    sizes = [getattr(config, "hidden_size", None) for config in configs]
    hidden = next((size for size in sizes if isinstance(size, int)), None)
    # The norms may be of heads or of the input, whose width is not that of the output.
    agree = inner is None or hidden in (None, inner)
    for dim in (_width(layer), *((inner, hidden) if agree else ())):
        if isinstance(dim, int):
            return dim
    raise ValueError(
        f"filter {filter!r} needs dim, the embedding dimensions, which cannot be read from the "
        f"layer {name!r} ({type(layer).__name__}); pass it: "
        f"insert_filters(model, {name!r}, {filter!r}, dim=...)"
    )


def _width(layer: nn.Module) -> Any:
    """Output width of a layer without layers inside."""
    for attribute in ("out_features", "out_channels", "embedding_dim"):
        if hasattr(layer, attribute):
            return getattr(layer, attribute)
    return _norm_width(layer)


def _norm_width(module: nn.Module) -> int | None:
    """Width of a norm over the last axis: LayerNorm, RMSNorm and their variants."""
    weight = getattr(module, "weight", None)
    shape = getattr(module, "normalized_shape", None)
    if shape is None and "Norm" in type(module).__name__ and isinstance(weight, torch.Tensor):
        shape = weight.shape
    if isinstance(shape, int):  # as of the norms of I-BERT
        return shape
    return int(shape[0]) if shape is not None and len(shape) == 1 else None
