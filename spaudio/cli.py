"""The command ``spaudio``: what can be done with finished runs.

spaudio compare RUN...    one table over runs, mean ± std over seeds
spaudio filters RUN       kernels and their responses, before and after training
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
    compare.add_argument("--output", type=Path, help="also write the table as Markdown")
    filters = commands.add_parser("filters", help="draw a run's filters")
    filters.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "compare":
            _compare(chosen.runs, chosen.over, chosen.output)
        else:
            _filters(chosen.run)
    except SpaudioError as error:
        sys.exit(f"error: {error}")


def _compare(runs: Sequence[Path], over: str | None, output: Path | None) -> None:
    """Prints a table over runs, and writes it."""
    from spaudio.report.compare import compare, group_runs, show

    table, markdown = compare(group_runs(runs, over))
    show(table)
    if output is not None:
        output.write_text(markdown, encoding="utf-8")


def _filters(run: Path) -> None:
    """Draws a run's filters, those of a learned front-end too, and says where."""
    from spaudio.recipe.model import draw_filters, draw_front_end

    path, front_end = draw_filters(run), draw_front_end(run)
    sys.stdout.write(f"{path}\n" if path else f"{run} has no filter with kernels\n")
    if front_end:
        sys.stdout.write(f"{front_end}\n")


if __name__ == "__main__":
    main()
