"""The command ``spaudio``: what can be done with recipes and finished runs.

spaudio datasets            the recipes, their licences and sizes, and whether their data are here
spaudio compare RUN...      one table over runs, mean ± std over seeds
spaudio filters RUN         kernels and their responses, before and after training
spaudio predict RUN FILE... the classes of any audio file or folder
spaudio export RUN          the model with its front-end, as ONNX or pt2
spaudio study FILE          the runs that a study lists; finished ones are skipped
spaudio generate RUN        text from a language model, character by character
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import ConfigError, DataError, SpaudioError
from spaudio.io.output import check_output
from spaudio.report.escape import printable
from spaudio.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a sub-command; an error that the user can mend is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="spaudio", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    datasets = commands.add_parser("datasets", help="the recipes and whether their data are here")
    checkout = Path(__file__).resolve().parents[1] / "recipes"
    datasets.add_argument("--recipes", type=Path, default=checkout, help="folder of recipes")
    datasets.add_argument("--data", type=Path, default=Path("data"), help="the setting data=")
    datasets.set_defaults(run_command=_datasets)

    compare = commands.add_parser("compare", help="one table over runs, mean ± std over seeds")
    compare.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or CSV file of runs"
    )
    compare.add_argument(
        "--only", metavar="PATTERN,...", help="runs with such names only, as in study-bank-?"
    )
    compare.add_argument(
        "--over", metavar="SETTING", help="average over its values too, such as test_speaker"
    )
    compare.add_argument(
        "--convergence",
        action="store_true",
        help="compare steps, seconds and FLOPs to the baseline's best loss (text runs: always)",
    )
    compare.add_argument(
        "--baseline",
        default="none",
        metavar="FILTER",
        help="filter of the baseline, with options as in depthwise,filter.kernel_size=32 "
        "(default: none)",
    )
    compare.add_argument(
        "--step-costs",
        type=Path,
        metavar="FILE",
        help="JSON of `python -m spaudio.bench step`: seconds are computed from its seconds per "
        "step, since those of the runs depend on the load of the machine",
    )
    compare.add_argument(
        "--output", type=Path, help="also write the table as Markdown, and figures beside it"
    )
    compare.add_argument(
        "--csv", type=Path, help="also write settings, results and logs of the runs, as one file"
    )
    _add_force(compare)
    compare.set_defaults(run_command=_compare)

    filters = commands.add_parser("filters", help="draw a run's filters")
    filters.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    filters.set_defaults(run_command=_filters)

    predict = commands.add_parser("predict", help="classify audio files by a run's best model")
    predict.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    predict.add_argument("paths", nargs="+", type=Path, metavar="FILE|DIR", help="audio")
    predict.add_argument("--top", type=int, default=3, metavar="K", help="classes a file")
    predict.add_argument("--format", choices=("table", "csv", "json"), default="table")
    predict.add_argument("--output", type=Path, help="write to a file instead of the terminal")
    predict.add_argument(
        "--window", type=float, metavar="S",
        help="seconds; longer files are cut into windows of this length and probabilities averaged"
        " (default: the longest clip of the run's data)",
    )  # fmt: skip
    predict.add_argument(
        "--skip-bad", action="store_true", help="files that cannot be used are no failure"
    )
    _add_force(predict)
    predict.set_defaults(run_command=_predict)

    export = commands.add_parser("export", help="write a run's model with its front-end")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    export.add_argument("--format", choices=("onnx", "pt2"), required=True)
    export.add_argument("--output", type=Path, help="default: model.onnx or model.pt2 in the run")
    export.add_argument(
        "--clips", nargs="+", type=Path, default=[], metavar="FILE|DIR",
        help="audio on which it is checked too, beside synthetic sounds",
    )  # fmt: skip
    _add_force(export)
    export.set_defaults(run_command=_export)

    study = commands.add_parser("study", help="run what a study lists; finished runs are skipped")
    study.add_argument("file", type=Path, metavar="FILE", help="recipes/<name>/<study>.yaml")
    study.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every run")
    study.add_argument("--only", metavar="NAME,...", help="of these settings alone")
    study.add_argument("--seeds", metavar="SEED,...", help="of these seeds alone")
    study.add_argument("--jobs", type=int, default=1, help="processes at a time")
    study.add_argument("--output", type=Path, help="write the comparison as Markdown")
    _add_force(study)
    study.set_defaults(run_command=_study)

    generate = commands.add_parser("generate", help="text from a run of a text recipe")
    generate.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    generate.add_argument(
        "--prompt", default=" ", help="what the text begins with: a to z and spaces"
    )
    generate.add_argument("--length", type=int, default=500, help="characters (default: 500)")
    generate.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="divides the logits; 0 takes the most probable character (default: 1)",
    )
    generate.add_argument("--top-k", type=int, metavar="K", help="of the K most probable alone")
    generate.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    generate.set_defaults(run_command=_generate)

    chosen = parser.parse_args(arguments)
    try:
        chosen.run_command(chosen)
    except (SpaudioError, OSError) as error:
        sys.exit(f"error: {printable(error)}")


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="replace files that exist")


def _datasets(chosen: argparse.Namespace) -> None:
    """Prints the table of recipes."""
    from spaudio.experiment.datasets import find_recipes, list_datasets
    from spaudio.report.tables import show

    show(list_datasets(find_recipes(chosen.recipes), chosen.data))


def _compare(chosen: argparse.Namespace) -> None:
    """Prints a table over runs, and writes it."""
    from spaudio.experiment.compare import compare_runs

    inputs = [*chosen.runs, *([] if chosen.step_costs is None else [chosen.step_costs])]
    _check_table(chosen, inputs)
    if chosen.csv is not None:
        check_output(chosen.csv, "--csv", inputs=inputs, force=chosen.force)
        if chosen.output is not None and chosen.csv.resolve() == chosen.output.resolve():
            raise ConfigError(f"--output and --csv both name {chosen.csv}; name two files")
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
    """Checks the Markdown file of a comparison, and the figures beside it."""
    from spaudio.experiment.compare import figures_beside

    if chosen.output is not None:
        for path in (chosen.output, *figures_beside(chosen.output)):
            check_output(path, "--output", inputs=inputs, force=chosen.force)


def _study(chosen: argparse.Namespace) -> None:
    """Runs a study and compares its runs."""
    from spaudio.experiment.compare import compare_runs
    from spaudio.experiment.launch import run_study

    _check_table(chosen, [chosen.file])
    only = chosen.only.split(",") if chosen.only else None
    try:
        seeds = [int(seed) for seed in chosen.seeds.split(",")] if chosen.seeds else None
    except ValueError:
        sys.exit(f"error: --seeds={chosen.seeds}; expected whole numbers, such as 0,1,2")
    try:
        runs = run_study(chosen.file, chosen.overrides, only=only, seeds=seeds, jobs=chosen.jobs)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        sys.exit(130)
    try:
        compare_runs(runs, output=chosen.output)
    except DataError as error:
        if chosen.output is not None:
            raise
        sys.stderr.write(f"all runs are finished, but not compared: {printable(error)}\n")


def _filters(chosen: argparse.Namespace) -> None:
    """Draws a run's filters, and those of a learned front-end, and says where."""
    from spaudio.experiment.load import draw_run

    drawn = draw_run(chosen.run)
    sys.stdout.writelines(f"{printable(path)}\n" for path in drawn)
    if not drawn:
        sys.stdout.write(f"{printable(chosen.run)} has no filter with kernels\n")


def _predict(chosen: argparse.Namespace) -> None:
    """Prints or writes predictions; files that cannot be used come last, and fail the command."""
    from spaudio.experiment.predict import Predictor, predict_files
    from spaudio.io.atomic import write_atomic
    from spaudio.report.predictions import render

    if chosen.top < 1:
        raise ConfigError(f"--top {chosen.top}; expected at least 1")
    if chosen.output is not None:
        inputs = [chosen.run, *chosen.paths]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    predictor = Predictor(chosen.run, chosen.window)
    predictions, bad = predict_files(predictor, chosen.paths)
    text = render(
        chosen.format,
        predictions,
        predictor.inputs.classes,
        top=chosen.top,
        window_seconds=predictor.window_seconds,
        bad=bad,
    )
    if chosen.output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(chosen.output, text.encode())
    for path, reason in bad:
        sys.stderr.write(
            f"{'skipped' if chosen.skip_bad else 'error'}: {printable(path)}: {printable(reason)}\n"
        )
    if bad and not (chosen.skip_bad and predictions):
        sys.exit(1)


def _export(chosen: argparse.Namespace) -> None:
    """Writes the exported model and says how far it is from the original."""
    from spaudio.export.write import export_run

    if chosen.output is not None:
        inputs = [chosen.run, *chosen.clips]
        check_output(chosen.output, "--output", inputs=inputs, force=chosen.force)
    elif chosen.run.is_dir():
        check_output(chosen.run / f"model.{chosen.format}", "--output", force=chosen.force)
    done = export_run(chosen.run, chosen.format, chosen.output, chosen.clips)
    sys.stdout.write(f"{printable(done)}\n")


def _generate(chosen: argparse.Namespace) -> None:
    """Prints a prompt and what a run's model makes of it."""
    from spaudio.experiment.continuation import continue_text

    text = continue_text(
        chosen.run,
        chosen.prompt,
        chosen.length,
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        seed=chosen.seed,
    )
    sys.stdout.write(f"{chosen.prompt}{text}\n")


if __name__ == "__main__":
    main()
