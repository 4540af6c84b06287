"""Predictions of audio files as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

FORMATS = ("table", "csv", "json")


@dataclass(frozen=True)
class Prediction:
    """The prediction of one file.

    Args:
        path: The file.
        seconds: Its duration.
        windows: Number of windows that it was cut into. Probabilities are their mean.
        probabilities: (classes,).
    """

    path: Path
    seconds: float
    windows: int
    probabilities: NDArray[np.float32]

    def top(self, classes: Sequence[str], count: int) -> list[tuple[str, float]]:
        """Returns the ``count`` most probable classes and their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(classes[i], float(self.probabilities[i])) for i in order]


def render(
    form: str,
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    *,
    top: int,
    window_seconds: float,
    bad: Sequence[tuple[Path, str]] = (),
) -> str:
    """Formats predictions.

    Args:
        form: One of ``FORMATS``.
        predictions: One per file.
        classes: Class names, in the order of the probabilities.
        top: Number of classes per file.
        window_seconds: Length of the windows that longer files were cut into.
        bad: Files that could not be used, each with the reason. Only JSON includes them.
    """
    if form == "csv":
        return as_csv(predictions, classes, top)
    if form == "json":
        return as_json(predictions, classes, top, window_seconds, bad)
    return _as_text(as_table(predictions, classes, top, window_seconds)) if predictions else ""


def as_table(
    predictions: Sequence[Prediction], classes: Sequence[str], top: int, window_seconds: float
) -> Table:
    """Makes a table for the terminal, one row per file."""
    table = Table(
        caption=f"Files longer than {window_seconds:.4g} s are cut into windows of that length; "
        "probabilities are the mean over windows"
    )
    for name in ("file", "seconds", "windows", "class", "probability"):
        table.add_column(name, justify="left" if name in ("file", "class") else "right")
    for i in range(1, min(top, len(classes))):
        table.add_column(f"class {i + 1}")
        table.add_column("probability", justify="right")
    for one in predictions:
        found = one.top(classes, top)
        cells = [cell for label, share in found for cell in (escape(label), f"{share:.4f}")]
        table.add_row(escape(shown(one.path)), f"{one.seconds:.2f}", str(one.windows), *cells)
    return table


def as_csv(predictions: Sequence[Prediction], classes: Sequence[str], top: int) -> str:
    """Formats predictions as CSV, one row per file and rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "seconds", "windows", "rank", "class", "probability"])
    for one in predictions:
        for rank, (label, share) in enumerate(one.top(classes, top), start=1):
            row = [shown(one.path), f"{one.seconds:.3f}", one.windows, rank, label, f"{share:.6f}"]
            writer.writerow(row)
    return text.getvalue()


def as_json(
    predictions: Sequence[Prediction],
    classes: Sequence[str],
    top: int,
    window_seconds: float,
    bad: Sequence[tuple[Path, str]],
) -> str:
    """Formats predictions as JSON, with the files that could not be used and the reasons."""
    content = {
        "window_seconds": window_seconds,
        "probabilities": "mean over windows",
        "predictions": [
            {
                "file": shown(one.path),
                "seconds": one.seconds,
                "windows": one.windows,
                "classes": [
                    {"class": label, "probability": share} for label, share in one.top(classes, top)
                ],
            }
            for one in predictions
        ],
        "bad": [{"file": shown(path), "reason": reason} for path, reason in bad],
    }
    return json.dumps(content, indent=1) + "\n"


def _as_text(table: Table) -> str:
    """Renders a table at its full width, so that no name is truncated."""
    text = io.StringIO()
    width = Console(width=100_000).measure(table).maximum
    Console(width=width, file=text).print(table)
    return text.getvalue()


def shown(path: Path) -> str:
    """Returns a path as printable text. Bytes that are not UTF-8 are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
