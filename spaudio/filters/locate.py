"""Finds layers of a model by name, glob or module."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from spaudio.filters.attach import CHILD, is_filtered

Layers = str | nn.Module | Sequence[str | nn.Module]


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Finds layers by name, glob or module; see :func:`insert_filters`.

    Raises:
        ValueError: If an item matches nothing; the message gives the nearest names.
    """
    named = dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    for item in [layers] if isinstance(layers, str | nn.Module) else layers:
        matches = [name for name, module in named.items() if _matches(item, name, module)]
        if not matches:
            raise ValueError(no_match(item, list(named)))
        for name in matches:
            found.update(_expand(name, named[name]))
    if not found:
        raise ValueError(f"no layer in {layers!r}; name a layer or a ModuleList that holds some")
    # A module that has two names is one layer.
    unique = {id(module): name for name, module in reversed(found.items())}
    return {name: module for name, module in found.items() if unique[id(module)] == name}


def _matches(item: str | nn.Module, name: str, module: nn.Module) -> bool:
    if isinstance(item, nn.Module):
        return module is item
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
    if isinstance(layer, nn.ModuleList | nn.ModuleDict | nn.Sequential | torch.jit.ScriptModule):
        raise ValueError(f"{name!r} is a {type(layer).__name__}; name a layer inside it")
    if "forward" in vars(layer):
        raise ValueError(
            f"the forward of {name!r} was replaced on the instance, which would bypass the filter; "
            "insert filters first"
        )
