"""Starts what a command asks for: one run, or one run per fold."""

from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.encoders import check_source
from spaudio.experiment.folds import run_folds
from spaudio.experiment.run import train_and_report
from spaudio.experiment.run_folder import read_run_settings, refuse_elsewhere
from spaudio.experiment.settings import AudioSettings, Settings
from spaudio.io.messages import warn
from spaudio.io.paths import user_path


def start_run(settings: Settings, script: Path) -> Path:
    """Executes one run, or one run per fold, as a command gives it.

    Args:
        settings: Settings of the command. If ``resume`` is given, all but ``jobs`` come from that
            run.
        script: The recipe's ``run.py``.

    Returns:
        The run's folder.

    Raises:
        SpaudioError: If the data, the settings or the machine prevent the run.
    """
    if settings.resume is None:
        return execute_run(settings, script, jobs=settings.jobs)
    run = user_path(settings.resume)
    if run.name in ("", ".."):  # such as resume=., of which reports would have no name
        run = run.resolve()
    own = read_run_settings(run)
    if own.prep == "prep" and own.recipe != settings.recipe:
        raise ConfigError(
            f"{run} is a run of {own.recipe}, a recipe of its own; resume it with "
            f"{own.recipe}/run.py"
        )
    check_source(run, own)
    refuse_elsewhere(run, own)
    return execute_run(own, script, run, jobs=settings.jobs)


def execute_run(settings: Settings, script: Path, run: Path | None = None, jobs: int = 1) -> Path:
    """Executes one run, or one run per fold.

    Args:
        settings: Settings of the run.
        script: The recipe's ``run.py``.
        run: Its folder, if it exists: the run is continued.
        jobs: Number of folds at a time.

    Returns:
        The run's folder.

    Raises:
        SpaudioError: If the data, the settings or the machine prevent the run.
    """
    if isinstance(settings, AudioSettings) and settings.folds == "all":
        settings.jobs = jobs
        return run_folds(settings, script, run)
    if settings.cluster is not None and run is None:
        raise ConfigError(
            f"cluster={settings.cluster} submits the runs of a sweep (add -m) or of folds=all; "
            "leave cluster out to run here"
        )
    if jobs > 1:
        warn(f"jobs={jobs} has no effect on one run; it is for several: -m or folds=all")
    return train_and_report(settings, script, run)
