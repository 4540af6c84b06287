"""The filter of a run and its options, in a reader's words."""

from __future__ import annotations

from typing import Any


def filter_choice(report: dict[str, Any]) -> str:
    """Writes which filter a run has, as its settings name it.

    Args:
        report: ``report.json``.

    Returns:
        Markdown: the name as code, then the options in brackets, such as ``(num_filters=36,
        kernel_size=4)``; those that are null are left out.
    """
    options = dict(report["filter"])
    name = options.pop("name")
    written = ", ".join(f"{key}={value}" for key, value in options.items() if value is not None)
    return f"`{name}` ({written})" if written else f"`{name}`"
