"""Figures of results: confusion matrix, scores of classes and folds, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor

from spaudio.report.drawing import save_figure


def plot_confusion(confusion: Tensor, classes: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix, normalized over each true class.

    Args:
        confusion: (classes, classes), number of clips; rows are true classes.
        classes: Class names.
        path: PNG to write.
    """
    shares = (confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    size = max(4.0, 0.35 * len(classes) + 2)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=classes)
    display.plot(
        ax=axes,
        cmap="Blues",
        include_values=len(classes) <= 20,
        xticks_rotation="vertical",
        colorbar=False,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 8},
    )
    if display.text_ is not None:  # counts instead of shares
        counts = confusion.flatten().tolist()
        for text, count, share in zip(display.text_.flat, counts, shares.flat, strict=True):
            color = "white" if share > 0.5 else "black"
            text.set(text=str(count) if count else "", color=color)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(display.im_, ax=axes, label="share of the true class", shrink=0.8)
    save_figure(figure, path)


def plot_per_class(per_class: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Draws the average precision ``ap`` of each class as a bar, the largest at the top."""
    known = sorted((row["ap"], name) for name, row in per_class.items() if row["ap"] is not None)
    figure = Figure(figsize=(7, max(2.0, 0.16 * len(known) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for _, name in known], [value for value, _ in known])
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    axes.set(xlabel="average precision", xlim=(0, 1))
    save_figure(figure, path)


def plot_folds(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws accuracy and floor of each fold."""
    figure = Figure(figsize=(max(5.0, 0.7 * len(rows) + 2), 3.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.bar(places - 0.2, [row["accuracy"] for row in rows], 0.4, label="transformer")
    axes.bar(places + 0.2, [row["svm"] for row in rows], 0.4, label="classical floor")
    axes.set_xticks(places, [row["fold"] for row in rows])
    axes.set(xlabel="test fold", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path, metric: str) -> None:
    """Draws training loss, validation loss and the metric ``valid_<metric>`` against epochs."""
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, chosen = figure.subplots(1, 2)
    loss.plot(epochs, [r["train_loss"] for r in records], label="training (augmented, smoothed)")
    loss.plot(epochs, [r["valid_loss"] for r in records], label="validation")
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    loss.legend()
    chosen.plot(epochs, [r[f"valid_{metric}"] for r in records], color="tab:orange")
    chosen.set(xlabel="epoch", ylabel=f"validation {metric}", ylim=(0, 1))
    save_figure(figure, path)


def plot_losses(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws training and validation loss of text against steps and against seconds."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    labels = {"step": "steps", "seconds": "seconds of training"}
    for axes, key in zip(figure.subplots(1, 2, sharey=True), labels, strict=True):
        at = [record[key] for record in records]
        axes.plot(at, [r["train_loss"] for r in records], label="training")
        axes.plot(at, [r["valid_loss"] for r in records], label="validation (fixed windows)")
        axes.set(xlabel=labels[key], ylabel="nats per character")
        axes.legend()
    save_figure(figure, path)
