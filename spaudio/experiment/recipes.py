"""Finds the recipes: beside the package in a checkout, inside it if it is installed."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def recipes_folder() -> Path:
    """Returns the folder of recipes; ``data_prep``, with their scripts, is beside it."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"
