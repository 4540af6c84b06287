"""Predictions of audio files as a table, CSV or JSON."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from spaudio.io.csv_files import csv_text, for_csv
from spaudio.io.escape import printable, writable
from spaudio.report.tables import show

UNSURE = "unsure"


class Ranked:
    """A prediction of a classifier: classes ranked by probability."""

    probabilities: NDArray[np.float32]
    classes: Sequence[str]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.top(1)[0][1]

    def top(self, count: int) -> list[tuple[str, float]]:
        """Returns the ``count`` most probable classes and their probabilities."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def decision(self, unsure: float) -> str:
        """Returns the most probable class, or ``"unsure"`` if its probability is below a limit."""
        return self.label if self.confidence >= unsure else UNSURE


@dataclass(frozen=True)
class Prediction(Ranked):
    """The prediction of one file.

    Args:
        path: The file.
        seconds: Its duration.
        windows: Number of windows that it was cut into. Probabilities are their mean.
        probabilities: (classes,).
        classes: Class names, in the order of the probabilities.
    """

    path: Path
    seconds: float
    windows: int
    probabilities: NDArray[np.float32]
    classes: Sequence[str]


class _Text(io.StringIO):
    """Text for the terminal, in whose encoding the frame of a table is drawn."""

    encoding = property(lambda self: getattr(sys.stdout, "encoding", None))


def render(
    form: str,
    predictions: Sequence[Prediction],
    *,
    top: int,
    window_seconds: float,
    unsure: float | None = None,
    bad: Sequence[tuple[Path, str]] = (),
) -> str:
    """Formats predictions.

    Args:
        form: ``"table"``, ``"csv"`` or ``"json"``.
        predictions: One per file.
        top: Number of classes per file.
        window_seconds: Length of the windows that longer files were cut into.
        unsure: Adds the decision of each file, which is ``"unsure"`` below this probability.
        bad: Files that could not be used, each with the reason. Only JSON includes them.
    """
    if form == "json":
        return as_json(predictions, top, window_seconds, unsure, bad)
    if form == "csv":
        return as_csv(predictions, top, unsure)
    return as_table(predictions, top, window_seconds, unsure) if predictions else ""


def as_json(
    predictions: Sequence[Prediction],
    top: int,
    window_seconds: float,
    unsure: float | None,
    bad: Sequence[tuple[Path, str]],
) -> str:
    """Returns JSON with predictions and the files that could not be used; see :func:`render`."""
    files = [
        {
            "file": str(one.path),
            "seconds": one.seconds,
            "windows": one.windows,
            **({} if unsure is None else {"decision": one.decision(unsure)}),
            "classes": [{"class": label, "probability": share} for label, share in one.top(top)],
        }
        for one in predictions
    ]
    content = {
        "window_seconds": window_seconds,
        "probabilities": "mean over windows",
        "predictions": files,
        "bad": [{"file": str(path), "reason": reason} for path, reason in bad],
    }
    return json.dumps(content, indent=1) + "\n"


def as_csv(predictions: Sequence[Prediction], top: int, unsure: float | None) -> str:
    """Returns a CSV file with a line for each file and class; see :func:`render`."""
    lines: list[Sequence[Any]] = [
        ["file", "seconds", "windows", *_decision(unsure), "rank", "class", "probability"]
    ]
    for one in predictions:
        file = [for_csv(writable(one.path)), f"{one.seconds:.3f}", one.windows]
        if unsure is not None:
            file.append(for_csv(one.decision(unsure)))
        for rank, (label, share) in enumerate(one.top(top), start=1):
            lines.append([*file, rank, for_csv(label), f"{share:.6f}"])
    return csv_text(lines)


def as_table(
    predictions: Sequence[Prediction], top: int, window_seconds: float, unsure: float | None
) -> str:
    """Returns a table for the terminal, with a row for each file; see :func:`render`."""
    cut = any(one.windows > 1 for one in predictions)
    table = Table(
        caption=f"Files longer than {window_seconds:.4g} s are cut into windows of that "
        "length; probabilities are the weighted mean over windows"
        if cut
        else None
    )
    shown = min(top, len(predictions[0].classes))
    ranks = ["class", *(f"class {i + 1}" for i in range(1, shown))]
    header = ["file", "seconds", "windows", *_decision(unsure)]
    for name in [*header, *(column for rank in ranks for column in (rank, "probability"))]:
        is_text = name.startswith(("file", "class", "decision"))
        table.add_column(name, justify="left" if is_text else "right")
    for one in predictions:
        cells = [
            cell
            for label, share in one.top(top)
            for cell in (escape(printable(label)), f"{share:.4f}")
        ]
        if unsure is not None:
            cells.insert(0, escape(printable(one.decision(unsure))))
        name = escape(printable(one.path))
        table.add_row(name, f"{one.seconds:.2f}", str(one.windows), *cells)
    text = _Text()
    show(table, text)
    return text.getvalue()


def _decision(unsure: float | None) -> list[str]:
    """Returns the header of the column of decisions, if there is one."""
    return [] if unsure is None else ["decision"]
