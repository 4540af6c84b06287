"""Figures of results: confusion matrix, scores of classes and folds, training curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from spaudio.io.escape import for_figure
from spaudio.report.figures.drawing import make_figure, save_figure

MOST_CLASSES = 60  # of a confusion matrix; memory and size grow with their square
PAIRS = 40  # most confused pairs of classes, drawn instead
BARS = 200  # most classes that are drawn as bars
_WIDEST = 40.0  # inches
_INCHES = 0.09  # width of a character of a label


def plot_confusion(confusion: Tensor, classes: Sequence[str], path: Path) -> None:
    """Draws a confusion matrix, normalized over each true class.

    With more than ``MOST_CLASSES`` classes, only the most confused pairs are drawn, as bars.

    Args:
        confusion: (classes, classes), number of clips; rows are true classes.
        classes: Class names.
        path: PNG to write.
    """
    if len(classes) > MOST_CLASSES:
        _plot_confused_pairs(confusion, classes, path)
        return
    from sklearn.metrics import ConfusionMatrixDisplay  # loads slowly

    shares = (confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)).numpy()
    names = [for_figure(name) for name in classes]
    size = max(4.0, 0.35 * len(classes) + 2) + _INCHES * max(map(len, names))
    figure = make_figure(size, size)
    axes = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=names)
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


def _plot_confused_pairs(confusion: Tensor, classes: Sequence[str], path: Path) -> None:
    """Draws how many clips of a class were taken for another, for the ``PAIRS`` largest counts."""
    errors = confusion.clone().fill_diagonal_(0)
    counts, places = errors.flatten().topk(PAIRS)
    pairs = [
        (f"{for_figure(classes[i // len(classes)])} as {for_figure(classes[i % len(classes)])}", n)
        for i, n in zip(places.tolist(), counts.tolist(), strict=True)
        if n > 0
    ]
    title = f"Most confused pairs of {len(classes):,} classes (true as predicted)"
    if not pairs:
        title = f"No pair of {len(classes):,} classes was confused"
    _draw_bars(pairs[::-1], path, title, xlabel="clips")


def plot_per_class(per_class: Mapping[str, Mapping[str, float | None]], path: Path) -> None:
    """Draws the average precision ``ap`` of each class as a bar, the largest at the top.

    With more than ``BARS`` classes, only the lowest and the highest are drawn.
    """
    known = sorted((row["ap"], name) for name, row in per_class.items() if row["ap"] is not None)
    title = ""
    if len(known) > BARS:
        title = f"lowest and highest {BARS // 2} of {len(known):,} classes"
        known = known[: BARS // 2] + known[-(BARS // 2) :]
    rows = [(for_figure(name), value) for value, name in known]
    _draw_bars(rows, path, title, xlabel="average precision", xlim=(0, 1))


def _draw_bars(rows: Sequence[tuple[str, float]], path: Path, title: str, **style: Any) -> None:
    """Draws a horizontal bar per row (escaped name, value), the first at the bottom."""
    figure = make_figure(7, max(2.0, 0.16 * len(rows) + 1))
    axes = figure.subplots()
    axes.barh(range(len(rows)), [value for _, value in rows])
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    if title:
        figure.suptitle(title)  # over the figure, as long names leave little to the axes
    axes.set(**style)
    save_figure(figure, path)


def plot_folds(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws accuracy and floor of each fold."""
    names = [for_figure(row["fold"]) for row in rows]
    length = _INCHES * max(map(len, names))
    wide = length > 0.7  # inches per fold
    figure = make_figure(min(max(5.0, 0.7 * len(rows) + 2), _WIDEST), 3.5 + length * wide)
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.bar(places - 0.2, [row["accuracy"] for row in rows], 0.4, label="transformer")
    axes.bar(places + 0.2, [row["svm"] for row in rows], 0.4, label="classical floor")
    axes.set_xticks(places, names, rotation="vertical" if wide else "horizontal")
    axes.set(xlabel="test fold", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_curves(log: Sequence[Mapping[str, Any]], path: Path, metric: str) -> None:
    """Draws training loss, validation loss and the metric ``valid_<metric>``.

    They are drawn against epochs; those of a probe against the penalties of its fits.
    """
    probe = any("penalty" in entry for entry in log)
    x, scale = ("penalty", "log") if probe else ("epoch", "linear")
    at = [entry[x] for entry in log]
    figure = make_figure(9, 3.5)
    loss, chosen = figure.subplots(1, 2)
    training = "training" if probe else "training (augmented, smoothed)"
    loss.plot(at, [entry["train_loss"] for entry in log], label=training)
    loss.plot(at, [entry["valid_loss"] for entry in log], label="validation")
    loss.set(xlabel=x, xscale=scale, ylabel="cross-entropy (nats)")
    loss.legend()
    chosen.plot(at, [entry[f"valid_{metric}"] for entry in log], color="tab:orange")
    chosen.set(xlabel=x, xscale=scale, ylabel=f"validation {metric}", ylim=(0, 1))
    save_figure(figure, path)


def plot_losses(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws training and validation loss of text against steps and against seconds."""
    figure = make_figure(9, 3.5)
    labels = {"step": "steps", "seconds": "seconds of training"}
    for axes, key in zip(figure.subplots(1, 2, sharey=True), labels, strict=True):
        at = [entry[key] for entry in log]
        axes.plot(at, [entry["train_loss"] for entry in log], label="training")
        axes.plot(at, [entry["valid_loss"] for entry in log], label="validation (fixed windows)")
        axes.set(xlabel=labels[key], ylabel="nats per character")
        axes.legend()
    save_figure(figure, path)
