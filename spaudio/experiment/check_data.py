"""Checks the data of several runs before any of them starts."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

from spaudio.errors import SpaudioError
from spaudio.experiment.settings import AudioSettings, Settings
from spaudio.experiment.tasks import open_task

# Settings that opening the data does not read.
_OF_NO_DATA = ("filter", "optim", "run_id", "overrides")


def check_some_data(composed: Sequence[Settings], recipe: Path) -> None:
    """Refuses a set of runs if none has usable data, before their folders are made.

    Args:
        composed: Their settings.
        recipe: Folder of their recipe.

    Raises:
        SpaudioError: If no run has usable data; the error is that of the first run.
    """
    refused: SpaudioError | None = None
    for settings in {_data_settings(one): one for one in composed}.values():
        if isinstance(settings, AudioSettings) and settings.folds:  # no fold is chosen yet
            return
        try:
            # A copy: a text's ``corpus`` is replaced, and all runs should say the same.
            open_task(copy.deepcopy(settings), recipe)
        except SpaudioError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _data_settings(settings: Settings) -> str:
    """Returns a key of the settings that may decide whether a run can use its data.

    These are nearly all: clips may have too many tokens for learned positions, for example.
    """
    given = {name: value for name, value in settings.as_dict().items() if name not in _OF_NO_DATA}
    return json.dumps(given)
