"""Tasks, which define the kinds of runs: classification with one or several labels, and text."""

from pathlib import Path

from spaudio.experiment.data import load_data
from spaudio.experiment.settings import AudioSettings, PretrainedConfig, Settings, TextSettings
from spaudio.experiment.tasks.adaptation import AdaptationTask
from spaudio.experiment.tasks.classification import ClassificationTask
from spaudio.experiment.tasks.task import Task
from spaudio.experiment.tasks.text import TextTask

__all__ = ["Task", "open_task"]


def open_task(settings: Settings, recipe: Path) -> Task:
    """Prepares the data of a run and returns its task.

    Args:
        settings: Settings of the run.
        recipe: The recipe's folder.

    Raises:
        SpaudioError: As in :func:`spaudio.experiment.data.load_data`.
    """
    if isinstance(settings, TextSettings):
        return TextTask(settings, recipe)
    assert isinstance(settings, AudioSettings)
    pretrained = isinstance(settings.model, PretrainedConfig)
    task = AdaptationTask if pretrained else ClassificationTask
    return task(settings, load_data(settings, recipe))
