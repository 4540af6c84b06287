"""Runs a benchmark on this machine, prints its table and writes it as JSON.

python -m spaudio.bench filters         each backend of the filterbank against the reference
python -m spaudio.bench generate [RUN]  symbols per second of a model, with and without cache
python -m spaudio.bench export RUN      the exported model of a run against the eager one
python -m spaudio.bench step RECIPE     training steps of a recipe with each filter
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from spaudio.bench import filter_cost, generation_cost
from spaudio.errors import SpaudioError


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a benchmark. A user error is one line and exit code 1.

    Args:
        arguments: The command line; None takes that of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("filters", help="backends of the filterbank")
    _add_common(command, "filters", each="per shape", threads=2, rounds=9)
    shapes = [shape.name for shape in filter_cost.SHAPES]
    command.add_argument("--only", choices=shapes, action="append", help="a shape")
    command.add_argument("--device", choices=filter_cost.BACKENDS, default="cpu")
    command.set_defaults(measure=_filters)

    command = commands.add_parser("generate", help="symbols per second, with and without cache")
    # One symbol at a time gives a second thread nothing to do.
    _add_common(command, "generate", each="per model", threads=1, rounds=5)
    command.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="of a text recipe (default: untrained)"
    )
    command.add_argument(
        "--context", type=int, default=128, help="of untrained models (default: %(default)s)"
    )
    command.add_argument("--length", type=int, help="symbols per round (default: the context)")
    command.add_argument(
        "--filter", choices=generation_cost.FILTERS, action="append", help="of an untrained model"
    )
    command.set_defaults(measure=_generate)

    command = commands.add_parser("export", help="the exported model of a run")
    _add_common(command, "export", each="per batch size", threads=2, rounds=9)
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    command.set_defaults(measure=_export)

    command = commands.add_parser("step", help="training steps of a recipe with each filter")
    _add_common(command, "step", each="in total", threads=2, rounds=9)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="its folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="as for its run.py")
    command.add_argument(
        "--filter",
        action="append",
        help="a filter, with its own settings after commas (bank,filter.num_filters=8); the others "
        "are compared with the first one (default: none, depthwise, bank)",
    )
    command.set_defaults(measure=_step)

    chosen = parser.parse_args(arguments)
    if getattr(chosen, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; use --device cpu")
    torch.set_num_threads(chosen.threads)
    try:
        report, table = chosen.measure(chosen)
    except SpaudioError as error:
        sys.exit(f"error: {error}")
    print(table)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {chosen.output}")


def _add_common(
    command: argparse.ArgumentParser, name: str, *, each: str, threads: int, rounds: int
) -> None:
    """Adds the arguments of every benchmark."""
    command.add_argument(
        "--threads", type=int, default=threads, help="of torch (default: %(default)s)"
    )
    command.add_argument(
        "--rounds", type=int, default=rounds, help="measurements of each (default: %(default)s)"
    )
    command.add_argument(
        "--limit",
        type=float,
        default=30,
        help=f"seconds {each} after which no round starts, but at least three rounds are run "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--output", type=Path, default=Path(f"runs/bench_{name}.json"), help="JSON file"
    )


def _filters(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    shapes = [s for s in filter_cost.SHAPES if not chosen.only or s.name in chosen.only]
    report = filter_cost.measure(shapes, chosen.rounds, chosen.limit, chosen.device)
    return report, filter_cost.table(report)


def _generate(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if chosen.run is None:
        models = generation_cost.untrained(chosen.context, chosen.filter or generation_cost.FILTERS)
    else:
        from spaudio.experiment.load import load_language_model

        models = {chosen.run.name: load_language_model(chosen.run)}
    report = generation_cost.measure(models, chosen.length, chosen.rounds, chosen.limit)
    return report, generation_cost.table(report)


def _export(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    # Imported here, as in `_step`: the benchmarks of filters need torch alone.
    from spaudio.bench import export_cost

    report = export_cost.measure(chosen.run, chosen.rounds, chosen.limit)
    return report, export_cost.table(report)


def _step(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from spaudio.bench import step_cost

    names = chosen.filter or ["none", "depthwise", "bank"]
    report = step_cost.measure(chosen.recipe, chosen.overrides, names, chosen.rounds, chosen.limit)
    return report, step_cost.table(report)


if __name__ == "__main__":
    main()
