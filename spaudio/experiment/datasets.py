"""The recipes there are: what their data sets are, and whether their data are at hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.markup import escape
from rich.table import Table
from yaml import YAMLError

from spaudio.audio.prepare import MARKER
from spaudio.errors import ConfigError


@dataclass(frozen=True)
class About:
    """The facts of a data set: the block ``about`` of a recipe's ``config.yaml``.

    Args:
        title: What it is, in a few words.
        licence: Of the audio, as its authors name it.
        size: Clips and download, such as ``"3,000 clips, 16 MB"``.
        classes: How many, or in words where a setting decides.
        metric: What its protocol reports, such as ``"accuracy"``.
        url: Where it comes from; None where it is the user's own.

    Raises:
        ConfigError: If a fact is missing or empty.
    """

    title: str
    licence: str
    size: str
    classes: int | str
    metric: str
    url: str | None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = {"classes": int | str, "url": str | None}.get(field.name, str)
            if not isinstance(value, kinds) or value in ("", 0, True):
                raise ConfigError(f"about.{field.name} must say something; got {value!r}")


def read_about(recipe: Path) -> About:
    """Reads a recipe's facts.

    Args:
        recipe: Folder with a ``config.yaml``.

    Raises:
        ConfigError: If the file cannot be read, or its ``about`` lacks a fact or has another one.
    """
    path = recipe / "config.yaml"
    try:
        config = OmegaConf.load(path)
        block = config.get("about") if isinstance(config, DictConfig) else None
        facts: Any = OmegaConf.to_container(block, resolve=True) if block is not None else None
    except (OSError, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    names = [field.name for field in fields(About)]
    if not isinstance(facts, dict) or set(facts) != set(names):
        got = sorted(map(str, facts)) if isinstance(facts, dict) else facts
        raise ConfigError(f"{path}: `about` must give {', '.join(names)}; got {got}")
    try:
        return About(**facts)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def find_recipes(folder: Path) -> list[Path]:
    """Returns the recipes' folders, by name.

    Raises:
        ConfigError: If there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/config.yaml"))
    if not found:
        raise ConfigError(
            f"no recipe in {folder.resolve()}: none of its folders holds a config.yaml; name the "
            "folder by --recipes"
        )
    return found


def data_at_hand(name: str, data: Path) -> str:
    """Says whether a recipe's data are prepared: the clips of each preparation, or what is there.

    Args:
        name: Of the recipe.
        data: The setting ``data``: where prepared data are kept.
    """
    home = data / name
    counts, gone = [], 0
    for marker in sorted(home.glob(f"*/{MARKER}")):
        try:
            record = json.loads(marker.read_text(encoding="utf-8"))
            clips = sum(n for labels in record["counts"].values() for n in labels.values())
            present = Path(record["root"]).is_dir()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # half-written or foreign: the next run prepares it again
        if present:
            counts.append(f"{clips:,}")
        else:
            gone += 1
    if counts:
        # A set may be prepared in several ways, such as by several splits.
        return f"prepared: {' / '.join(dict.fromkeys(counts))} clips"
    if gone:
        return "prepared, but its audio is gone"
    if (home / "work").is_dir() and any((home / "work").iterdir()):
        return "fetched, not prepared"
    return "absent"


def list_datasets(recipes: Sequence[Path], data: Path) -> Table:
    """Lays the recipes and their data sets out as a table.

    Args:
        recipes: Folders of recipes.
        data: Where prepared data are kept.
    """
    table = Table(caption=f"data in {escape(str(data))}; change it by --data")
    for column in ("recipe", "what", "licence", "size", "classes", "metric", "data"):
        table.add_column(column, overflow="fold")
    for recipe in recipes:
        try:
            about = read_about(recipe)
            facts = [about.title, about.licence, about.size, str(about.classes), about.metric]
        except ConfigError as error:
            facts = [str(error), *["?"] * 4]
        table.add_row(*map(escape, [recipe.name, *facts, data_at_hand(recipe.name, data)]))
    return table
