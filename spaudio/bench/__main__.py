"""Measures on this machine.

python -m spaudio.bench filters    every backend of the filterbank against the definition
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from spaudio.bench import filters


def main() -> None:
    """Runs the benchmark, prints its table and writes it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("filters", help="the filterbank's backends")
    command.add_argument("--device", choices=filters.BACKENDS, default="cpu")
    command.add_argument("--threads", type=int, default=2, help="of torch and kernel (default: 2)")
    command.add_argument("--rounds", type=int, default=9, help="of all in turn (default: 9)")
    command.add_argument(
        "--limit", type=float, default=30, help="seconds a shape, but three rounds (default: 30)"
    )
    command.add_argument(
        "--only", choices=[shape.name for shape in filters.SHAPES], action="append", help="a shape"
    )
    command.add_argument(
        "--output", type=Path, default=Path("runs/bench_filters.json"), help="the JSON's file"
    )
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; use --device cpu")
    torch.set_num_threads(chosen.threads)
    shapes = [s for s in filters.SHAPES if not chosen.only or s.name in chosen.only]
    report = filters.measure(shapes, chosen.rounds, chosen.limit, chosen.device)
    print(filters.table(report))
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {chosen.output}")


if __name__ == "__main__":
    main()
