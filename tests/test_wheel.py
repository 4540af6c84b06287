"""The wheel in an empty environment, built with and without a compiler: no clone is needed."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests import ROOT
from tests.fixtures.own_sounds import make_own_sounds

pytest.importorskip("setuptools")
# What is built does not matter here, only whether it is; without optimization it takes 2 s, not 10.
COMPILER = """#!/bin/sh
exec c++ "$@" -O0
"""
BUILD = "from setuptools import build_meta; build_meta.build_{0}('{0}')"


def build(kind: str, here: Path, compiler: str = "/bin/false") -> Path:
    """Builds a source distribution or a wheel from a folder, and returns it."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind)],
        cwd=here, capture_output=True, text=True,
        env={**os.environ, "CC": compiler, "CXX": compiler},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [built] = (here / kind).iterdir()
    return built


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("spaudio", "recipes", "data_prep"):
        ignored = shutil.ignore_patterns("*.flac", "__pycache__", "*.so")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "tests").mkdir()
    shutil.copy(__file__, folder / "tests")
    for name in ("setup.py", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    shutil.unpack_archive(build("sdist", folder), folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    assert {path.name for path in unpacked.iterdir() if path.is_dir()} == {
        "spaudio", "recipes", "data_prep", "spaudio.egg-info",
    }  # fmt: skip
    return unpacked


def install(wheel: Path, folder: Path) -> Path:
    """Makes an environment with the wheel alone; it sees the dependencies of this one.

    Returns:
        Its folder of programs.
    """
    venv.create(folder)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    # Paths in a .pth file are added after those of the environment, without their own .pth files,
    # of which one names this checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    programs = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps",
               "--python", str(programs / "python"), str(wheel)]  # fmt: skip
    subprocess.run(command, check=True)
    return programs


def in_place(programs: Path, folder: Path, *command: str) -> str:
    """Runs a program of an environment in a folder, and returns what it prints."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(programs / command[0]), *command[1:]],
        cwd=folder, capture_output=True, text=True, env={**clean, "COLUMNS": "300"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.name != "posix", reason="the compilers are shell scripts")
def test_without_a_compiler_a_folder_of_sounds_is_trained_on(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("uv")
    wheel = build("wheel", shutil.copytree(source, tmp_path / "source"))
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {
        f"spaudio/{path.relative_to(ROOT).as_posix()}"
        for room in ("recipes/*/config.yaml", "recipes/*/run.py", "data_prep/*.py")
        for path in ROOT.glob(room)
    }
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "spaudio").rglob("*")
        if path.is_file() and path.suffix in (".py", ".yaml", ".html", ".css", ".js", ".typed")
    }
    assert not {name for name in shipped | package if name not in names}
    assert not [name for name in names if name.endswith((".flac", ".so"))]
    programs = install(wheel, tmp_path / "environment")
    here = tmp_path / "here"
    here.mkdir()
    where = "import spaudio; print(spaudio.__file__)"
    assert str(tmp_path / "environment") in in_place(programs, here, "python", "-c", where)
    make_own_sounds(here / "sounds", clips=2)
    small = ["preset=debug", "trainer.epochs=1", "page=false"]
    in_place(programs, here, "spaudio", "train", "sounds", *small, "run_id=x")
    run = here / "runs" / "folder" / "x"
    assert {"report.json", "report.md"} <= {path.name for path in run.iterdir()}
    assert (here / "data" / "folder").is_dir()
    assert "prepared: 30 clips" in in_place(programs, here, "spaudio", "datasets")


@pytest.mark.skipif(os.name != "posix", reason="the compilers are shell scripts")
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
def test_with_a_compiler_the_wheel_holds_the_kernel(source: Path, tmp_path: Path) -> None:
    """Installed, it passes the test of the wheels of a release: a filter uses the kernel."""
    pytest.importorskip("uv")
    compiler = tmp_path / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    wheel = build("wheel", shutil.copytree(source, tmp_path / "source"), str(compiler))
    [name] = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    assert name.startswith("spaudio/filters/fused/_native")
    programs = install(wheel, tmp_path / "environment")
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    in_place(programs, tmp_path, *shlex.split(tools["cibuildwheel"]["test-command"]))
    # What is deleted, or cannot be compiled any more, is in no later wheel.
    shutil.rmtree(tmp_path / "source" / "recipes" / "notes")
    later = zipfile.ZipFile(build("wheel", tmp_path / "source")).namelist()
    assert not [name for name in later if name.endswith(".so") or "recipes/notes" in name]
