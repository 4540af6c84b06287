"""Adds the recipes and their scripts to the wheel; all else is in pyproject.toml.

In a checkout they stand beside the package, for people to read and edit; an installed package finds
them in itself (`spaudio/experiment/recipes.py`).
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = {"recipes": ("*.py", "*.yaml", "README.md"), "data_prep": ("*.py",)}


class BuildWithRecipes(build_py):
    """Copies them into the built package, unless it is installed in place."""

    def run(self):
        """Builds, then copies."""
        super().run()
        if self.editable_mode:
            return
        for folder, patterns in SHIPPED.items():
            for pattern in patterns:
                for path in Path(folder).rglob(pattern):
                    target = Path(self.build_lib, "spaudio", path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithRecipes})
