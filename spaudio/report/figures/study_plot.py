"""Charts of a study: effects, accuracy over costs, and modulation responses."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaudio.io.escape import for_figure
from spaudio.report.figures.drawing import make_figure, save_figure
from spaudio.report.study_effects import Effect
from spaudio.report.study_records import Result, on_one_processor, values_of
from spaudio.report.tables import mean_std

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_RANGE = 0.04  # of the accuracy axis
_COSTS = {
    "trained_parameters": "trained parameters (equal ones side by side)",
    "train_seconds": "seconds of training",
}


def plot_effects(effects: Sequence[Effect], controls: Sequence[Effect], path: Path) -> None:
    """Draws the gain of each setting with its interval, and its mean on each dataset.

    A setting has one row: the gain over its baseline and, below that, over its control. Settings
    with the same baseline are drawn together.

    Args:
        effects: Comparisons with baselines, from
            :func:`spaudio.report.study_effects.measure_effects`.
        controls: Comparisons with controls.
        path: PNG to write, 700 pixels wide.
    """
    known = {effect.setting for effect in effects}
    groups: dict[str, list[Effect]] = {}
    for effect in [*effects, *(one for one in controls if one.setting not in known)]:
        groups.setdefault(effect.other, []).append(effect)
    drawn = [effect for group in groups.values() for effect in group]
    heads: dict[int, str] = {}  # by row, from the top down
    main: dict[str, int] = {}
    for other, group in groups.items():
        heads[-len(heads) - len(main)] = f"minus {for_figure(other, 50)}:"
        for effect in group:
            main[effect.setting] = -len(heads) - len(main)
    labels = heads | {row: for_figure(setting, 50) for setting, row in main.items()}
    figure = make_figure(7, 1.5 + 0.27 * len(labels))
    axes = figure.subplots()
    axes.axvline(0, color="0.5", linewidth=1)
    for i, name in enumerate(dict.fromkeys(name for one in drawn for name in one.differences)):
        dots = [
            (100 * float(one.differences[name].mean()), main[one.setting])
            for one in drawn
            if name in one.differences
        ]
        points, at = zip(*dots, strict=True)
        axes.scatter(points, at, s=16, color=f"C{i}", label=for_figure(name), zorder=5)
    second = [one for one in controls if one.setting in known]
    for some, below, color, label in (
        (drawn, 0.0, "black", "minus the setting above, 95 % interval"),
        (second, 0.35, "0.6", "minus the control, named at the right"),
    ):
        for one in some:
            mean, low, high = (100 * value for value in (one.mean, one.low, one.high))
            y = main[one.setting] - below
            if not math.isnan(low):
                axes.plot([low, high], [y, y], color=color, linewidth=1.8, zorder=2)
            axes.scatter(mean, y, marker="D", s=26, color=color, zorder=4,
                         label=label if one is some[0] else None)  # fmt: skip
            if some is second:
                axes.text(1.01, y, f"minus {for_figure(one.other, 50)}", fontsize=7, color="0.5",
                          va="center", transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_yticks(list(labels), list(labels.values()), fontsize=9)
    for tick, row in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight("bold" if row in heads else "normal")
    axes.set_ylim(-len(labels) + 0.2, 0.6)
    axes.set_xlabel("points of accuracy", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    save_figure(figure, path, dpi=100)


def plot_costs(results: Sequence[Result], path: Path) -> None:
    """Draws accuracy over trained parameters and over seconds of training, for each dataset.

    Args:
        results: Results of all runs. A point is the mean over folds and seeds, its bar their
            standard deviation. Settings without the folds and seeds of the one with the most
            runs are left out, as are datasets with one setting, and times on another processor than
            that of most runs. Points of equal cost are drawn side by side.
        path: PNG to write, 700 pixels wide.
    """
    runs: dict[str, dict[str, list[Result]]] = {}
    for one in results:
        runs.setdefault(one.data, {}).setdefault(one.setting, []).append(one)
    for name, own in runs.items():  # a mean over only some folds covers other clips
        folds = {setting: {(r.fold, r.seed) for r in group} for setting, group in own.items()}
        most = max(folds.values(), key=len)
        runs[name] = {setting: group for setting, group in own.items() if folds[setting] == most}
    compared = {name: own for name, own in runs.items() if len(own) > 1} or runs
    settings = values_of(results, "setting")
    figure = make_figure(7, 0.8 + 2.2 * len(compared))
    panels = figure.subplots(len(compared), 2, squeeze=False)
    for row, (name, own) in zip(panels, compared.items(), strict=True):
        timed = set(on_one_processor([one for group in own.values() for one in group]))
        for axes, (field, label) in zip(row, _COSTS.items(), strict=True):
            of = {  # times of the runs on one processor, but parameters of all
                s: [getattr(r, field) for r in group if field != "train_seconds" or r in timed]
                for s, group in own.items()
            }
            x = {setting: statistics.fmean(values) for setting, values in of.items() if values}
            low, high = min(x.values()), max(x.values())
            logarithmic = high > 10 * low
            for setting, at in x.items():
                group = own[setting]
                if not logarithmic:
                    equal = [other for other in x if x[other] == x[setting]]
                    aside = equal.index(setting) - (len(equal) - 1) / 2
                    at += 0.05 * aside * (high - low or high)
                i, (y, std) = settings.index(setting), mean_std([r.accuracy for r in group])
                color = f"C{i % 10}"
                axes.scatter(at, y, s=30, color=color, marker="osD^v"[i // 10 % 5],
                             label=for_figure(setting))  # fmt: skip
                if not math.isnan(std):
                    axes.errorbar(at, y, std, color=color, lw=0.8, capsize=2, fmt="none")
            if logarithmic:
                # Whole decades, so that each has a label, and no point on the frame.
                left, right = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
                axes.set(xscale="log", xlim=(min(left, low / 1.2), max(right, 1.2 * high)))
            else:
                axes.locator_params(axis="x", nbins=4)
            bottom, top = axes.get_ylim()
            missing = max(0.0, LEAST_RANGE - (top - bottom)) / 2  # noise must not fill a panel
            top = min(top + missing, 1.0)
            axes.set_ylim(min(bottom - missing, top - LEAST_RANGE), top)
            axes.set_xlabel(label, fontsize=9)
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.3)
        row[0].set_ylabel("test accuracy", fontsize=9)
        row[0].set_title(for_figure(name), fontsize=10, loc="left")
    _legend(figure, ncols=4)
    save_figure(figure, path, dpi=100)


def plot_modulation(results: Sequence[Result], path: Path) -> None:
    """Draws how training changes the correlation of kernels with the sounds' modulation spectrum.

    Args:
        results: Results of all runs; those without such kernels are left out. An arrow is the mean
            over folds and seeds of a setting on a dataset.
        path: PNG to write, 700 pixels wide.
    """
    runs: dict[str, dict[str, list[Result]]] = {}
    for one in results:
        if not math.isnan(one.modulation_after):
            runs.setdefault(one.data, {}).setdefault(one.setting, []).append(one)
    heights = [len(own) + 1.5 for own in runs.values()]
    figure = make_figure(7, 1 + 0.22 * sum(heights))
    panels = figure.subplots(len(runs), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, own) in zip(panels, runs.items(), strict=True):
        for y, group in enumerate(own.values()):
            before = statistics.fmean(one.modulation_before for one in group)
            after = statistics.fmean(one.modulation_after for one in group)
            color, head, end = ("C0", ">", "higher") if after > before else ("C3", "<", "lower")
            axes.plot([before, after], [y, y], color=color, linewidth=1.3)
            axes.scatter(before, y, s=24, color="white", edgecolors="0.3", zorder=3,
                         label="before training")  # fmt: skip
            axes.scatter(after, y, s=24, color=color, marker=head, zorder=4, label=f"after: {end}")
        axes.axvline(0, color="0.5", linewidth=1)
        axes.set_yticks(range(len(own)), [for_figure(setting, 50) for setting in own], fontsize=8)
        axes.set_ylim(len(own) - 0.4, -0.6)
        axes.set_title(for_figure(name), fontsize=10, loc="left")
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_xlim(-1.02, 1.02)
    panels[-1].set_xlabel("correlation with the modulation spectrum of the audio", fontsize=10)
    _legend(figure, ncols=3)
    save_figure(figure, path, dpi=100)


def _legend(figure: "Figure", ncols: int) -> None:
    """Draws one legend below the panels, in which each label is named once."""
    found = {
        label: point
        for axes in figure.axes
        for point, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=ncols, fontsize=9)
