"""Tables of a study over datasets, on the terminal and in a Markdown file with charts."""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spaudio.io.escape import for_markdown
from spaudio.io.messages import say
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.study_plot import plot_costs, plot_effects, plot_modulation
from spaudio.report.marked_page import fill_place
from spaudio.report.study_effects import Effect, measure_effects
from spaudio.report.study_records import Result, on_one_processor, values_of, write_results
from spaudio.report.tables import escaped_table, plus_minus, show_rows

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
    if output is not None:  # before the tables, whose reader may leave, as `head` does
        _write_page(results, tables, list(effects.values()), controls, output, adapted=adapted)
    for title, rows in tables.items():
        show_rows(rows, title)


def _write_page(
    results: Sequence[Result],
    tables: Mapping[str, Sequence[Mapping[str, str]]],
    effects: Sequence[Sequence[Effect]],
    controls: Sequence[Effect],
    output: Path,
    *,
    adapted: bool,
) -> None:
    """Draws the charts of a study, and writes them with its tables."""
    figures, drawn = Figures(output.parent), []
    charts = [path.stem for path in charts_beside(output)]
    minus_baseline = [effect for found in effects for effect in found]
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
    for data in values_of(results, "data"):
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
    for data in values_of(results, "data"):
        mine = [one for one in results if one.data == data]
        timed = set(on_one_processor(mine))
        for setting in values_of(mine, "setting"):
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


def _grid(results: Sequence[Result], cell: Callable[[Sequence[Result]], str]) -> Rows:
    """Returns a row per setting, with a cell per dataset; a dash where there are no results."""
    found: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        found.setdefault((one.setting, one.data), []).append(one)
    data = values_of(results, "data")
    return [
        {
            "setting": setting,
            **{name: cell(own) if (own := found.get((setting, name))) else "-" for name in data},
        }
        for setting in values_of(results, "setting")
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
