"""Starts what a recipe is called for: one run, or one run per fold."""

from pathlib import Path

from spaudio.errors import ConfigError
from spaudio.experiment.folds import run_folds
from spaudio.experiment.run import train_and_report
from spaudio.experiment.run_folder import read_run_settings, refuse_elsewhere
from spaudio.experiment.settings import AudioSettings, Settings
from spaudio.io.messages import warn


def start_run(settings: Settings, script: Path) -> Path:
    """Executes one run, or one run per fold.

    Args:
        settings: Settings of the run. If ``resume`` is given, all but ``jobs`` come from that run.
        script: The recipe's ``run.py``.

    Returns:
        The run's folder.

    Raises:
        SpaudioError: If the data, the settings or the machine prevent the run.
    """
    given = settings
    if settings.resume is not None:
        given = read_run_settings(Path(settings.resume))
        refuse_elsewhere(Path(settings.resume), given)
    if isinstance(given, AudioSettings) and given.folds == "all":
        given.jobs, given.resume = settings.jobs, settings.resume
        return run_folds(given, script)
    if settings.cluster is not None and settings.resume is None:
        raise ConfigError(
            f"cluster={settings.cluster} submits the runs of a sweep; add -m, or leave it out to "
            "run here"
        )
    if settings.jobs > 1:
        warn(f"jobs={settings.jobs} has no effect on one run; it is for several: -m or folds=all")
    return train_and_report(settings, script)
