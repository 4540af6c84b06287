"""Warnings of this package as commands print them."""

import warnings
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_format = warnings.formatwarning


def plain_warnings() -> None:
    """Prints warnings of this package without the line of code that they come from.

    For commands: their users can do nothing with the line.
    """
    warnings.formatwarning = _plain


def _plain(
    message: Any, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    if category is UserWarning and Path(filename).is_relative_to(_PACKAGE):
        return f"{message}\n"
    return _format(message, category, filename, lineno, line)
