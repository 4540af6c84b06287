"""Checks that a filter can follow a layer of a model."""

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from spaudio.filters.insertion.attach import CHILD, is_filtered
from spaudio.filters.insertion.calls import PADDING_ARGUMENTS, argument_places, takes_any_name
from spaudio.filters.insertion.layout import Layout, PaddingFunction
from spaudio.filters.insertion.locate import around

CHANNELS_FIRST = (
    nn.Conv1d,
    nn.ConvTranspose1d,
    nn.BatchNorm1d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.GroupNorm,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.LPPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveAvgPool1d,
    nn.Upsample,
    nn.Dropout1d,
)
# They return the layout that they are given.
_POINTWISE = (
    nn.Identity, nn.Dropout, nn.GELU, nn.ReLU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.PReLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Softplus,
)  # fmt: skip
_FORWARDS = [kind.forward for kind in CHANNELS_FIRST]


def check_model(model: nn.Module) -> None:
    """Raises ValueError if ``model`` is not a module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module; got {type(model).__name__}")


def check_unwrapped(model: nn.Module) -> None:
    """Raises ValueError if a wrapper that synchronises weights would not know new ones."""
    for module in model.modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        if wrapper := kinds & {"DistributedDataParallel", "FSDPModule", "FullyShardedDataParallel"}:
            raise ValueError(
                f"the model holds a {wrapper.pop()}, which would not synchronise the weights of "
                "filters that are inserted now; insert filters before wrapping the model"
            )


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


def check_layout(name: str, layer: nn.Module, layout: Layout, model: nn.Module) -> None:
    """Raises ValueError if a layer returns another layout, as its class or ``batch_first`` tells.

    Of layers that contain others, only torch's own are inspected: in other layers, the code around
    an attention module or a convolution may transpose its tokens.
    """
    if layout.channels_first:
        return
    source = _source_of_layout(name, layer, model)
    # A subclass with its own forward may take tokens before channels.
    if isinstance(source, CHANNELS_FIRST) and type(source).forward in _FORWARDS:
        after = "" if source is layer else f" after a {type(source).__name__}"
        raise ValueError(
            f"{name!r} is a {type(layer).__name__}{after}, which returns (batch, dim, tokens), so "
            "its filter would take dimensions for tokens; pass insert_filters(channels_first=True)"
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


def _source_of_layout(name: str, layer: nn.Module, model: nn.Module) -> nn.Module:
    """Returns the layer, or for an activation in a ``Sequential`` what decides its layout."""
    outer, _, key = name.rpartition(".")
    holder = model.get_submodule(outer)
    if not isinstance(layer, _POINTWISE) or not isinstance(holder, nn.Sequential):
        return layer
    children = holder._modules
    before = [m for m in list(children.values())[: list(children).index(key)] if m is not None]
    return next((m for m in reversed(before) if not isinstance(m, _POINTWISE)), layer)


def check_padding_argument(
    name: str, padding_mask: str | PaddingFunction | None, model: nn.Module
) -> None:
    """Raises ValueError if neither the layer nor a module around it has the named argument."""
    if callable(padding_mask):
        return
    if not isinstance(padding_mask, str | None):
        raise ValueError(
            "padding_mask must be the name of an argument, 'auto', a function or None; got a "
            f"{type(padding_mask).__name__}. Pass masks to the model when it is called"
        )
    if padding_mask in (None, "auto"):
        return
    modules = [model.get_submodule(name), *around(model, name).values()]
    taken = {argument for module in modules for argument in argument_places(module.forward)}
    if any(takes_any_name(module.forward) for module in modules):
        taken.update(PADDING_ARGUMENTS)
    if padding_mask not in taken:
        raise ValueError(
            f"neither {name!r} nor a module around it has an argument {padding_mask!r}; they take "
            f"{sorted(taken)}"
        )
