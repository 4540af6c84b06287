"""Figures of a convergence report: losses on two axes, and the first layer's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from spaudio.report.convergence import Convergence


def plot_convergence(found: Sequence[Convergence], path: Path) -> None:
    """Draws validation loss against steps and against seconds of training, in one figure.

    Each setting is one line, the mean over seeds; the band is from the lowest to the highest seed.

    Args:
        found: Settings.
        path: PNG to write.
    """
    names = (len(found) + 1) // 2  # rows of the legend, which stands below: it may be long
    figure = Figure(figsize=(12, 5 + 0.2 * names), layout="constrained")
    by_steps, by_seconds = figure.subplots(1, 2, sharey=True)
    for i, one in enumerate(found):
        curves = list(one.curves.values())
        # Runs that were measured at different steps have no mean curve; the shortest decides.
        length = min(len(curve.losses) for curve in curves)
        losses = np.array([curve.losses[:length] for curve in curves])
        style = {"color": f"C{i % 10}", "linestyle": ("-", "--", ":")[i // 10 % 3]}
        for axes, name in ((by_steps, "steps"), (by_seconds, "seconds")):
            at = np.array([curve.spent[name][:length] for curve in curves]).mean(axis=0)
            axes.plot(at, losses.mean(axis=0), label=one.name, **style)
            axes.fill_between(
                at, losses.min(axis=0), losses.max(axis=0), color=style["color"], alpha=0.15
            )
    by_steps.set(xlabel="steps", ylabel="validation loss (nats)")
    by_seconds.set(xlabel="seconds of training")
    # The first measurements are far above all that tells the settings apart.
    every = [curve for one in found for curve in one.curves.values()]
    ends = [loss for curve in every for loss in curve.losses[len(curve.losses) // 4 :]]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    by_steps.set_ylim(min(ends) - margin, max(ends) + margin)
    lines, labels = by_steps.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=2, fontsize=8)
    for axes in (by_steps, by_seconds):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
