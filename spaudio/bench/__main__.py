"""Runs a benchmark on this machine, prints its table and writes it as JSON.

python -m spaudio.bench filters         each backend of the filterbank against the reference
python -m spaudio.bench growth          how the cost of a bank grows with its shape, with a chart
python -m spaudio.bench generate [RUN]  symbols per second of a model, with and without a cache
python -m spaudio.bench data RECIPE DIR from a folder of files to features, beside other libraries
python -m spaudio.bench export RUN      the exported model of a run against the eager one
python -m spaudio.bench step RECIPE     training steps of a recipe with each filter
python -m spaudio.bench profile RECIPE  a training step of a recipe by kind of operation
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spaudio.bench import filter_cost, generation_cost, growth
from spaudio.bench.harness import at_least_one, describe
from spaudio.errors import ConfigError, SpaudioError, how_to_install
from spaudio.io.atomic import write_atomic
from spaudio.io.output import check_output


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark. A user error prints one line and exits with code 1.

    Args:
        arguments: The command line; None takes ``sys.argv``.
    """
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("filters", help="backends of the filterbank")
    _add_common(command, "filters", each="per shape", threads=2, rounds=9)
    shapes = [shape.name for shape in filter_cost.SHAPES]
    command.add_argument("--only", choices=shapes, action="append", help="a shape")
    command.add_argument("--device", choices=filter_cost.BACKENDS, default="cpu")

    command = commands.add_parser("growth", help="cost of a bank over its shape, with a chart")
    _add_common(command, "growth", each="per shape", threads=2, rounds=5)
    command.add_argument(
        "--only", choices=growth.VALUES, action="append", help="what is varied (default: all)"
    )

    command = commands.add_parser("generate", help="symbols per second, with and without cache")
    # One symbol at a time gives a second thread nothing to do.
    _add_common(command, "generate", each="per model", threads=1, rounds=5)
    command.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="of a text recipe (default: untrained)"
    )
    command.add_argument(
        "--context",
        type=at_least_one,
        help=f"of untrained models (default: {generation_cost.CONTEXT})",
    )
    command.add_argument("--length", type=int, help="symbols per round (default: the context)")
    command.add_argument(
        "--filter", choices=generation_cost.FILTERS, action="append", help="of an untrained model"
    )

    command = commands.add_parser("data", help="from a folder of files to features")
    _add_common(command, "data", each="in total", threads=2, rounds=3)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="the folder recipes/folder")
    command.add_argument("source", type=Path, metavar="DIR", help="one sub-folder per class")

    command = commands.add_parser("export", help="the exported model of a run")
    _add_common(command, "export", each="per batch size", threads=2, rounds=9)
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a run")

    command = commands.add_parser("step", help="training steps of a recipe with each filter")
    _add_common(command, "step", each="in total", threads=2, rounds=9)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="its folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="as for its run.py")
    command.add_argument(
        "--filter",
        action="append",
        help="a filter, with settings filter.*, model.* and optim.* of its own after commas "
        "(bank,filter.num_filters=8); the others are compared with the first one "
        "(default: none, depthwise, bank)",
    )

    command = commands.add_parser("profile", help="a training step by kind of operation")
    _add_common(command, "profile", each="in total", threads=2, rounds=9)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="its folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="as for its run.py")

    chosen, rest = parser.parse_known_args(arguments)
    # argparse takes no settings after an option.
    unknown = [word for word in rest if word.startswith("-") or "=" not in word]
    if unknown or (rest and not hasattr(chosen, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(unknown or rest)}")
    if rest:
        chosen.overrides += rest
    if getattr(chosen, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; use --device cpu")
    untrained = chosen.command == "generate" and (chosen.context is not None or chosen.filter)
    if untrained and chosen.run is not None:
        parser.error("--context and --filter are of untrained models; leave RUN or them out")
    if chosen.command == "growth" and chosen.output and chosen.output.suffix == ".png":
        parser.error("--output names the JSON file; the chart is written beside it, as PNG")
    torch.set_num_threads(chosen.threads)
    try:
        if chosen.output is not None:
            for path in _written(chosen, chosen.output):
                check_output(path, "--output", force=chosen.force)
        elif (folder := Path("runs")).exists() and not folder.is_dir():
            raise ConfigError(f"{folder.resolve()} is not a folder; name the report with --output")
        report, columns = _measure(chosen)
    except SpaudioError as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; {how_to_install('recipes')}")
    print(describe(report, columns))
    output = chosen.output or Path(f"runs/bench_{chosen.command}.json")
    table, *charts = _written(chosen, output)
    write_atomic(table, (json.dumps(report, indent=2) + "\n").encode())
    for chart in charts:
        growth.plot(report, chart)
    print(f"\nwritten to {output}")


def _written(chosen: argparse.Namespace, output: Path) -> list[Path]:
    """Returns the files that a benchmark writes: its report, and the chart beside it."""
    return [output, *([output.with_suffix(".png")] if chosen.command == "growth" else [])]


def _add_common(
    command: argparse.ArgumentParser, name: str, *, each: str, threads: int, rounds: int
) -> None:
    """Adds the arguments of every benchmark."""
    add = command.add_argument
    default = "(default: %(default)s)"
    add("--threads", type=at_least_one, default=threads, help=f"of torch {default}")
    add("--rounds", type=at_least_one, default=rounds, help=f"measurements of each {default}")
    limit = f"seconds {each} after which no round starts, but at least three rounds are run"
    add("--limit", type=float, default=30, help=f"{limit} {default}")
    add("--output", type=Path, help=f"JSON file (default: runs/bench_{name}.json, replaced)")
    add("--force", action="store_true", help="replace the file of --output if it exists")


def _measure(chosen: argparse.Namespace) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Runs the chosen benchmark; returns its report and the columns of its table.

    The others are imported where they run, because the filter benchmark needs only torch.
    """
    limits = chosen.rounds, chosen.limit
    if chosen.command == "filters":
        shapes = [s for s in filter_cost.SHAPES if not chosen.only or s.name in chosen.only]
        return filter_cost.measure(shapes, *limits, chosen.device), filter_cost.COLUMNS
    if chosen.command == "growth":
        importlib.import_module("matplotlib")  # else the chart fails after all has been measured
        return growth.measure(chosen.only or list(growth.VALUES), *limits), growth.COLUMNS
    if chosen.command == "generate":
        if chosen.run is None:
            filters = chosen.filter or generation_cost.FILTERS
            context = chosen.context or generation_cost.CONTEXT
            models = generation_cost.untrained(context, filters)
        else:
            from spaudio.experiment.load import load_language_model

            models = {chosen.run.name: load_language_model(chosen.run)}
        report = generation_cost.measure(models, chosen.length, *limits)
        return report, generation_cost.COLUMNS
    if chosen.command == "data":
        from spaudio.bench import data_cost

        return data_cost.measure(chosen.recipe, chosen.source, *limits), data_cost.COLUMNS
    if chosen.command == "export":
        from spaudio.bench import export_cost

        return export_cost.measure(chosen.run, *limits), export_cost.COLUMNS
    if chosen.command == "profile":
        from spaudio.bench import step_profile

        report = step_profile.measure(chosen.recipe, chosen.overrides, *limits)
        return report, step_profile.COLUMNS
    from spaudio.bench import step_cost

    names = chosen.filter or ["none", "depthwise", "bank"]
    report = step_cost.measure(chosen.recipe, chosen.overrides, names, *limits)
    return report, step_cost.COLUMNS


if __name__ == "__main__":
    main()
