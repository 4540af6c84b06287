"""Saves the model of a run as a folder to publish, and finds saved models on disk or on the Hub.

The folder holds ``model.safetensors``, ``config.yaml`` (the settings, without those that name local
files), ``inputs.json`` (classes and normalisation), ``report.json`` and the model card
``README.md``. Like a run, it is read as plain data, and no class is imported from it. For a
pretrained encoder, it holds the trained parts, and the encoder's name and hash; give an encoder
that is not on the Hub with ``load(..., base=FOLDER)``. To publish the folder:
``hf upload OWNER/NAME FOLDER``.
"""

import os
import shutil
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from spaudio.errors import CheckpointError, ConfigError, first_line, how_to_install
from spaudio.experiment.inputs import INPUTS, Inputs
from spaudio.experiment.load import weights_folder
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.settings import FILE_SETTINGS, Settings
from spaudio.inference.model_card import model_card
from spaudio.io.atomic import new_folder
from spaudio.io.plain import read_json, write_json
from spaudio.model.pretrained.encoder_source import HUB_ID, is_folder
from spaudio.report.records import LAUNCHING
from spaudio.report.run_command import command, without_folders
from spaudio.report.run_files import CONFIG, REPORT
from spaudio.training.checkpoint import WEIGHTS

FILES = (CONFIG, INPUTS, REPORT, WEIGHTS)
CARD = "README.md"
# Settings of the machine, not of the model.
_LOCAL = LAUNCHING | {"data"}


def fetch(source: str | os.PathLike[str]) -> Path:
    """Returns the folder of a run or a saved model; downloads a model that is on the Hub.

    Args:
        source: The folder, or a Hugging Face Hub id, ``"owner/name"``.

    Raises:
        CheckpointError: If neither exists.
        ConfigError: If huggingface_hub is missing.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = os.fspath(source)
    if not HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{name}: no such folder; name a run, such as runs/folder/ID, or an id on the Hugging "
            "Face Hub, OWNER/NAME"
        )
    try:
        from huggingface_hub import snapshot_download  # noqa: TID251
    except ImportError as error:
        raise ConfigError(
            f"{name}: there is no such folder, and an id on the Hugging Face Hub needs "
            f"huggingface_hub: {how_to_install('hub')}"
        ) from error
    try:
        return Path(snapshot_download(name, allow_patterns=[*FILES, CARD]))
    except (OSError, ValueError) as error:  # the Hub's own errors are OSErrors
        raise CheckpointError(
            f"{name}: no such folder, and not found on the Hugging Face Hub ({first_line(error)})"
        ) from error


def save_pretrained(run: Path, folder: Path) -> None:
    """Saves the best model of a finished run, atomically.

    Args:
        run: The run's folder, or a saved model.
        folder: Folder to create.

    Raises:
        CheckpointError: If the run is not finished or damaged.
        ConfigError: If ``folder`` exists, or huggingface_hub is missing.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists; name another folder, or remove it")
    try:
        report = read_json(run / REPORT)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{run} holds no {REPORT} that can be read ({error}); finish the run first"
        ) from error
    content, report = portable(run), portable_report(report)
    card = _card(run, content, report, Inputs.load(run))
    with new_folder(folder) as staging:
        shutil.copyfile(weights_folder(run) / WEIGHTS, staging / WEIGHTS)
        shutil.copyfile(run / INPUTS, staging / INPUTS)
        write_json(staging / REPORT, report)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (staging / CONFIG).write_text(text, encoding="utf-8")
        (staging / CARD).write_text(card, encoding="utf-8")


def _card(run: Path, content: dict[str, Any], report: dict[str, Any], inputs: Inputs) -> str:
    """Returns the model card.

    A saved model keeps the card that it has, because its folder does not hold the command that
    trained it.
    """
    saved, is_saved = run / CARD, (run / WEIGHTS).is_file()
    if is_saved and saved.is_file():
        return saved.read_text(encoding="utf-8")
    return model_card(
        content,
        report,
        inputs.classes,
        longest_seconds=inputs.longest_seconds,
        multi_label=inputs.multi_label,
        command=None if is_saved else command(read_run_settings(run).as_dict()),
    )


def portable(run: Path) -> dict[str, Any]:
    """Returns the settings of a run without those that name files on this machine.

    Absolute paths in the options of a recipe's preparation are shortened to their last part.
    """
    found = read_run_settings(run)
    settings = found.as_dict()
    fresh: dict[str, Any] = {
        name: without_folders(settings[name], name) for name in found.prep_options
    }
    fresh |= {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(Settings)
        if field.name in _LOCAL
    }
    if isinstance(settings.get("pretrain"), dict):
        fresh["pretrain"] = settings["pretrain"] | {"source": None}
    if "source" in settings["model"]:
        fresh["model"] = _without_folder(settings["model"])
    return {name: value for name, value in (settings | fresh).items() if name not in FILE_SETTINGS}


def portable_report(report: dict[str, Any]) -> dict[str, Any]:
    """Returns the report of a run without the folders of its encoder and of unlabelled sounds."""
    named = {name: report[name] for name in ("base", "pretrain") if name in report}
    return report | {name: _without_folder(facts) for name, facts in named.items()}


def _without_folder(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns facts in which a ``source`` that is a folder is shortened to its last part."""
    source = str(facts["source"])
    return facts | ({"source": Path(source).resolve().name} if is_folder(source) else {})
