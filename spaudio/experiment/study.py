"""Runs a study: configurations over seeds or folds, on one recipe or on several datasets."""

from collections.abc import Sequence

from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.check_data import check_some_data
from spaudio.experiment.launch import failed_runs, launch_runs
from spaudio.experiment.run_folder import open_run_folder
from spaudio.experiment.start import execute_run
from spaudio.experiment.study_plan import StudyRun
from spaudio.report.run_files import REPORT


def run_study(runs: Sequence[StudyRun], jobs: int = 1) -> None:
    """Executes the runs that are not finished yet.

    Args:
        runs: From :func:`spaudio.experiment.study_plan.plan_study`.
        jobs: Number of parallel runs.

    Raises:
        ConfigError: If a run of the same name exists with other settings.
        SpaudioError: If the data of a dataset cannot be used, or a run has failed.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1; got {jobs}")
    left = [run for run in runs if not (run.folder / REPORT).is_file()]
    for name in dict.fromkeys(run.data for run in left):
        of = [run for run in left if run.data == name]
        try:
            check_some_data([run.settings for run in of], of[0].script.parent)
        except SpaudioError as error:
            raise SpaudioError(f"dataset {name}: {error}" if name else str(error)) from error
    folders = {open_run_folder(run.settings): run.script for run in runs}
    if failed := launch_runs(folders, execute_run, jobs=jobs):
        raise SpaudioError(failed_runs(failed, len(folders), "the same command"))
