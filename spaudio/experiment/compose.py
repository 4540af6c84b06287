"""A recipe's configuration: its YAML, the shared groups of ``spaudio.conf``, and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

from spaudio.errors import ConfigError
from spaudio.experiment.settings import unknown

SEARCH_PATH = "hydra.searchpath=[pkg://spaudio.conf]"


def compose(recipe: Path, overrides: Sequence[str]) -> DictConfig:
    """Composes a recipe's configuration as its ``run.py`` would.

    Args:
        recipe: Folder with a ``config.yaml``.
        overrides: In Hydra's grammar, ``key=value``.

    Raises:
        ConfigError: If the folder is not a recipe's, or an override does not fit.
    """
    if not (recipe / "config.yaml").is_file():
        known = sorted(path.parent.name for path in recipe.parent.glob("*/config.yaml"))
        if known:
            raise unknown("recipe", recipe.name, known)
        raise ConfigError(f"{recipe} is not a recipe's folder: it has no config.yaml")
    try:
        with hydra.initialize_config_dir(str(recipe.resolve()), version_base="1.3"):
            return hydra.compose("config", [SEARCH_PATH, *overrides])
    except hydra.errors.HydraException as error:
        raise ConfigError(f"{recipe}: {str(error).splitlines()[0]}") from error
