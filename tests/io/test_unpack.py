import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from spaudio.errors import DataError
from spaudio.io.unpack import open_source, unpack

FILES = {"top/a.wav": b"a" * 1000, "top/deep/b.wav": b"b" * 500, "top/void.wav": b""}


def make(path: Path, files: dict[str, bytes] = FILES, mode: str = "") -> Path:
    """A zip, if its name says so, or a tar."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{mode}") as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(archive: Path, reason: str) -> None:
    """Unpacking fails for ``reason`` and leaves nothing, inside the folder or outside."""
    before = set(archive.parent.rglob("*"))
    with pytest.raises(DataError, match=reason):
        unpack(archive, archive.parent / "out")
    assert set(archive.parent.rglob("*")) == before


@pytest.mark.parametrize("mode", ["zip", "", "gz", "bz2", "xz"])
def test_unpacks_once(tmp_path: Path, mode: str) -> None:
    archive = make(tmp_path / ("a.zip" if mode == "zip" else "a"), mode=mode.replace("zip", ""))
    folder = unpack(archive, tmp_path / "out")
    assert contents(folder) == FILES
    archive.unlink()
    assert unpack(archive, folder) == folder
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    killed = (
        "import os, sys\n"
        "from spaudio.io import unpack\n"
        "unpack._write = lambda name, staging, *_: ((staging / 'half').touch(), os._exit(9))\n"
        "unpack.unpack(sys.argv[1], sys.argv[2])\n"
    )
    archive, folder = make(tmp_path / "a.tar"), tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", killed, archive, folder])
    assert done.returncode == 9
    assert len(list(tmp_path.glob(".out.*/half"))) == 1
    kept = tmp_path / ".out.other.12345678"  # of another folder
    kept.mkdir()
    unpack(archive, folder)
    assert {*tmp_path.iterdir()} == {archive, folder, kept}


def test_a_tar_that_ends_in_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = make(tmp_path / "inner.zip", {"inner.wav": os.urandom(1000)}).read_bytes()
    files = {"PK/a.wav": b"a", "inner.zip": inner}
    archive = make(tmp_path / "a.tar", files)
    assert contents(unpack(archive, tmp_path / "out")) == files


def test_a_zip_may_begin_with_a_program(tmp_path: Path) -> None:
    for number, start in enumerate((b"MZ" + os.urandom(600), b"#!/bin/sh\n", b"\x1f\x8bno gzip")):
        archive = make(tmp_path / "a.zip")
        archive.write_bytes(start + archive.read_bytes())
        assert contents(unpack(archive, tmp_path / f"{number}")) == FILES


UNSAFE = ["/etc/x.wav", "../x.wav", "top/../../x.wav", "..\\x.wav", "C:\\x.wav", "C:x.wav", "\\x"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, kind: str) -> None:
    for name in UNSAFE:
        archive = make(tmp_path / f"a.{kind}", {"top/a.wav": b"a", name: b"evil"})
        refused(archive, "leaves the folder")
    archive = make(tmp_path / f"a.{kind}", {"top\\a.wav": b"a"})
    refused(archive, r"'top.*a\.wav' contains a backslash, .*; pack it with slashes")


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    for kind, reason in (
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.FIFOTYPE, "is a device"),
        (tarfile.CHRTYPE, "is a device"),
    ):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("x")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        refused(tmp_path / "a.tar", reason)
    info = zipfile.ZipInfo("x")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", "is a link")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a.zip", {"zeros": bytes(70 << 20)})
    refused(tmp_path / "a.zip", "above the limit")
    make(tmp_path / "b.zip")
    monkeypatch.setattr("spaudio.io.unpack.MAX_BYTES", 1499)
    refused(tmp_path / "b.zip", "above the limit of 1499")
    monkeypatch.setattr("spaudio.io.unpack.MAX_BYTES", 1500)
    assert unpack(tmp_path / "b.zip", tmp_path / "out").is_dir()


class Zeros(io.RawIOBase):
    """As many zeros as are asked for."""

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


@pytest.mark.parametrize("first", [True, False])
def test_a_header_as_large_as_memory_is_not_read(tmp_path: Path, first: bool) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        if not first:
            archive.addfile(tarfile.TarInfo("x"))
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 100 << 20
        archive.addfile(entry, Zeros())
    tracemalloc.start()
    try:
        refused(tmp_path / "a.tar.gz", "a header of 104857600 bytes")
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_a_tar_is_not_read_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb is told by its first header, before the rest is decompressed."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as archive:
        for name in "abc":
            entry = tarfile.TarInfo(name)
            entry.size = 70 << 20
            archive.addfile(entry, Zeros())
    places: list[int] = []
    seek = gzip.GzipFile.seek

    def watched(file: gzip.GzipFile, offset: int, whence: int = 0) -> int:
        places.append(offset)
        return seek(file, offset, whence)

    monkeypatch.setattr(gzip.GzipFile, "seek", watched)
    monkeypatch.setattr("spaudio.io.unpack.MAX_BYTES", 1 << 20)
    refused(tmp_path / "a.tar.gz", "above the limit of 1048576")
    assert max(places, default=0) < 1 << 20


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_damaged_archives_leave_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make(tmp_path / f"a.{kind}")
    with monkeypatch.context() as patch:
        patch.setattr("spaudio.io.unpack.MAX_FILES", 2)
        refused(archive, "more than 2 members")
    make(archive, {"top": b"file", "top/a.wav": b"a"})
    refused(archive, "cannot be unpacked")
    make(archive, {f"{i}.wav": os.urandom(5000) for i in range(5)})
    content = bytearray(archive.read_bytes())
    if kind == "zip":
        content[12_000] ^= 0xFF
    else:
        del content[15_000:]
    archive.write_bytes(content)
    refused(archive, "cannot be unpacked")
    if kind == "zip":  # as an interrupted download leaves it
        archive.write_bytes(content[:-50])
        refused(
            archive, "a zip without its end: it is truncated, or other data follow; fetch it again"
        )


def test_a_tar_that_ends_early_is_refused(tmp_path: Path) -> None:
    """tarfile ends silently at a header that is missing or damaged, and checks no checksum."""
    archive = make(tmp_path / "a.tar", {f"{i}.wav": os.urandom(5000) for i in range(5)})
    whole = archive.read_bytes()
    with tarfile.open(archive) as opened:
        offset = opened.getmembers()[2].offset
    packed = gzip.compress(whole)
    flipped = bytearray(whole)
    flipped[offset + 5] ^= 1
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 1
    for content, said in (
        (whole[:offset], "its end-of-archive marker is missing"),
        (whole[: offset + 100], "its end-of-archive marker is missing"),
        (flipped, "its end-of-archive marker is missing"),
        (damaged, "cannot be unpacked|its end-of-archive marker is missing"),
        (packed[:-4], "cannot be unpacked"),
    ):
        archive.write_bytes(content)
        refused(archive, said)


def test_names_of_a_zip_may_be_in_utf_8_without_saying_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("épinette/0.wav", b"x")
    content = (tmp_path / "a.zip").read_bytes()
    unsaid = content.replace(b"PK\3\4\x14\0\0\x08", b"PK\3\4\x14\0\0\0")
    unsaid = unsaid.replace(b"PK\1\2\x14\3\x14\0\0\x08", b"PK\1\2\x14\3\x14\0\0\0")
    assert unsaid.count(b"\x08") < content.count(b"\x08")
    (tmp_path / "a.zip").write_bytes(unsaid)
    folder = unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [path.name for path in folder.iterdir()] == ["épinette"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"x.wav", b"\0.wav", "a member has no name"),  # names end at a NUL
        ((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"), "cannot be unpacked"),
        (b"PK\1\2\x14\3\x14\0\0", b"PK\1\2\x14\3\x14\0\1", "encrypted"),
    ],
)
def test_a_zip_that_lies_is_refused(tmp_path: Path, old: bytes, new: bytes, reason: str) -> None:
    archive = make(tmp_path / "a.zip", {"x.wav": bytes(1000)})
    content = archive.read_bytes()
    assert old in content
    archive.write_bytes(content.replace(old, new))
    refused(archive, reason)


def test_a_path_that_comes_twice_and_other_files_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("x"))
    refused(tmp_path / "a.tar", "'x' occurs twice")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for name in ("top/x", "top/y", "top/./x"):
            zipped.writestr(name, b"x")
    refused(tmp_path / "a.zip", r"'top/\./x' occurs twice; pack the archive again")
    (tmp_path / "a.rar").write_bytes(b"Rar!" * 100)
    refused(tmp_path / "a.rar", "neither a zip nor a tar")


def test_source_is_a_folder_or_an_archive(tmp_path: Path) -> None:
    assert open_source(tmp_path, tmp_path / "work") == tmp_path
    archive = make(tmp_path / "a.zip")
    folder = open_source(archive, tmp_path / "work")
    assert contents(folder) == FILES
    assert open_source(archive, tmp_path / "work") == folder
    make(archive, {"other.wav": b"x"})
    changed = open_source(archive, tmp_path / "work")
    assert contents(changed) == {"other.wav": b"x"}
    with pytest.raises(DataError, match=r"source='nowhere\.zip': no such file or folder"):
        open_source("nowhere.zip", tmp_path / "work")
