"""The classes of filters by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
