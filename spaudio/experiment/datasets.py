"""Lists recipes: facts about their datasets, and whether the data are prepared."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from spaudio.audio.prepare import MARKER
from spaudio.errors import ConfigError
from spaudio.experiment.settings import About
from spaudio.io.plain import read_json, read_yaml


def read_about(recipe: Path) -> About:
    """Reads the facts about a recipe's dataset.

    Args:
        recipe: Folder with a ``config.yaml``.

    Raises:
        ConfigError: If the file cannot be read, or facts of its ``about`` are missing or unknown.
    """
    path = recipe / "config.yaml"
    try:
        content = read_yaml(path)
        block = content.get("about") if isinstance(content, dict) else None
        names = [field.name for field in fields(About)]
        if not isinstance(block, dict) or set(block) != set(names):
            got = sorted(map(str, block)) if isinstance(block, dict) else block
            raise ConfigError(f"`about` must give {', '.join(names)}; got {got}")
        return About(**block)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
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
            f"no recipe in {folder.resolve()}: none of its folders holds a config.yaml; give the "
            "folder with --recipes"
        )
    return found


def data_at_hand(name: str, data: Path) -> str:
    """Describes the state of a recipe's data: the number of clips if they are prepared.

    Args:
        name: Name of the recipe.
        data: Folder of prepared data, the setting ``data``.
    """
    home = data / name
    counts, gone = [], 0
    for marker in sorted(home.glob(f"*/{MARKER}")):
        try:
            record = read_json(marker)
            clips = int(record["clips"])
            present = Path(record["root"]).is_dir()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged or of another kind: the next run prepares it again
        if present:
            counts.append(f"{clips:,}")
        else:
            gone += 1
    if counts:
        # A dataset can be prepared with several options, such as different splits.
        return f"prepared: {' / '.join(dict.fromkeys(counts))} clips"
    if gone:
        return "prepared, but its audio is gone"
    if (home / "work").is_dir() and any((home / "work").iterdir()):
        return "fetched, not prepared"
    return "absent"


def list_datasets(recipes: Sequence[Path], data: Path) -> Table:
    """Returns a table of recipes and their datasets.

    Args:
        recipes: Folders of recipes.
        data: Folder of prepared data.
    """
    table = Table(caption=f"data in {escape(str(data))}; change it with --data")
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
