from __future__ import annotations

import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from spaudio.audio.split_zip import SplitZip, pieces
from spaudio.errors import DataError
from spaudio.io.unpack import unpack

pytestmark = pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP is not installed")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """What Info-ZIP cuts into pieces of 64 KiB: noise, which does not shrink, and text."""
    source = tmp_path / "source" / "set"
    source.mkdir(parents=True)
    numbers = random.Random(0)
    for i in range(12):
        (source / f"{i}.wav").write_bytes(numbers.randbytes(numbers.randrange(1, 40_000)))
    (source / "about.txt").write_text("hello\n" * 1000)
    target = tmp_path / "set.zip"
    command = ["zip", "-q", "-r", "-s", "64k", str(target), "set"]
    subprocess.run(command, cwd=source.parent, check=True)
    return target


def test_a_split_zip_unpacks_to_what_was_packed(archive: Path, tmp_path: Path) -> None:
    assert len(pieces(archive)) >= 4
    folder = unpack(archive, tmp_path / "unpacked", progress=False)
    expected = sorted((tmp_path / "source").rglob("*.*"))
    found = sorted(folder.rglob("*.*"))
    assert [p.name for p in found] == [p.name for p in expected]
    assert [p.read_bytes() for p in found] == [p.read_bytes() for p in expected]


def test_it_reads_as_one_zip_with_a_checksum_for_each_member(archive: Path) -> None:
    with SplitZip(pieces(archive)) as file, zipfile.ZipFile(file) as opened:  # type: ignore[call-overload]
        assert opened.testzip() is None
        assert len(opened.infolist()) == 14


def test_a_missing_piece_is_named(archive: Path, tmp_path: Path) -> None:
    pieces(archive)[-2].unlink()
    with pytest.raises(DataError, match=r"pieces make up this zip, \d are here"):
        unpack(archive, tmp_path / "unpacked", progress=False)
    assert not (tmp_path / "unpacked").exists()
