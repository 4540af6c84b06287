"""Finds layers of a model by name, glob or module."""

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from spaudio.filters.insertion.attach import CHILD, is_filtered

Layers = str | nn.Module | Sequence[str | nn.Module]


def find_layers(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Finds layers by name, glob or module; see :func:`insert_filters`.

    Raises:
        ValueError: If an item matches nothing (the message gives the nearest names), or several
            ``Sequential`` end with the same module.
    """
    modules = model.named_modules(remove_duplicate=False)
    named = {name: module for name, module in modules if not _in_filter(name, model)}
    # A module that has several names is one layer, called by the first.
    first = {id(module): name for name, module in reversed(named.items())}
    found: dict[str, nn.Module] = {}
    one = isinstance(layers, str | nn.Module) or not isinstance(layers, Iterable)
    items: Any = [layers] if one else layers
    if isinstance(layers, nn.ModuleList) and id(layers) not in first:
        items = layers  # a slice, which is a list of its own
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


def _in_filter(name: str, model: nn.Module) -> bool:
    """Whether a module is a filter that was inserted, or in one."""
    parts = name.split(".")
    outer = (".".join(parts[:i]) for i, part in enumerate(parts) if part == CHILD)
    return any(is_filtered(model.get_submodule(each)) for each in outer)


def _check_shared(first: str, name: str, model: nn.Module) -> None:
    """Raises ValueError if a module ends a ``Sequential`` and is called in another place too."""
    (outer, _, key), (other, _, last) = first.rpartition("."), name.rpartition(".")
    holder, own = model.get_submodule(outer), model.get_submodule(other)
    if (holder is not own or key != last) and isinstance(own, nn.Sequential):
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
    """Replaces a ``ModuleList`` by its items, and a ``Sequential`` by its last module.

    A ``Sequential`` of modules of one class is a list of layers.
    """
    children = list(module.named_children())
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        every = list(module._modules.items())  # named_children names a module only once
        equal = len({type(child) for _, child in every}) == 1  # as blocks of a vision transformer
        children = every if equal else every[-1:]
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


def around(model: nn.Module, name: str) -> dict[str, nn.Module]:
    """The modules that contain a layer, by name, innermost first: around each of its names."""
    layer = model.get_submodule(name)
    outer: dict[int, str] = {}
    for each, module in model.named_modules(remove_duplicate=False):
        while module is layer and each:
            each = each.rpartition(".")[0]
            outer.setdefault(id(model.get_submodule(each)), each)
    return {each: model.get_submodule(each) for each in outer.values()}
