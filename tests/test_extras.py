"""The extras install what is needed, and the versions that files pin are those of the lock."""

import importlib.metadata as metadata
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text("utf-8")
SAVE = """
import torch
from spaudio.filters import insert_filters, load_filters

layer = torch.nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
handle = insert_filters(model, "layers", "depthwise")
handle.save_pretrained("filters")
handle.remove()
load_filters(model, "filters")

import inspect
import spaudio
from spaudio import *

names = dict(inspect.getmembers(spaudio))  # as `help` does
assert names["filters"].insert_filters is insert_filters and "load" not in names
"""


def locked(name: str) -> set[str]:
    """The versions of a package in the lock; it has several if they depend on Python's."""
    return set(re.findall(rf"^{re.escape(canonicalize_name(name))}==(\S+)", LOCK, re.MULTILINE))


def with_dependencies(texts: list[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that requirements need, directly or indirectly."""
    found: dict[str, metadata.Distribution] = {}
    left = [Requirement(text) for text in texts]
    while left:
        need = left.pop()
        name = canonicalize_name(need.name)
        if name in found:
            continue
        found[name] = metadata.distribution(name)
        extras = need.extras or {""}
        for inner in map(Requirement, found[name].requires or []):
            if not inner.marker or any(inner.marker.evaluate({"extra": e}) for e in extras):
                left.append(inner)
    return found


def test_the_extra_hub_saves_and_loads_filters(tmp_path: Path) -> None:
    """In an environment with nothing but torch, this extra and what they require.

    The rest of the package says nothing there of what it lacks until it is used.
    """
    pytest.importorskip("huggingface_hub")
    site = tmp_path / "site"
    site.mkdir()
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["hub"]]
    for distribution in with_dependencies(needed).values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
    (site / "spaudio").symlink_to(ROOT / "spaudio")
    done = subprocess.run(
        [sys.executable, "-S", "-c", SAVE],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONNOUSERSITE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_lock_has_what_the_project_requires() -> None:
    for text in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        need = Requirement(text)
        if need.name != PROJECT["name"]:
            versions = locked(need.name)
            assert versions, f"{text}: run make lock"
            assert all(need.specifier.contains(version) for version in versions), text


def test_other_files_pin_the_versions_of_the_lock() -> None:
    """So that one linter checks everywhere, and benchmarks compare with the same torch."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    [linter] = re.findall(r"ruff-pre-commit\n +rev: v(\S+)", hooks)
    assert {linter} == locked("ruff")
    peers = sorted((ROOT / "spaudio" / "bench" / "peers").glob("*.txt"))
    assert len(peers) == 3
    for file in peers:
        for name, version in re.findall(r"^([\w-]+)==(\S+)$", file.read_text("utf-8"), re.M):
            assert {version} == locked(name), file.name
