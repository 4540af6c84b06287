"""The entry point of a recipe's ``run.py``.

python recipes/<name>/run.py key=value ...                    one run
python recipes/<name>/run.py -m filter=none,bank seed=0,1,2   a sweep, compared at the end
python recipes/<name>/run.py folds=all jobs=2                 every fold, one report over all
python recipes/<name>/run.py resume=RUN                       continue a run, or all folds
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from spaudio.experiment.compare import compare_runs
from spaudio.experiment.compose import compose, expand
from spaudio.experiment.processes import is_first_process
from spaudio.experiment.run_folder import named_reports, read_run_settings
from spaudio.experiment.start import start_run
from spaudio.experiment.sweep import run_sweep
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.io.escape import printable, printable_error
from spaudio.io.messages import say
from spaudio.io.parent import end_with_parent
from spaudio.io.paths import user_path
from spaudio.report.convergence import NoBaselineError


def main(
    script: str, arguments: Sequence[str] | None = None, *, program: str | None = None
) -> None:
    """Runs a recipe; an error prints one line and exits with code 1.

    Args:
        script: ``__file__`` of a ``recipes/<name>/run.py`` with a ``config.yaml`` beside it.
        arguments: Command line arguments; None takes those of this process.
        program: Name of the program in help texts; None uses the script.
    """
    end_with_parent()
    set_up_terminal()
    path = Path(script).resolve()
    parser = argparse.ArgumentParser(
        prog=program or f"recipes/{path.parent.name}/run.py",
        description="Runs this recipe.\n" + __doc__.partition("\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="run all combinations of listed values"
    )
    parser.add_argument("--cfg", action="store_true", help="print all settings without running")
    chosen = parser.parse_intermixed_args(arguments)
    with errors_in_one_line(tell=_say):
        if chosen.cfg:
            given = expand(chosen.overrides)[0] if chosen.multirun else chosen.overrides
            settings = compose(path.parent, given)
            if settings.resume is not None:  # all other settings are those of the run
                settings = read_run_settings(user_path(settings.resume))
            sys.stdout.write(yaml.safe_dump(settings.as_dict(), sort_keys=False))
        elif chosen.multirun:
            finished, error = run_sweep(path, chosen.overrides)
            if error is not None:  # said even if the comparison fails
                _say(error)
            _compare(finished)
            if error is not None:
                raise SystemExit(1)
        else:
            start_run(compose(path.parent, chosen.overrides), path)


def _say(error: object) -> None:
    """Prints an error."""
    who = "" if is_first_process() else f"process {os.environ['RANK']}: "
    say(f"{who}error: {printable_error(error)}", "red")


def _compare(runs: Sequence[Path]) -> None:
    """Compares the finished runs of a sweep."""
    here = Path.cwd()
    runs = [run.relative_to(here) if run.is_relative_to(here) else run for run in runs]
    if len(runs) < 2:
        return
    table = runs[-1].parent / f"compare-{runs[-1].name}.md"
    try:
        compare_runs(runs, output=table)
    except NoBaselineError as error:  # of text; the runs themselves are finished
        say(f"the finished runs cannot be compared: {error}")
    for run in runs:
        sys.stdout.write(f"report: {printable(named_reports(run))}\n")
