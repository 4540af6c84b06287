"""Runs a benchmark on this machine, prints its table and writes it as JSON.

python -m spaudio.bench filters         each backend of the filters against the reference
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spaudio.bench import filter_cost, generation_cost, growth
from spaudio.bench.harness import at_least_one, describe
from spaudio.errors import ConfigError
from spaudio.io.atomic import write_atomic
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.io.output import check_output

_Measured = tuple[dict[str, Any], Mapping[str, str]]  # a report, and the columns of its table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark. A user error prints one line and exits with code 1.

    Args:
        arguments: The command line; None takes ``sys.argv``.
    """
    set_up_terminal()
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (function, text, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(measure=function)
        for option, settings in options.items():
            command.add_argument(option, **settings)
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
        parser.error("--context and --filter are for untrained models; leave out RUN, or them")
    if chosen.command == "growth" and chosen.output and chosen.output.suffix == ".png":
        parser.error("--output names the JSON file; the chart is written beside it, as PNG")
    torch.set_num_threads(chosen.threads)
    with errors_in_one_line(extra="recipes"):
        _measure(chosen)


def _measure(chosen: argparse.Namespace) -> None:
    """Runs the benchmark that was chosen, prints its table and writes its files."""
    output, option, force = chosen.output, "--output", chosen.force
    if output is None:
        option, force = "the default --output", True
        output = Path(f"runs/bench_{chosen.command}.json")
        try:
            output.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder {output.parent.resolve()} cannot be made ({error.strerror}); name the "
                "report with --output"
            ) from error
    charts = [output.with_suffix(".png")] if chosen.command == "growth" else []
    for path in (output, *charts):
        check_output(path, option, force=force)
    report, columns = chosen.measure(chosen, chosen.rounds, chosen.limit)
    write_atomic(output, (json.dumps(report, indent=2) + "\n").encode())
    for chart in charts:
        growth.plot(report, chart)
    print(describe(report, columns))
    print(f"\nwritten to {output}")


def _filters(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    shapes = [s for s in filter_cost.SHAPES if not chosen.only or s.name in chosen.only]
    return filter_cost.measure(shapes, rounds, limit, chosen.device), filter_cost.COLUMNS


def _growth(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    importlib.import_module("matplotlib")  # else the chart fails after all has been measured
    return growth.measure(chosen.only or list(growth.VALUES), rounds, limit), growth.COLUMNS


def _generate(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    if chosen.run is None:
        filters = chosen.filter or generation_cost.FILTERS
        models = generation_cost.untrained(chosen.context or generation_cost.CONTEXT, filters)
    else:
        from spaudio.experiment.load import load_language_model

        models = {chosen.run.name: load_language_model(chosen.run)}
    return generation_cost.measure(models, chosen.length, rounds, limit), generation_cost.COLUMNS


# What needs more than torch is imported where it runs, because the filter benchmark does not.


def _data(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    from spaudio.bench import data_cost

    report = data_cost.measure(chosen.recipe, chosen.source, rounds, limit, cold=chosen.cold)
    return report, data_cost.COLUMNS


def _export(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    from spaudio.bench import export_cost

    return export_cost.measure(chosen.run, rounds, limit), export_cost.COLUMNS


def _step(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    from spaudio.bench import step_cost

    names = chosen.filter or ["none", "depthwise", "bank"]
    report = step_cost.measure(chosen.recipe, chosen.overrides, names, rounds, limit)
    return report, step_cost.COLUMNS


def _profile(chosen: argparse.Namespace, rounds: int, limit: float) -> _Measured:
    from spaudio.bench import step_profile

    report = step_profile.measure(chosen.recipe, chosen.overrides, rounds, limit)
    return report, step_profile.COLUMNS


def _common(name: str, *, each: str, threads: int = 2, rounds: int = 9) -> dict[str, Any]:
    """Returns the options of every benchmark."""
    return {
        "--threads": {"type": at_least_one, "default": threads, "help": "threads of torch "
                      "(default: %(default)s)"},
        "--rounds": {"type": at_least_one, "default": rounds, "help": "measurements of each "
                     "variant (default: %(default)s)"},
        "--limit": {"type": float, "default": 30, "help": f"start no round after this many seconds "
                    f"{each}, except for the first three (default: %(default)s)"},
        "--output": {"type": Path, "help": f"JSON file (default: runs/bench_{name}.json, "
                     "replaced)"},
        "--force": {"action": "store_true", "help": "replace the file of --output if it exists"},
    }  # fmt: skip


_RECIPE: dict[str, Any] = {
    "recipe": {"type": Path, "metavar": "RECIPE", "help": "folder of a recipe"},
    "overrides": {"nargs": "*", "metavar": "key=value", "help": "settings, as for its run.py"},
}

# For each command: its function, help text and argparse options.
_COMMANDS: dict[str, tuple[Callable[..., _Measured], str, dict[str, Any]]] = {
    "filters": (_filters, "backends of filterbank and depthwise filter", {
        **_common("filters", each="per shape"),
        "--only": {"choices": [shape.name for shape in filter_cost.SHAPES], "action": "append",
                   "help": "measure only this shape; may be repeated"},
        "--device": {"choices": filter_cost.BACKENDS, "default": "cpu",
                     "help": "device to measure on (default: cpu)"},
    }),
    "growth": (_growth, "cost of a bank over its shape, with a chart", {
        **_common("growth", each="per shape", rounds=5),
        "--only": {"choices": growth.VALUES, "action": "append",
                   "help": "vary only this; may be repeated (default: all)"},
    }),
    "generate": (_generate, "symbols per second, with and without cache", {
        # One symbol at a time gives a second thread nothing to do.
        **_common("generate", each="per model", threads=1, rounds=5),
        "run": {"nargs": "?", "type": Path, "metavar": "RUN",
                "help": "run of a text recipe (default: untrained models)"},
        "--context": {"type": at_least_one, "help": "context of the untrained models (default: "
                      f"{generation_cost.CONTEXT})"},
        "--length": {"type": int, "help": "symbols per round (default: the context)"},
        "--filter": {"choices": generation_cost.FILTERS, "action": "append",
                     "help": "filter of an untrained model; may be repeated"},
    }),
    "data": (_data, "from a folder of files to features", {
        **_common("data", each="in total", rounds=3),
        "recipe": {"type": Path, "metavar": "RECIPE", "help": "the folder recipes/folder"},
        "source": {"type": Path, "metavar": "DIR", "help": "one sub-folder per class"},
        "--cold": {"action": "store_true", "help": "read the files from the disk each time"},
    }),
    "export": (_export, "the exported model of a run", {
        **_common("export", each="per batch size"),
        "run": {"type": Path, "metavar": "RUN", "help": "folder of a run"},
    }),
    "step": (_step, "training steps of a recipe with each filter", {
        **_common("step", each="in total"),
        **_RECIPE,
        "--filter": {"action": "append", "help": "a filter, with settings filter.*, model.* and "
                     "optim.* of its own after commas (bank,filter.num_filters=8); the others are "
                     "compared with the first one (default: none, depthwise, bank)"},
    }),
    "profile": (_profile, "a training step by kind of operation", {
        **_common("profile", each="in total"),
        **_RECIPE,
    }),
}  # fmt: skip


if __name__ == "__main__":
    main()
