"""Measures on this machine.

python -m spaudio.bench filters         every backend of the filterbank against the definition
python -m spaudio.bench generate [RUN]  symbols a second of a model, with and without cache
python -m spaudio.bench export RUN      a run's model, exported, against the eager one
python -m spaudio.bench step RECIPE     training steps of a recipe with each filter
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from spaudio.bench import filters, generate
from spaudio.errors import SpaudioError


def main() -> None:
    """Runs a benchmark, prints its table and writes it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("filters", help="the filterbank's backends")
    _common(command, "filters", each="a shape", threads=2, rounds=9)
    command.add_argument(
        "--only", choices=[shape.name for shape in filters.SHAPES], action="append", help="a shape"
    )
    command.add_argument("--device", choices=filters.BACKENDS, default="cpu")
    command = commands.add_parser("generate", help="symbols a second, with and without cache")
    # One symbol at a time leaves nothing for a second thread.
    _common(command, "generate", each="a model", threads=1, rounds=5)
    command.add_argument(
        "run", nargs="?", type=Path, metavar="RUN", help="of a text recipe; none: untrained models"
    )
    command.add_argument(
        "--context", type=int, default=128, help="of the untrained models (default: 128)"
    )
    command.add_argument("--length", type=int, help="symbols a round (default: the context)")
    command.add_argument(
        "--filter", choices=generate.FILTERS, action="append", help="of an untrained model"
    )
    command = commands.add_parser("export", help="a run's model, exported, against the eager one")
    _common(command, "export", each="a batch", threads=2, rounds=9)
    command.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    command = commands.add_parser("step", help="training steps of a recipe with each filter")
    _common(command, "step", each="in all", threads=2, rounds=9)
    command.add_argument("recipe", type=Path, metavar="RECIPE", help="its folder")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="as for its run.py")
    command.add_argument(
        "--filter",
        action="append",
        help="a choice, with settings of its own after commas (bank,filter.num_filters=8); the "
        "first one is what the others are divided by (default: none, depthwise, bank)",
    )
    chosen = parser.parse_args()
    if getattr(chosen, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; use --device cpu")
    torch.set_num_threads(chosen.threads)
    measure = {"filters": _filters, "generate": _generate, "export": _export, "step": _step}[
        chosen.command
    ]
    try:
        report, table = measure(chosen)
    except SpaudioError as error:
        sys.exit(f"error: {error}")
    print(table)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {chosen.output}")


def _common(
    command: argparse.ArgumentParser, name: str, *, each: str, threads: int, rounds: int
) -> None:
    """Arguments of every benchmark."""
    command.add_argument(
        "--threads", type=int, default=threads, help="of torch and kernel (default: %(default)s)"
    )
    command.add_argument(
        "--rounds", type=int, default=rounds, help="of all in turn (default: %(default)s)"
    )
    command.add_argument(
        "--limit",
        type=float,
        default=30,
        help=f"seconds {each}, but three rounds (default: %(default)s)",
    )
    command.add_argument(
        "--output", type=Path, default=Path(f"runs/bench_{name}.json"), help="the JSON's file"
    )


def _filters(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    shapes = [s for s in filters.SHAPES if not chosen.only or s.name in chosen.only]
    report = filters.measure(shapes, chosen.rounds, chosen.limit, chosen.device)
    return report, filters.table(report)


def _generate(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    if chosen.run is None:
        models = generate.untrained(chosen.context, chosen.filter or generate.FILTERS)
    else:
        from spaudio.experiment.generate import load_language_model

        models = {chosen.run.name: load_language_model(chosen.run)}
    report = generate.measure(models, chosen.length, chosen.rounds, chosen.limit)
    return report, generate.table(report)


def _export(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    # Only here: it needs what the recipes need, the filters need torch alone.
    from spaudio.bench import export

    report = export.measure(chosen.run, chosen.rounds, chosen.limit)
    return report, export.table(report)


def _step(chosen: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from spaudio.bench import step

    names = chosen.filter or ["none", "depthwise", "bank"]
    report = step.measure(chosen.recipe, chosen.overrides, names, chosen.rounds, chosen.limit)
    return report, step.table(report)


if __name__ == "__main__":
    main()
