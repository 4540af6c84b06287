"""Run folders: created once, never shared or overwritten."""

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from spaudio.audio.find import NOT_A_SOURCE
from spaudio.errors import CheckpointError, ConfigError, first_line
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.settings import FILE_SETTINGS, Settings
from spaudio.io.atomic import write_atomic
from spaudio.io.full_disk import named_full_disk
from spaudio.io.plain import flatten, read_yaml
from spaudio.report.records import DESCRIBING, LAUNCHING, MACHINE
from spaudio.report.run_files import CONFIG, MARKDOWN, PAGE, REPORT, folds_in, no_run

#: Output of a run in a separate process, or the error of one in the launching process.
OUTPUT = "output.txt"


def new_run_id() -> str:
    """Returns a name for a run: the local time and eight random characters."""
    # With four characters, two of 8 runs begun in one second share a name in 1 of 2,300 cases.
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


def folder_of(settings: Settings) -> Path:
    """Returns the folder of a run that has a name: ``<runs>/<recipe>/<run_id>``."""
    # No property of the settings: an argument of a `prepare` function may be called `folder`.
    return Path(settings.runs, settings.recipe, settings.run_id or "")


def data_folder_of(settings: Settings) -> Path:
    """Returns the folder of a recipe's prepared data: ``<data>/<recipe>``."""
    # No property either, for the same reason.
    return Path(settings.data, settings.recipe)


def create_run_folder(settings: Settings, folder: Path | None = None) -> Path:
    """Creates the folder of a run with the settings in it, atomically.

    Args:
        settings: Settings of the run. If ``run_id`` is None, it is set to a new one.
        folder: The folder; None for ``<runs>/<recipe>/<run_id>``.

    Raises:
        ConfigError: If a folder of that name is not empty or cannot be created.
        DataError: If the disk is full, or the folder cannot be written.
    """
    settings.run_id = settings.run_id or new_run_id()
    folder = folder or folder_of(settings)
    staging = folder.with_name(f".{secrets.token_hex(8)}")
    try:
        with named_full_disk(folder.parent, "runs"):
            staging.mkdir(parents=True)
            (staging / NOT_A_SOURCE).touch()  # of a run in a folder of sounds
            save_run_settings(staging, settings)
        # Fails if another run has taken the name. An empty folder is replaced.
        staging.rename(folder)
    except OSError as error:
        if os.path.lexists(folder):
            raise _taken(settings, folder) from error
        raise ConfigError(
            f"runs={settings.runs}: cannot make {folder} ({error.strerror}); name a folder that "
            "can be written to"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def open_run_folder(settings: Settings, folder: Path | None = None) -> Path:
    """Opens the folder of a run with the same name and settings, or creates it.

    Settings of the machine, which change no result, may differ: a run that is not finished
    continues with the given ones.

    Args:
        settings: Settings of the run.
        folder: The folder; None for ``<runs>/<recipe>/<run_id>``.

    Raises:
        ConfigError: If a run of that name has other settings, or as in :func:`create_run_folder`.
    """
    if folder is None and settings.run_id is not None:
        folder = folder_of(settings)
    if folder is None or not (folder / CONFIG).is_file():
        return create_run_folder(settings, folder)
    different = _other_machine(settings, folder)
    if different and not (folder / REPORT).is_file():
        there = read_run_settings(folder)
        for key, wanted in different.items():
            group, _, name = key.rpartition(".")
            setattr(getattr(there, group) if group else there, name, wanted)
        save_run_settings(folder, there)
    return folder


def refuse_other_settings(settings: Settings) -> None:
    """Checks, before data are prepared, that a run of this name can be begun or continued.

    Raises:
        ConfigError: If there is one with other settings, or a folder of that name is not a run's.
    """
    if settings.run_id is None:
        return
    folder = folder_of(settings)
    if (folder / CONFIG).is_file():
        _other_machine(settings, folder)
    else:
        refuse_taken(settings)


def _other_machine(settings: Settings, folder: Path) -> dict[str, Any]:
    """Returns the settings of the machine in which a run differs, with their new values.

    Raises:
        ConfigError: If other settings differ.
    """
    different = differences(read_run_settings(folder), settings)
    for key, (before, wanted) in different.items():
        if key not in MACHINE:
            raise ConfigError(
                f"{folder} was run with {key}={before}, not {wanted}; choose another run_id, keep "
                f"these runs elsewhere with runs=FOLDER, or continue with resume={folder}"
            )
    return {key: wanted for key, (_, wanted) in different.items()}


def refuse_taken(settings: Settings) -> None:
    """Checks that a new run may have its name, before its data are prepared.

    Raises:
        ConfigError: If a folder of that name is not empty.
    """
    folder = folder_of(settings)
    if settings.run_id is None or not os.path.lexists(folder):
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise _taken(settings, folder)


def _taken(settings: Settings, folder: Path) -> ConfigError:
    remedy = f", or continue it with resume={folder}" if (folder / CONFIG).is_file() else ""
    return ConfigError(
        f"run_id={settings.run_id} exists in {folder.parent}; choose another name{remedy}"
    )


def differences(there: Settings, wanted: Settings) -> dict[str, tuple[Any, Any]]:
    """Returns the settings in which two calls of one run differ: by name, both values."""
    free = LAUNCHING | DESCRIBING
    had, given = (
        dict(flatten({key: value for key, value in one.as_dict().items() if key not in free}))
        for one in (there, wanted)
    )
    if given.get("corpus") == "auto":  # the run has the text that it has found
        given["corpus"] = had.get("corpus")
    return {
        name: (had.get(name), given.get(name))
        for name in {**given, **had}
        if had.get(name) != given.get(name)
    }


def save_run_settings(folder: Path, settings: Settings) -> None:
    """Writes the settings of a run to its folder, atomically."""
    text = yaml.safe_dump(settings.as_dict(), sort_keys=False, allow_unicode=True)
    write_atomic(folder / CONFIG, text.encode())


def named_reports(folder: Path) -> str:
    """Returns the path of the report of a run or of folds, and of its page if there is one."""
    text, page = folder / MARKDOWN, folder / PAGE
    return f"{text} and {page}" if page.is_file() else str(text)


def read_run_settings(folder: Path) -> Settings:
    """Reads the settings of a run; interpolations in them are not resolved.

    Raises:
        CheckpointError: If the folder is not a run's folder, or its settings cannot be used.
    """
    content = read_run_config(folder)
    try:
        return read_settings(content)
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be used ({first_line(error)}); restore it if it was "
            "changed, else use the version of spaudio that made the run"
        ) from error


def read_run_config(folder: Path) -> dict[str, Any]:
    """Reads a run's ``config.yaml`` as plain data.

    Raises:
        CheckpointError: If the folder is not a run's folder, or the file is damaged.
    """
    try:
        content = read_yaml(folder / CONFIG)
    except FileNotFoundError as error:
        refuse_folds(folder)
        raise CheckpointError(no_run(folder)) from error
    except (ValueError, OSError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read ({first_line(error)}); restore it as the run wrote "
            "it"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder / CONFIG} is not a mapping of settings")
    return content


def refuse_elsewhere(folder: Path, settings: Settings) -> None:
    """Refuses to continue a run from a folder in which a relative path does not name its input.

    Args:
        folder: The run's folder.
        settings: Its settings.

    Raises:
        CheckpointError: If the input is in the folder where the run was started.
    """
    below = folder_of(settings)
    folder = folder.resolve()
    if below.is_absolute() or folder.parts[-len(below.parts) :] != below.parts:
        return
    started = folder.parents[len(below.parts) - 1]
    for name in sorted(FILE_SETTINGS):
        value = getattr(settings, name, None)
        if isinstance(value, str) and not Path(value).exists() and (started / value).exists():
            raise CheckpointError(
                f"{folder} was started in {started}, where {name}={value} is; resume it from there"
            )


def refuse_folds(folder: Path) -> None:
    """Refuses the folder of a run over folds.

    Raises:
        CheckpointError: If it is one; the message names the run of a fold.
    """
    if folds := [one for one in folds_in(folder).values() if (one / CONFIG).is_file()]:
        raise CheckpointError(
            f"{folder} holds the runs of several folds, each with its own model; name one, such as "
            f"{folds[0]}"
        )
