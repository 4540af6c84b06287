"""Figures of a run: confusion matrix, results of each class, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from spaudio.report.drawing import save_figure


def plot_confusion(confusion: Tensor, classes: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix, normalized over each true class.

    Args:
        confusion: (classes, classes), number of clips; rows are true classes.
        classes: Class names.
        path: PNG to write.
    """
    shares = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    size = max(4.0, 0.35 * len(classes) + 2)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= 20:
        for row in range(len(classes)):
            for column in range(len(classes)):
                if count := int(confusion[row, column]):
                    dark = shares[row, column] > 0.5
                    axes.text(
                        column, row, str(count), ha="center", va="center", fontsize=8,
                        color="white" if dark else "black",
                    )  # fmt: skip
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    save_figure(figure, path)


def plot_per_class(values: Mapping[str, float | None], name: str, path: Path) -> None:
    """Draws one value per class as bars, the largest at the top.

    Args:
        values: In [0, 1], by class. None is left out.
        name: What the values are.
        path: PNG to write.
    """
    known = sorted((value, label) for label, value in values.items() if value is not None)
    figure = Figure(figsize=(7, max(2.0, 0.16 * len(known) + 1)), layout="constrained")
    axes = figure.subplots()
    axes.barh([label for _, label in known], [value for value, _ in known])
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    axes.set(xlabel=name, xlim=(0, 1))
    save_figure(figure, path)


def plot_curves(records: Sequence[dict[str, Any]], path: Path, metric: str = "accuracy") -> None:
    """Draws training loss, validation loss and a validation metric against epochs.

    Args:
        records: The training log.
        path: PNG to write.
        metric: A metric that the log has as ``valid_<metric>``.
    """
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
