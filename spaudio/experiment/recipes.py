"""Finds the recipes, beside the package or inside it if it is installed, and their scripts."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spaudio.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def recipes_folder() -> Path:
    """Returns the folder of recipes; ``data_prep``, with their scripts, is beside it."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


def prep_function(recipe: Path, name: str) -> Callable[..., Any]:
    """Loads ``prepare`` of ``data_prep/<name>.py``, or of the package ``data_prep/<name>/``.

    If the recipe's folder has a ``prep.py``, this folder takes the place of ``data_prep``. The
    scripts belong to a checkout, not to the installed package, so they are loaded by path. The name
    comes from the recipe's YAML or the command line, never from a checkpoint.

    Args:
        recipe: The recipe's folder.
        name: Name of the script.

    Raises:
        ConfigError: If there is no such script.
    """
    recipe = recipe.resolve()
    scripts = recipe if (recipe / "prep.py").is_file() else recipe.parents[1] / "data_prep"
    files = {p.stem: p for p in scripts.glob("*.py")} | {
        p.parent.name: p for p in scripts.glob("*/__init__.py")
    }
    if name not in files:
        raise ConfigError(
            f"prep={name}: there is no such script in {scripts}; it has {sorted(files)}"
        )
    package = [str(files[name].parent)] if files[name].name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(
        f"data_prep_{name}", files[name], submodule_search_locations=package
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for relative imports, and dataclasses with late annotations
    spec.loader.exec_module(module)
    find: Callable[..., Any] = module.prepare
    return find
