"""Whether the values that settings are given are of the kind that the settings take."""

from __future__ import annotations

import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override, ValueType

from spaudio.errors import ConfigError

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a word",
    list: "a list",
    dict: "a mapping",
}


_FEW = 12  # names that a message lists even where one is near


def check_value(key: str, value: Any, default: Any) -> None:
    """Compares a value with the one that it replaces.

    A default of null takes anything, and so does one that is read from another setting.

    Raises:
        ConfigError: If the kinds differ, or a number is not finite.
    """
    if default is None or (isinstance(default, str) and ("${" in default or default == "???")):
        return
    if isinstance(value, str) and "${" in value:
        return
    kind = next(kind for kind in _KINDS if isinstance(default, kind))
    if not _is(value, kind):
        raise ConfigError(f"{key}={_shown(value)}; expected {_KINDS[kind]}, such as {default!r}")


def check_arguments(function: Callable[..., Any], arguments: Mapping[str, Any], name: str) -> None:
    """Compares arguments with a function's annotations; those other than of plain types pass.

    Args:
        function: What will be called.
        arguments: Its keyword arguments.
        name: What the arguments are called in a message, such as ``"prep_options"``.

    Raises:
        ConfigError: If an argument is unknown or its kind is another one.
    """
    known = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    hints = typing.get_type_hints(function)
    for key, value in arguments.items():
        if key not in known:
            raise ConfigError(f"{name}.{key} is unknown; there are {', '.join(known)}")
        union = isinstance(hints[key], types.UnionType)
        kinds = typing.get_args(hints[key]) if union else (hints[key],)
        plain = all(kind in _KINDS or kind is types.NoneType for kind in kinds)
        if plain and not any(_is(value, kind) for kind in kinds):
            words = " or ".join(_KINDS.get(kind, "null") for kind in kinds)
            raise ConfigError(f"{name}.{key}={_shown(value)}; expected {words}")


def values(override: Override) -> Iterator[Any]:
    """The values that an override gives, one or those of a sweep; none where they have no end."""
    if not override.is_sweep_override():
        yield override.value()
    elif override.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        yield from override.sweep_iterator()


def quoted(value: object) -> str:
    """Text as the value of an override, whatever is in it."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unknown(what: str, name: str, known: Sequence[str]) -> ConfigError:
    """The error about a name that is not among those known, with the nearest."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if not near or len(known) <= _FEW:
        hints.append(f"known: {', '.join(known)}")
    return ConfigError(f"unknown {what} {name!r}; {' '.join(hints)}")


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    """A value as the command line has it."""
    return "null" if value is None else repr(value)
