"""Tests of the package, in a folder per sub-package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "recipes"
