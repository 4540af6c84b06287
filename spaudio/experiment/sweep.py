"""Runs a sweep: every combination of the values that its overrides list."""

from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.check_data import check_some_data
from spaudio.experiment.compose import compose, expand
from spaudio.experiment.folds import refuse_given_fold
from spaudio.experiment.launch import failed_runs, launch_runs
from spaudio.experiment.processes import processes
from spaudio.experiment.run_folder import (
    new_run_id,
    open_run_folder,
    refuse_other_settings,
)
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.start import execute_run


def run_sweep(script: Path, overrides: Sequence[str]) -> tuple[list[Path], str | None]:
    """Runs every combination of the values that the overrides list.

    Args:
        script: The recipe's ``run.py``.
        overrides: ``key=value`` or ``key=value,value,...``. With ``run_id=NAME`` the runs are
            called ``NAME-0``, ``NAME-1``, ..., and repeating the command resumes them.

    Returns:
        The runs that are finished, in order, and an error message that names those that are not;
        None if all are.

    Raises:
        ConfigError: If an override is wrong.
        DataError: If the data cannot be used.
    """
    if processes() > 1:
        raise ConfigError("a sweep (-m) cannot run under torchrun; start each run by itself")
    composed = [compose(script.parent, run) for run in expand(overrides)]
    if any(settings.resume is not None for settings in composed):
        raise ConfigError("resume continues one run; leave -m out")
    first = composed[0]  # its name, jobs and cluster are those of all; see `expand`
    folds = [one for one in composed if isinstance(one, AudioSettings) and one.folds]
    for one in folds:  # before any folder is made
        refuse_given_fold(one)
    if folds and first.cluster is not None:
        raise ConfigError(
            f"cluster={first.cluster} folds=all submits each fold as a job, so it cannot be part "
            "of a sweep; leave -m out, and start one command per combination"
        )
    name = first.run_id or new_run_id()
    for number, settings in enumerate(composed):
        settings.run_id = f"{name}-{number}"
    for settings in composed:
        refuse_other_settings(settings)
    check_some_data(composed, script.parent)
    folders = [open_run_folder(settings) for settings in composed]
    remedy = f"run_id={name} and the same settings"
    failed = launch_runs(
        dict.fromkeys(folders, script),
        execute_run,
        jobs=first.jobs,
        cluster=first.cluster,
        cluster_options=first.cluster_options,
        remedy=remedy,
    )
    error = failed_runs(failed, len(folders), remedy) if failed else None
    return [folder for folder in folders if folder not in failed], error
