"""Adds the recipes and their scripts to the wheel; all else is in pyproject.toml.

In a checkout they stand beside the package, for people to read and edit; an installed package finds
them in itself (`spaudio/experiment/recipes.py`).

A build leaves out what an earlier one has left: files that are deleted since, and, if it cannot be
compiled now, the native kernel.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

SHIPPED = {"recipes": ("*.py", "*.yaml", "README.md"), "data_prep": ("*.py",)}


class BuildWithRecipes(build_py):
    """Copies them into the built package, unless it is installed in place."""

    def run(self):
        """Builds, then copies."""
        if self.editable_mode:
            super().run()
            return
        if Path(self.build_lib).resolve() != Path.cwd():  # where the sources are
            shutil.rmtree(Path(self.build_lib, "spaudio"), ignore_errors=True)
        super().run()
        for folder, patterns in SHIPPED.items():
            for pattern in patterns:
                for path in Path(folder).rglob(pattern):
                    target = Path(self.build_lib, "spaudio", path)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)


class BuildKernel(build_ext):
    """Removes an earlier kernel first, which would go on being used if it cannot be compiled."""

    def run(self):
        """Removes, then compiles."""
        folders = ["spaudio"] if self.editable_mode or self.inplace else []
        for folder in (*folders, Path(self.build_lib, "spaudio")):
            for earlier in Path(folder, "filters", "fused").glob("_native*"):
                earlier.unlink()
        super().run()


setup(cmdclass={"build_py": BuildWithRecipes, "build_ext": BuildKernel})
