"""Compares finished runs: classifiers by accuracy, text models by convergence."""

from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.load import load_best, load_untrained
from spaudio.io.escape import for_figure
from spaudio.io.messages import say, warn
from spaudio.report.comparison import Group, compare, doubts, group_runs
from spaudio.report.convergence import convergence_rows, measure_convergence, read_step_costs
from spaudio.report.figures.convergence_plot import plot_convergence
from spaudio.report.figures.filters_plot import filters_of, plot_filters
from spaudio.report.figures.report_figures import Figures
from spaudio.report.marked_page import fill_place
from spaudio.report.records import read_records, write_records
from spaudio.report.run_files import CONFIG, REPORT
from spaudio.report.tables import escaped_table, show_rows
from spaudio.training.checkpoint import CHECKPOINTS


def compare_runs(
    runs: Sequence[Path],
    *,
    only: Sequence[str] = ("*",),
    over: str | None = None,
    output: Path | None = None,
    table: Path | None = None,
    convergence: bool = False,
    step_costs: Path | None = None,
    baseline: str = "none",
) -> None:
    """Prints a table of runs and optionally writes it.

    Args:
        runs: Folders of finished runs, and CSV files of their records.
        only: Patterns of run names, such as ``study-bank-?``; other runs are left out.
        over: A setting to average over, in addition to seeds.
        output: Markdown file to write; a page with a place for results keeps its own text (see
            :mod:`spaudio.report.marked_page`). The figures of a convergence report are written
            beside it, as ``<name>-curves.png`` and ``<name>-kernels.png``.
        table: CSV file for the records of the runs; it can replace the runs in later comparisons.
        convergence: Compare the steps needed to reach the baseline's loss. Text runs, which have no
            accuracy, are always compared in this way.
        step_costs: JSON from ``python -m spaudio.bench step``. If given, a convergence report
            computes seconds as steps times the seconds per step in it.
        baseline: Filter whose best loss is the target of a convergence report.

    Raises:
        ConfigError: If an option of convergence reports is given without one.
        DataError: If a run is not finished or cannot be compared with the others, or a setting has
            not been timed.
    """
    unfinished = [run for run in runs if run.is_dir() and not (run / REPORT).is_file()]
    if len(unfinished) < len(runs):
        for run in unfinished:
            is_run = (run / CONFIG).is_file()
            warn(f"{run} is {'not finished' if is_run else 'not a run'} and is left out")
        runs = [run for run in runs if run not in unfinished]
    records = read_records(runs, only)
    if table is not None:
        write_records(records, table)
        say(f"records: {table}")
    groups = group_runs(records, over)
    markdown: list[str] = []
    shown: list[tuple[list[dict[str, str]], str]] = []
    is_text = all(record.facts["metric"] == "loss" for record in records)
    if not (is_text or convergence) and (baseline != "none" or step_costs is not None):
        raise ConfigError("--baseline and --step-costs need --convergence")
    if not is_text:
        rows = compare(groups)
        for doubt in doubts(groups, over):
            warn(f"warning: {doubt}")
        shown.append((rows, "Test split"))
        markdown.append(escaped_table(rows) + "\n")
    if is_text or convergence:
        costs = None if step_costs is None else read_step_costs(step_costs)
        found = measure_convergence(groups, costs, baseline)
        rows = convergence_rows(found)
        title = (
            "Losses in nats. Costs per step and to the baseline's best loss are ratios to the "
            "baseline of the same seed"
        )
        shown.append((rows, title))
        markdown.append(f"{title}.\n\n{escaped_table(rows)}\n")
        if output is not None:
            figures, names = Figures(output.parent), [path.stem for path in figures_beside(output)]
            figures.draw(names[0], lambda path: plot_convergence(found, path))
            figures.draw(names[1], lambda path: _draw_kernels(groups, path))
            markdown.append("\n".join([*figures.links(*names), ""]))
    if output is not None:
        fill_place(output, "\n".join(markdown))
        say(f"table: {output}")
    for rows, title in shown:  # last, since the reader of the output may leave, as `head` does
        show_rows(rows, title)


def figures_beside(output: Path) -> list[Path]:
    """Returns the figures of a convergence report, beside its Markdown file."""
    return [output.with_name(f"{output.stem}-{name}.png") for name in ("curves", "kernels")]


def _draw_kernels(groups: Sequence[Group], path: Path) -> bool:
    """Draws the kernels of each setting's first filter; returns whether there are any.

    They come from the setting's first run that still has its weights.
    """
    before, after = {}, {}
    for group in groups:
        folders = [record.folder for record in group.records if record.folder is not None]
        kept = [folder for folder in folders if (folder / CHECKPOINTS).is_dir()]
        if not kept:
            continue
        untrained, trained = (filters_of(load(kept[0])) for load in (load_untrained, load_best))
        for name, token_filter in list(trained.items())[:1]:
            title = f"{for_figure(group.name, 120)}\n{name}"
            before[title], after[title] = untrained[name], token_filter
    return plot_filters(before, after, path)
