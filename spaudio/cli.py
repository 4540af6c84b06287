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
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import ConfigError, DataError, SpaudioError
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
    predict.set_defaults(run_command=_predict)

    export = commands.add_parser("export", help="write a run's model with its front-end")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    export.add_argument("--format", choices=("onnx", "pt2"), required=True)
    export.add_argument("--output", type=Path, help="default: model.onnx or model.pt2 in the run")
    export.add_argument(
        "--clips", nargs="+", type=Path, default=[], metavar="FILE|DIR",
        help="audio on which it is checked too, beside synthetic sounds",
    )  # fmt: skip
    export.set_defaults(run_command=_export)

    study = commands.add_parser("study", help="run what a study lists; finished runs are skipped")
    study.add_argument("file", type=Path, metavar="FILE", help="recipes/<name>/<study>.yaml")
    study.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every run")
    study.add_argument("--only", metavar="NAME,...", help="of these settings alone")
    study.add_argument("--seeds", metavar="SEED,...", help="of these seeds alone")
    study.add_argument("--jobs", type=int, default=1, help="processes at a time")
    study.add_argument("--output", type=Path, help="write the comparison as Markdown")
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
        if getattr(chosen, "output", None) is not None:
            _make_room(chosen.output)
        if getattr(chosen, "csv", None) is not None:
            _make_room(chosen.csv, "--csv")
        chosen.run_command(chosen)
    except SpaudioError as error:
        sys.exit(f"error: {error}")


def _make_room(output: Path, option: str = "--output") -> None:
    """Makes the folder of a file before the work begins whose result it is to hold."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{option} {output}: cannot make {output.parent} ({error.strerror}); name a file in a "
            "folder that can be written to"
        ) from error
    if output.is_dir():
        raise ConfigError(f"{option} {output} is a folder; name a file in it")
    if not os.access(output.parent, os.W_OK):
        raise ConfigError(f"{option} {output}: {output.parent} cannot be written to")


def _datasets(chosen: argparse.Namespace) -> None:
    """Prints the table of recipes."""
    from spaudio.experiment.datasets import find_recipes, list_datasets
    from spaudio.report.tables import show

    show(list_datasets(find_recipes(chosen.recipes), chosen.data))


def _compare(chosen: argparse.Namespace) -> None:
    """Prints a table over runs, and writes it."""
    from spaudio.experiment.compare import compare_runs

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


def _study(chosen: argparse.Namespace) -> None:
    """Runs a study and compares its runs."""
    from spaudio.experiment.compare import compare_runs
    from spaudio.experiment.launch import run_study

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
        sys.stderr.write(f"all runs are finished, but not compared: {error}\n")


def _filters(chosen: argparse.Namespace) -> None:
    """Draws a run's filters, and those of a learned front-end, and says where."""
    from spaudio.experiment.load import draw_run

    drawn = draw_run(chosen.run)
    sys.stdout.writelines(f"{path}\n" for path in drawn)
    if not drawn:
        sys.stdout.write(f"{chosen.run} has no filter with kernels\n")


def _predict(chosen: argparse.Namespace) -> None:
    """Prints or writes predictions; files that cannot be used come last, and fail the command."""
    from spaudio.experiment.predict import Predictor, predict_files
    from spaudio.io.atomic import write_atomic
    from spaudio.report.escape import printable
    from spaudio.report.predictions import render

    if chosen.top < 1:
        raise ConfigError(f"--top {chosen.top}; expected at least 1")
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
        sys.stderr.write(f"{'skipped' if chosen.skip_bad else 'error'}: {printable(path)}: {reason}\n")
    if bad and not (chosen.skip_bad and predictions):
        sys.exit(1)


def _export(chosen: argparse.Namespace) -> None:
    """Writes the exported model and says how far it is from the original."""
    from spaudio.export.write import export_run

    done = export_run(chosen.run, chosen.format, chosen.output, chosen.clips)
    sys.stdout.write(f"{done}\n")


def _generate(chosen: argparse.Namespace) -> None:
    """Prints a prompt and what a run's model makes of it."""
    from spaudio.experiment.generate import continue_text

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
