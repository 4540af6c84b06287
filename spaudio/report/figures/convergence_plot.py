"""Validation loss against steps and seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spaudio.io.escape import for_figure
from spaudio.report.convergence import Convergence
from spaudio.report.figures.drawing import make_figure, save_figure


def plot_convergence(found: Sequence[Convergence], path: Path) -> None:
    """Draws validation loss against steps and against seconds of training.

    Each line is the mean over the seeds of a setting; the band extends from the lowest to the
    highest seed.

    Args:
        found: From :func:`spaudio.report.convergence.measure_convergence`.
        path: PNG to write.
    """
    legend_rows = (len(found) + 1) // 2
    figure = make_figure(12, 5 + 0.2 * legend_rows)
    panels = figure.subplots(1, 2, sharey=True)
    for i, one in enumerate(found):
        curves = list(one.curves.values())
        # Runs of different length have no mean beyond the end of the shortest.
        length = min(len(curve.losses) for curve in curves)
        losses = np.array([curve.losses[:length] for curve in curves])
        color, line = f"C{i % 10}", ("-", "--", ":")[i // 10 % 3]
        for axes, name in zip(panels, ("steps", "seconds"), strict=True):
            at = np.array([curve.spent[name][:length] for curve in curves]).mean(axis=0)
            axes.plot(at, losses.mean(axis=0), line, color=color, label=for_figure(one.name, 120))
            axes.fill_between(at, losses.min(axis=0), losses.max(axis=0), color=color, alpha=0.15)
            axes.grid(alpha=0.3)
    panels[0].set(xlabel="steps", ylabel="validation loss (nats)")
    panels[1].set(xlabel="seconds of training")
    # The losses of the first quarter are so high that the settings could not be told apart.
    every = [curve for one in found for curve in one.curves.values()]
    ends = [loss for curve in every for loss in curve.losses[len(curve.losses) // 4 :]]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    panels[0].set_ylim(min(ends) - margin, max(ends) + margin)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=2, fontsize=8)
    save_figure(figure, path, dpi=80)  # such figures are committed, and must be small
