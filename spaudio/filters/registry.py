"""The classes of filters by name, and how a filter is built from its name and options."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spaudio.filters.base import TokenFilter

#: Filter class by name. A subclass of ``TokenFilter`` that has a ``name`` adds itself.
FILTERS: dict[str, type[TokenFilter]] = {}


def register(cls: type[TokenFilter]) -> None:
    """Adds a filter class to :data:`FILTERS`.

    A class that is defined again, as in a notebook, replaces the earlier one.

    Raises:
        ValueError: If another class has the same name.
    """
    other = FILTERS.get(cls.name, cls)
    if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"{cls.__qualname__}: the name {cls.name!r} is taken by {other}; choose another name"
        )
    FILTERS[cls.name] = cls


def make_filter(
    name: str, dim: int | None = None, *, causal: bool = False, **options: Any
) -> TokenFilter:
    """Builds a filter by name.

    Args:
        name: A key of ``FILTERS``.
        dim: Embedding dimension, passed on to the filters that depend on it.
        causal: Whether a token sees only itself and the past.
        options: Arguments of the class, such as ``num_filters`` and ``kernel_size``.

    Returns:
        The filter, of the class ``FILTERS[name]``.

    Raises:
        ValueError: If the name or an option is unknown, or the class rejects a value; the message
            lists the valid ones.
    """
    if name not in list(FILTERS):  # a list takes names that cannot be hashed
        near = difflib.get_close_matches(str(name), FILTERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown filter {name!r}; expected one of {list(FILTERS)}{hint}")
    parameters = inspect.signature(FILTERS[name]).parameters
    unknown = [option for option in options if option not in parameters]
    if unknown:
        allowed = [option for option in parameters if option != "dim"]
        raise ValueError(f"filter {name!r} has no option {unknown[0]!r}; it has {allowed}")
    if "dim" in parameters:
        if dim is None and parameters["dim"].default is inspect.Parameter.empty:
            raise ValueError(f"filter {name!r} needs dim, the embedding dimensions")
        options["dim"] = dim
    return FILTERS[name](causal=causal, **options)
