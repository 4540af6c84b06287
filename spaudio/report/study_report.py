"""Tables and charts of a study over datasets, on the terminal and in a Markdown file."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaudio.io.messages import say
from spaudio.report.escape import for_figure, for_markdown
from spaudio.report.figures.drawing import make_figure, save_figure
from spaudio.report.figures.report_figures import Figures
from spaudio.report.marked_page import fill_place
from spaudio.report.study_effects import Effect, measure_effects
from spaudio.report.study_records import Result, write_results
from spaudio.report.tables import escaped_table, mean_std, plus_minus, show_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_RANGE = 0.04  # of the accuracy axis
_COSTS = {
    "trained_parameters": "trained parameters (equal ones side by side)",
    "train_seconds": "seconds of training",
}
Rows = list[dict[str, str]]


def show_results(
    results: Sequence[Result], *, output: Path | None = None, table: Path | None = None
) -> None:
    """Prints the results of a study and optionally writes them.

    Args:
        results: Results of its runs.
        output: Markdown file. If it has two lines ``<!-- results -->``, the text between them is
            replaced; if not, the file is overwritten. The charts are written beside it.
        table: CSV file for the results.

    Raises:
        DataError: If two runs are the same.
    """
    if table is not None:
        write_results(results, table)
    baselines = {one.setting: one.baseline for one in results if one.baseline}
    effects = {
        name: measure_effects(results, {one: of for one, of in baselines.items() if of == name})
        for name in dict.fromkeys(baselines.values())
    }
    controls = measure_effects(
        results, {one.setting: one.control for one in results if one.control}
    )
    adapted = any(one.trained_parameters < one.parameters for one in results)
    tables = {
        "Datasets": data_rows(results),
        "Validation accuracy, where it was not trained on": accuracy_rows(
            [one for one in results if not math.isnan(one.valid)], "valid"
        ),
        "Test accuracy, mean ± std over folds and seeds": accuracy_rows(results),
        **{
            f"Points of accuracy, minus {name}": effect_rows(found)
            for name, found in effects.items()
        },
        "Points of accuracy, minus the control": effect_rows(controls),
        "Costs, medians over runs (* not on the processor of most runs of the dataset)": (
            cost_rows(results) if adapted else []
        ),
        "Correlation of the kernels' mean response with the modulation spectrum of the audio, "
        "before and after training": modulation_rows(results),
    }
    tables = {title: rows for title, rows in tables.items() if rows}
    for title, rows in tables.items():
        show_rows(rows, title)
    if output is None:
        return
    figures, drawn = Figures(output.parent), []
    charts = [path.stem for path in charts_beside(output)]
    minus_baseline = [effect for found in effects.values() for effect in found]
    compared = [*minus_baseline, *controls]
    if compared:
        figures.draw(charts[0], lambda path: plot_effects(minus_baseline, controls, path))
        drawn.append(charts[0])
    if adapted:
        figures.draw(charts[1], lambda path: plot_costs(results, path))
        drawn.append(charts[1])
    if any(not math.isnan(one.modulation_after) for one in results):
        figures.draw(charts[2], lambda path: plot_modulation(results, path))
        drawn.append(charts[2])
    blocks = [
        f"**{for_markdown(title)}**\n\n{escaped_table(rows)}" for title, rows in tables.items()
    ]
    answer = [verdict(compared)] if compared else []
    fill_place(output, "\n\n".join([*answer, *blocks, *figures.links(*drawn)]))
    say(f"page: {output}")


def charts_beside(output: Path) -> list[Path]:
    """Returns the paths of the charts beside a page: effects, accuracy over costs, modulation."""
    return [
        output.with_name(f"{output.stem}-{kind}.png") for kind in ("effects", "costs", "modulation")
    ]


def data_rows(results: Sequence[Result]) -> Rows:
    """Returns the rows of the table of datasets."""
    rows = []
    for data in _names(results, "data"):
        mine = [one for one in results if one.data == data]
        counts = Counter(one.setting for one in mine)
        fullest = max(counts, key=counts.__getitem__)
        own = [one for one in mine if one.setting == fullest]
        rows.append(
            {
                "dataset": data,
                "recipe": mine[0].recipe,
                "runs per setting": str(len(own)),
                "test clips": f"{sum({one.fold: one.clips for one in own}.values()):,}",
                "tokens/s": _range([one.token_rate for one in mine]),
                "steps": _range([one.steps for one in own])
                if any(one.steps for one in own)
                else "-",
                "classical floor": plus_minus(
                    [*{one.fold: one.floor for one in own}.values()], digits=3
                ),
            }
        )
    return rows


def accuracy_rows(results: Sequence[Result], field: str = "accuracy") -> Rows:
    """Returns the rows of a table of settings and datasets.

    A cell shows the number of its runs if it lacks a fold or seed that another setting has.

    Args:
        results: Results of all runs.
        field: ``"accuracy"``, of the test split, or ``"valid"``, of the validation split.
    """
    runs: dict[str, set[tuple[str, int]]] = {}
    for one in results:
        runs.setdefault(one.data, set()).add((one.fold, one.seed))

    def cell(own: Sequence[Result]) -> str:
        most = len(runs[own[0].data])
        few = f" ({len(own)} of {most})" if len(own) < most else ""
        return plus_minus([getattr(one, field) for one in own], digits=3) + few

    return _grid(results, cell)


def modulation_rows(results: Sequence[Result]) -> Rows:
    """Returns the rows of the table of correlations with the modulation spectrum."""

    def cell(own: Sequence[Result]) -> str:
        before = [one.modulation_before for one in own]
        after = [one.modulation_after for one in own]
        return " → ".join(plus_minus(part, digits=2) for part in (before, after))

    return _grid([one for one in results if not math.isnan(one.modulation_after)], cell)


def cost_rows(results: Sequence[Result]) -> Rows:
    """Returns the rows of a table of what settings train and take, by dataset."""
    rows = []
    for data in _names(results, "data"):
        mine = [one for one in results if one.data == data]
        timed = set(_on_one_processor(mine))
        for setting in _names(mine, "setting"):
            own = [one for one in mine if one.setting == setting]
            mark = "" if timed.issuperset(own) else " *"
            step = statistics.median(one.step_seconds for one in own)
            train = statistics.median(one.train_seconds for one in own)
            rows.append(
                {
                    "setting": setting,
                    "dataset": data,
                    "runs": str(len(own)),
                    "trained parameters": _range([one.trained_parameters for one in own]),
                    "test accuracy": f"{statistics.fmean(one.accuracy for one in own):.3f}",
                    "ms per step": f"{1000 * step:,.0f}{mark}" if own[0].steps else "-",
                    "seconds of training": f"{train:,.1f}{mark}",
                }
            )
    return rows


def _on_one_processor(results: Sequence[Result]) -> list[Result]:
    """Returns the results whose times can be compared: those on the most common processor."""
    counts = Counter(one.instruction_set for one in results)
    most = max(counts, key=counts.__getitem__)
    return [one for one in results if one.instruction_set == most]


def _grid(results: Sequence[Result], cell: Callable[[Sequence[Result]], str]) -> Rows:
    """Returns a row per setting, with a cell per dataset; a dash where there are no results."""
    found: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        found.setdefault((one.setting, one.data), []).append(one)
    data = _names(results, "data")
    return [
        {
            "setting": setting,
            **{name: cell(own) if (own := found.get((setting, name))) else "-" for name in data},
        }
        for setting in _names(results, "setting")
    ]


def effect_rows(effects: Sequence[Effect]) -> Rows:
    """Returns the rows of a table of effects, in points of accuracy (hundredths)."""
    rows = []
    for effect in effects:
        pairs = effect.pairs
        timed = [(a, b) for a, b in pairs if a.instruction_set == b.instruction_set]
        rows.append(
            {
                "setting": effect.setting,
                "minus": effect.other,
                "datasets": str(len(effect.differences)),
                "pairs": str(len(pairs)),
                "points": f"{100 * effect.mean:+.2f}",
                "95 % interval": _interval(effect.low, effect.high),
                "bootstrap 95 %": _interval(*effect.bootstrap),
                "p": _p_value(effect.p),
                "p (Holm)": _p_value(effect.corrected),
                "filter parameters": _range([one.filter_parameters for one, _ in pairs]),
                "time per step": _ratio([(a.step_seconds, b.step_seconds) for a, b in timed]),
                "steps": _ratio([(a.steps, b.steps) for a, b in pairs]),
            }
        )
    return rows


def verdict(effects: Sequence[Effect]) -> str:
    """Returns Markdown: which settings are reliably above another one by a point or more.

    Args:
        effects: All effects, each corrected for the number of settings in its table.
    """
    # Interval and p share one standard error, but only p is corrected for the number of settings.
    above = [one for one in effects if one.mean >= 0.01 and one.low > 0 and one.corrected < 0.05]
    names = [f"`{one.setting}` minus `{one.other}` ({100 * one.mean:+.2f})" for one in above]
    return (
        "**Reliable gains (at least 1 point, 95 % interval above 0, p below 0.05 after correction "
        f"within each table), of {len(effects)} comparisons: {', '.join(names) or 'none'}.**"
    )


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
    settings = _names(results, "setting")
    figure = make_figure(7, 0.8 + 2.2 * len(compared))
    panels = figure.subplots(len(compared), 2, squeeze=False)
    for row, (name, own) in zip(panels, compared.items(), strict=True):
        timed = set(_on_one_processor([one for group in own.values() for one in group]))
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


def _names(results: Sequence[Result], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(one, field) for one in results))


def _interval(low: float, high: float) -> str:
    return "-" if math.isnan(low) else f"{100 * low:+.2f} to {100 * high:+.2f}"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _ratio(pairs: Sequence[tuple[float, float]]) -> str:
    """Returns the mean ratio; a dash without pairs, or if one of two is fitted without steps."""
    if not pairs or not all(one > 0 and other > 0 for one, other in pairs):
        return "-"
    return f"{statistics.fmean(one / other for one, other in pairs):.2f}"


def _range(values: Sequence[float]) -> str:
    low, high = (
        f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in (min(values), max(values))
    )
    return low if low == high else f"{low} to {high}"
