"""Runs a recipe's own ``run.py`` as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_recipe(tmp_path: Path) -> Run:
    """Runs ``recipes/<name>/run.py`` in an empty folder of its own; the caller checks the code."""

    def run(name: str, *overrides: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "recipes" / name / "run.py"), *overrides]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return run
