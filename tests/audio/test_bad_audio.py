"""No bad file hangs or crashes the process, or becomes a training example: each is named."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.fixtures.bad_audio import says
from tests.fixtures.tiny_audio import make_class_folders

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no FIFO, no links there")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of bad files, and what was said of each in a process of its own."""
    folder = tmp_path_factory.mktemp("bad")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.bad_audio", str(folder)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "source" / "hum", json.loads(done.stdout)


def test_every_bad_file_is_refused_with_its_name_and_reason(
    said: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = said
    assert len(found["wanted"]) == 99
    for name, message in found["decoded"].items():
        path = f"{folder / name}: "
        assert message.startswith(path)
        assert says(message.removeprefix(path), found["wanted"][name]), message


def test_none_becomes_a_training_example(said: tuple[Path, dict[str, Any]]) -> None:
    folder, found = said
    assert set(found["skipped"]) == {f"hum/{name}" for name in found["wanted"]}
    # What decoding says is what the preparation says.
    for name, message in found["decoded"].items():
        assert message == f"{folder / name}: {found['skipped'][f'hum/{name}']}"
    assert len(found["clips"]) == 60


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell the user")
def test_an_unreadable_file_is_named_whoever_runs_it(tmp_path: Path) -> None:
    source = make_class_folders(tmp_path / "source")
    clip = source / "hum" / "g0_0.wav"
    clip.chmod(0)
    # Root may read everything, so it becomes nobody; a relative path needs no rights above.
    code = (
        "import os, sys; from pathlib import Path; from spaudio.audio import decode\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: decode(Path('g0_0.wav'))\n"
        "except Exception as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    clip.parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=clip.parent, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stderr.startswith("AudioError: g0_0.wav: cannot be read (permission denied)")
