"""Compares finished runs by what fits them: accuracy of classifiers, convergence of text models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

import spaudio.conf
from spaudio.experiment.model import filters_of, load_models
from spaudio.report.compare import Row, compare, group_runs, setting_name, show
from spaudio.report.convergence import lay_out, measure_convergence
from spaudio.report.convergence_plots import plot_convergence
from spaudio.report.filter_plots import plot_filters
from spaudio.report.step_costs import StepCosts


def compare_runs(
    runs: Sequence[Path],
    *,
    over: str | None = None,
    output: Path | None = None,
    convergence: bool = False,
    step_costs: Path | None = None,
    baseline: str = "none",
) -> None:
    """Prints a table over runs, and writes it.

    Args:
        runs: Folders of finished runs.
        over: A setting whose values are averaged over too.
        output: Markdown file to write; the figures of a convergence report go beside it, as
            ``<name>-curves.png`` and ``<name>-kernels.png``.
        convergence: Compare how soon the baseline's loss is reached. Text runs, which have no
            accuracy, are always compared so.
        step_costs: JSON of ``python -m spaudio.bench step``, for a convergence report: seconds
            are steps times what a step costs there, instead of the runs' own.
        baseline: Filter whose best loss is the goal of a convergence report, such as
            ``depthwise``.

    Raises:
        DataError: If a run is not finished or has nothing to be compared with, or a setting has
            not been timed.
    """
    costs = None if step_costs is None else StepCosts.read(step_costs)
    rows = group_runs(runs, over, _defaults())
    is_text = "accuracy" not in rows[0].reports[0]["test"]
    if not is_text:
        table, markdown = compare(rows)
        show(table)
    if is_text or convergence:
        found = measure_convergence(rows, costs, baseline)
        table, text = lay_out(found)
        show(table)
        markdown = text if is_text else f"{markdown}\n{text}"
        if output is not None:
            curves = output.with_name(f"{output.stem}-curves.png")
            plot_convergence(found, curves)
            markdown += f"\n![Validation loss]({curves.name})\n"
            kernels = output.with_name(f"{output.stem}-kernels.png")
            if _draw_kernels(rows, kernels):
                markdown += f"![Kernels of the first layer]({kernels.name})\n"
    if output is not None:
        output.write_text(markdown, encoding="utf-8")
        Console(stderr=True).print(f"table: {output}", soft_wrap=True)


def _defaults() -> dict[str, dict[str, Any]]:
    """Returns the shared choices, such as ``filter=bank``, and the options that they come with."""
    files = Path(spaudio.conf.__file__).parent.glob("*/*.yaml")
    loaded: dict[str, Any] = {
        f"{file.parent.name}={file.stem}": OmegaConf.to_container(OmegaConf.load(file))
        for file in files
    }
    # What one name has in another group, as a preset's settings, is nobody's option.
    return {choice: options for choice, options in loaded.items() if "name" in options}


def _draw_kernels(rows: Sequence[Row], path: Path) -> bool:
    """Draws the kernels of each setting's first filter; says if there are any.

    Of a setting's runs the first one counts that still has its weights.
    """
    before, after = {}, {}
    for row in rows:
        kept = [run for run in row.runs if (run / "checkpoints").is_dir()]
        if not kept:
            continue  # what is left of a run are its records
        untrained, trained = (filters_of(model) for model in load_models(kept[0]))
        for name, token_filter in list(trained.items())[:1]:
            title = f"{setting_name(row)}\n{name}"
            before[title], after[title] = untrained[name], token_filter
    if after:
        plot_filters(after, path, before=before)
    return bool(after)
