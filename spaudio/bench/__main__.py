"""Measures on this machine.

python -m spaudio.bench filters       every backend of the filterbank against the definition
python -m spaudio.bench export RUN    a run's model, exported, against the eager one
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from spaudio.bench import filters
from spaudio.errors import SpaudioError


def main() -> None:
    """Runs a benchmark, prints its table and writes it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("filters", help="the filterbank's backends")
    command.add_argument("--device", choices=filters.BACKENDS, default="cpu")
    command.add_argument(
        "--only", choices=[shape.name for shape in filters.SHAPES], action="append", help="a shape"
    )
    export = commands.add_parser("export", help="a run's model, exported, against the eager one")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    for name, sub in commands.choices.items():
        sub.add_argument("--threads", type=int, default=2, help="of torch and kernel (default: 2)")
        sub.add_argument("--rounds", type=int, default=9, help="of all in turn (default: 9)")
        sub.add_argument(
            "--limit", type=float, default=30, help="seconds a shape, but three rounds (default 30)"
        )
        output = Path(f"runs/bench_{name}.json")
        sub.add_argument("--output", type=Path, default=output, help="the JSON's file")
    chosen = parser.parse_args()
    if getattr(chosen, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; use --device cpu")
    torch.set_num_threads(chosen.threads)
    if chosen.command == "filters":
        shapes = [s for s in filters.SHAPES if not chosen.only or s.name in chosen.only]
        report = filters.measure(shapes, chosen.rounds, chosen.limit, chosen.device)
        print(filters.table(report))
    else:
        # Only here: it needs what the recipes need, the filters need torch alone.
        from spaudio.bench import export as exported

        try:
            report = exported.measure(chosen.run, chosen.rounds, chosen.limit)
        except SpaudioError as error:
            sys.exit(f"error: {error}")
        print(exported.table(report))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {chosen.output}")


if __name__ == "__main__":
    main()
