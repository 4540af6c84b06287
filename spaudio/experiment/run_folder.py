"""The folder of a run: made once, never shared, never overwritten."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from spaudio.errors import CheckpointError, ConfigError
from spaudio.io.atomic import write_atomic

CONFIG = "config.yaml"


def create_run_folder(config: DictConfig) -> Path:
    """Makes ``<runs>/<recipe>/<id>`` and keeps the composed configuration in it.

    The id is ``run_id`` where one is given, else the local time and four random characters.

    Args:
        config: The composed configuration.

    Returns:
        The new folder.

    Raises:
        ConfigError: If a folder of that name exists, or none can be made.
    """
    run_id = config.run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = Path(str(config.runs), str(config.recipe), str(run_id))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(folder)  # fails where another run has taken the name, also at the same instant
    except FileExistsError as error:
        raise ConfigError(
            f"run_id={run_id} exists in {folder.parent}; take another name, or go on with it by "
            f"resume={folder}"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"runs={config.runs}: cannot make {folder} ({error.strerror}); name a folder that can "
            "be written to"
        ) from error
    write_atomic(folder / CONFIG, OmegaConf.to_yaml(config, resolve=True).encode())
    return folder


def read_run_config(folder: Path) -> DictConfig:
    """Reads a run's configuration.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    try:
        config = OmegaConf.load(folder / CONFIG)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a run's folder: it holds no {CONFIG}") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read ({str(error).splitlines()[0]}); it must be as the "
            "run wrote it"
        ) from error
    if not isinstance(config, DictConfig):
        raise CheckpointError(f"{folder / CONFIG} is not a mapping of settings")
    return config
