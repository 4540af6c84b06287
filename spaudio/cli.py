"""The command ``spaudio``: what can be done with finished runs.

spaudio compare RUN...    one table over runs, mean ± std over seeds
spaudio filters RUN       kernels and their responses, before and after training
spaudio generate RUN      text from a language model, character by character
spaudio study FILE        the runs that a study lists; finished ones are skipped
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import SpaudioError
from spaudio.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a sub-command; an error that the user can mend is one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="spaudio", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="one table over runs, mean ± std over seeds")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    compare.add_argument(
        "--over", metavar="SETTING", help="average over its values too, such as test_speaker"
    )
    compare.add_argument(
        "--convergence",
        action="store_true",
        help="steps, seconds and FLOPs to the best loss of filter=none (text runs: always)",
    )
    compare.add_argument(
        "--output", type=Path, help="also write the table as Markdown, and figures beside it"
    )
    filters = commands.add_parser("filters", help="draw a run's filters")
    filters.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
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
        help="below 1 the probable gets more so; 0 takes the most probable (default: 1)",
    )
    generate.add_argument("--top-k", type=int, metavar="K", help="of the K most probable alone")
    generate.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    study = commands.add_parser("study", help="run what a study lists; finished runs are skipped")
    study.add_argument("file", type=Path, metavar="FILE", help="recipes/<name>/<study>.yaml")
    study.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of every run")
    study.add_argument("--only", metavar="NAME,...", help="of these settings alone")
    study.add_argument("--seeds", metavar="SEED,...", help="of these seeds alone")
    study.add_argument("--jobs", type=int, default=1, help="processes at a time")
    study.add_argument("--output", type=Path, help="write the comparison as Markdown")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "compare":
            from spaudio.recipe.compare import compare_runs

            compare_runs(
                chosen.runs,
                over=chosen.over,
                output=chosen.output,
                convergence=chosen.convergence,
            )
        elif chosen.command == "study":
            _study(chosen)
        elif chosen.command == "generate":
            _generate(chosen)
        else:
            _filters(chosen.run)
    except SpaudioError as error:
        sys.exit(f"error: {error}")


def _study(chosen: argparse.Namespace) -> None:
    """Runs a study and compares its runs."""
    from spaudio.recipe.compare import compare_runs
    from spaudio.recipe.study import study_main

    only = chosen.only.split(",") if chosen.only else None
    try:
        seeds = [int(seed) for seed in chosen.seeds.split(",")] if chosen.seeds else None
    except ValueError:
        sys.exit(f"error: --seeds={chosen.seeds}; expected whole numbers, such as 0,1,2")
    try:
        runs = study_main(chosen.file, chosen.overrides, only, seeds, chosen.jobs)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on\n")
        sys.exit(130)
    compare_runs(runs, output=chosen.output)


def _filters(run: Path) -> None:
    """Draws a run's filters and says where."""
    from spaudio.recipe.model import draw_filters

    path = draw_filters(run)
    sys.stdout.write(f"{path}\n" if path else f"{run} has no filter with kernels\n")


def _generate(chosen: argparse.Namespace) -> None:
    """Prints a prompt and what a run's model makes of it."""
    from spaudio.recipe.generate import continue_text

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
