"""The commands ``compare``, ``study`` and ``filters``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.cli.subcommand import FORCE, RUN, Subcommand
from spaudio.errors import ConfigError
from spaudio.io.escape import printable
from spaudio.io.output import check_output


def _compare(chosen: argparse.Namespace) -> None:
    """Prints a comparison table of runs, and writes it if requested."""
    from spaudio.experiment.compare import compare_runs

    inputs = [*chosen.runs, *([] if chosen.step_costs is None else [chosen.step_costs])]
    _check_table(chosen, inputs)
    _check_csv(chosen, inputs)
    compare_runs(
        chosen.runs,
        only=chosen.only.split(",") if chosen.only else ("*",),
        over=chosen.over,
        output=chosen.output,
        table=chosen.csv,
        convergence=chosen.convergence or chosen.step_costs is not None,
        step_costs=chosen.step_costs,
        baseline=chosen.baseline,
    )


def _check_table(chosen: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Checks the output paths of a comparison: its Markdown file and the figures beside it."""
    from spaudio.experiment.compare import figures_beside

    if chosen.output is not None:
        for path in (chosen.output, *figures_beside(chosen.output)):
            check_output(path, "--output", inputs=inputs, force=chosen.force)


def _check_csv(chosen: argparse.Namespace, inputs: Sequence[Path]) -> None:
    """Checks the path of a CSV file of results, which is not that of the Markdown file."""
    if chosen.csv is None:
        return
    check_output(chosen.csv, "--csv", inputs=inputs, force=chosen.force)
    if chosen.output is not None and chosen.csv.resolve() == chosen.output.resolve():
        raise ConfigError(f"--output and --csv both name {chosen.csv}; name two files")


def _study(chosen: argparse.Namespace) -> None:
    """Runs a study and compares its runs, or prints the results in a CSV file."""
    from spaudio.experiment.compare import compare_runs
    from spaudio.experiment.study import run_study
    from spaudio.experiment.study_plan import plan_study
    from spaudio.experiment.study_results import finished_runs, read_runs
    from spaudio.report.convergence import NoBaselineError
    from spaudio.report.study_records import read_results
    from spaudio.report.study_report import show_results

    _check_study_output(chosen)
    if chosen.file.suffix == ".csv":
        given = [f"--{name}" for name in ("only", "data", "seeds") if getattr(chosen, name)]
        if unused := [*chosen.overrides, *given]:
            raise ConfigError(
                f"{unused[0]} has no effect on the results in {chosen.file}; leave it out, or name "
                "the study's YAML file"
            )
        show_results(read_results(chosen.file), output=chosen.output)
        return
    only, data = (names.split(",") if names else None for names in (chosen.only, chosen.data))
    try:
        seeds = [int(seed) for seed in chosen.seeds.split(",")] if chosen.seeds else None
    except ValueError as error:
        raise ConfigError(
            f"--seeds={chosen.seeds}; expected whole numbers, such as 0,1,2"
        ) from error
    if wrong := [one for one in chosen.overrides if "=" not in one]:
        raise ConfigError(
            f"{wrong[0]!r}: expected [DATA:]KEY=VALUE; names are joined by commas, as in --only a,b"
        )
    runs = plan_study(chosen.file, chosen.overrides, only=only, data=data, seeds=seeds)
    if not chosen.results:
        run_study(runs, chosen.jobs)
    runs = finished_runs(runs)
    if runs[0].data:
        show_results(read_runs(runs), output=chosen.output, table=chosen.csv)
        return
    try:
        compare_runs([run.folder for run in runs], output=chosen.output, table=chosen.csv)
    except NoBaselineError as error:
        if chosen.output is not None or chosen.csv is not None:
            raise
        sys.stderr.write(f"the finished runs cannot be compared: {printable(error)}\n")


def _check_study_output(chosen: argparse.Namespace) -> None:
    """Checks the output files of a study. A page with a place for results may exist."""
    from spaudio.experiment.compare import figures_beside
    from spaudio.report.marked_page import has_place
    from spaudio.report.study_report import charts_beside

    if chosen.csv is not None and chosen.file.suffix == ".csv":
        raise ConfigError(
            f"--csv {chosen.csv}: the results already come from a CSV file; leave --csv out"
        )
    _check_csv(chosen, [chosen.file])
    if chosen.output is None:
        return
    placed = has_place(chosen.output)
    paths = [*charts_beside(chosen.output), *figures_beside(chosen.output)]
    for path in paths if placed else [chosen.output, *paths]:
        check_output(path, "--output", inputs=[chosen.file], force=placed or chosen.force)


def _filters(chosen: argparse.Namespace) -> None:
    """Draws the filters of a run and of its learned front-end, and prints the paths."""
    from spaudio.experiment.draw_filters import draw_run

    drawn, said = draw_run(chosen.run)
    sys.stdout.writelines(f"{printable(line)}\n" for line in (*drawn, *said))
    if not drawn:
        sys.stdout.write(f"{printable(chosen.run)} has no filter with kernels\n")


COMPARE: Subcommand = (_compare, "compare runs: mean ± std over seeds, and paired differences", {
    "runs": {**RUN, "nargs": "+", "help": "folder of a run, or CSV file of runs"},
    "--only": {"metavar": "PATTERN,...", "help": "only runs whose names match, such as "
               "study-bank-?"},
    "--over": {"metavar": "SETTING", "help": "also average over this setting, such as "
               "test_speaker; with a single seed, ± is the standard deviation over its values"},
    "--convergence": {"action": "store_true", "help": "compare the steps, seconds and FLOPs "
                      "needed to reach the baseline's best loss (always for text runs)"},
    "--baseline": {"default": "none", "metavar": "FILTER", "help": "filter of the baseline, "
                   "with options as in depthwise,filter.kernel_size=32 (default: none)"},
    "--step-costs": {"type": Path, "metavar": "FILE", "help": "JSON from `python -m "
                     "spaudio.bench step`; seconds are computed from its seconds per step, "
                     "because those of the runs depend on the load of the machine"},
    "--output": {"type": Path, "help": "also write a Markdown file, with figures beside it"},
    "--csv": {"type": Path, "help": "also write settings, results and logs to a CSV file"},
    "--force": FORCE,
})  # fmt: skip
STUDY: Subcommand = (_study, "execute the runs of a study; finished runs are skipped", {
    "file": {"type": Path, "metavar": "FILE", "help": "recipes/<name>/<study>.yaml, or the CSV "
             "of a study over datasets, to print its results again"},
    "overrides": {"nargs": "*", "metavar": "[DATA:]KEY=VALUE", "help": "settings for every "
                  "run, or for the runs on one dataset"},
    "--only": {"metavar": "NAME,...", "help": "only these configurations"},
    "--data": {"metavar": "NAME,...", "help": "only these datasets"},
    "--seeds": {"metavar": "SEED,...", "help": "only these seeds"},
    "--jobs": {"type": int, "default": 1, "help": "number of parallel runs (default: 1)"},
    "--results": {"action": "store_true", "help": "run nothing; compare the finished runs"},
    "--csv": {"type": Path, "help": "also write the results, one row per run"},
    "--output": {"type": Path, "help": "write the comparison as Markdown, with figures beside "
                 "it; in a page with two lines `<!-- results -->`, replaces only the part "
                 "between them"},
    "--force": FORCE,
})  # fmt: skip
FILTERS: Subcommand = (_filters, "draw a run's filters", {
    "run": {**RUN, "help": "folder of a run; the figures are written into it"},
})  # fmt: skip
