"""Provenance of a result: git commit, library versions, machine."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from spaudio.version import __version__

LIBRARIES = ("torch", "torchaudio", "accelerate", "torchmetrics", "numpy", "scikit-learn")


def provenance() -> dict[str, Any]:
    """Returns the git commit (None outside a checkout), versions and machine, for JSON."""
    versions: dict[str, str | None] = {"spaudio": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = None
    return {
        "git_commit": _commit(),
        "versions": versions,
        "machine": {
            "processor": processor_name(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def join_commits(commits: Iterable[str | None]) -> str | None:
    """Returns the commits of a result that was made in several parts, each once."""
    parts = [part for one in commits if one for part in one.split(", ")]
    return ", ".join(dict.fromkeys(parts)) or None


def processor_name() -> str:
    """Returns the processor's model, or its architecture if the system does not name the model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or a kernel that names no model
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Returns the commit, with ``-dirty`` if tracked files have uncommitted changes."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # else it is installed in another checkout
        return git("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None
