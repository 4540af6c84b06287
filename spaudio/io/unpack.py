"""Unpacks untrusted zip and tar archives.

This is implemented here because `shutil.unpack_archive` has no limits: bombs, links and paths that
leave the folder must be refused before anything is written.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, NamedTuple

from spaudio.errors import DataError
from spaudio.io.atomic import new_folder
from spaudio.io.full_disk import is_full
from spaudio.io.paths import refuse_empty_source, user_path  # earlier prep.py files find it here
from spaudio.io.progress import progress_bar
from spaudio.io.state import FileState

MAX_BYTES = 50 << 30  # that the members of an archive declare; no more is read
MAX_FILES = 1_000_000
#: Uncompressed over compressed size; audio reaches 2 to 10, a bomb 1,000. Archives that unpack to
#: less than `MIN_BOMB` bytes are not checked: a small archive of silence is harmless.
MAX_RATIO = 200
MIN_BOMB = 64 << 20
_CHUNK = 1 << 20
_MAX_HEADER = 1 << 24  # bytes of one header of a tar archive, which tarfile reads at once
#: What reading a damaged archive raises; the last three come from damaged headers.
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, ValueError, struct.error),
)
_ZIP_STARTS = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")  # with files, empty, one of several parts
_COMPRESSIONS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def open_source(source: str | os.PathLike[str], work: Path) -> Path:
    """Returns the folder that ``source=`` names; an archive is unpacked into ``work``.

    Raises:
        ConfigError: If ``source`` is empty.
        DataError: If ``source`` does not exist, or for the reasons of `unpack`.
    """
    refuse_empty_source(source)
    path = user_path(source).resolve()
    if path.is_dir():
        return path
    if not path.is_file():
        raise DataError(f"source={os.fspath(source)!r}: no such file or folder; check the path")
    identity = f"{path}\n{FileState.of(path.stat())}"
    key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
    return unpack(path, work / f"unpacked-{key}")


def unpack(
    archive: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    open_zip: Callable[[Path], zipfile.ZipFile] = zipfile.ZipFile,
) -> Path:
    """Unpacks a zip or tar archive into ``folder``, which appears whole or not at all.

    A ``folder`` that exists is returned as it is. Only one process at a time may unpack into it.
    `MAX_BYTES`, `MAX_FILES` and `MAX_RATIO` limit what an archive may hold.

    Args:
        archive: Zip, or tar, plain or compressed with gzip, bzip2 or xz.
        folder: Where its contents go.
        open_zip: Opens a zip archive; needed if the archive consists of several files.

    Returns:
        ``folder``.

    Raises:
        DataError: If the archive is missing, damaged, encrypted or of another kind; if a member is
            a link or device, or its path is absolute, leaves the folder or occurs twice; or if a
            limit is reached.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.is_dir():
        return folder
    with ExitStack() as stack:
        staging = stack.enter_context(new_folder(folder, locked=True))
        try:
            size = archive.stat().st_size
            limit = min(MAX_BYTES, max(MIN_BOMB, int(MAX_RATIO * size)))
            _extract(archive, staging, limit, open_zip)
            stack.close()  # renames the folder; an error in this is named, too
        except DataError as error:
            raise DataError(f"{archive}: {error}") from error
        except DAMAGE as error:
            if is_full(error):
                raise
            raise DataError(
                f"{archive}: cannot be unpacked ({error}); if it is damaged, remove it and fetch "
                "it again; or unpack it yourself and give the folder as source="
            ) from error
    return folder


class _Member(NamedTuple):
    name: str
    kind: str  # "file", "folder", "link" or "device"
    size: int
    open: Callable[[], IO[bytes] | None]


def _extract(
    archive: Path,
    staging: Path,
    limit: int,
    open_zip: Callable[[Path], zipfile.ZipFile],
) -> None:
    with ExitStack() as stack:
        found: Iterator[_Member]
        if _is_zip(archive):
            opened = stack.enter_context(open_zip(archive))
            found = (_zip_member(opened, info) for info in opened.infolist())
        else:
            content = stack.enter_context(_decompressed(archive))
            tar = stack.enter_context(_open_tar(content))
            found = _tar_members(tar, content, limit)
        members: list[_Member] = []
        names = set[PurePosixPath]()
        declared = 0
        # Checked before the next member: reaching the next tar header decompresses all before it.
        for member in found:
            members.append(member)
            declared += member.size
            _check(member)
            path = PurePosixPath(member.name)
            if member.kind == "file" and path in names:
                raise DataError(
                    f"{member.name!r} occurs twice; pack the archive again, or unpack it yourself "
                    "and give the folder as source="
                )
            names.add(path)
            if len(members) > MAX_FILES:
                raise DataError(
                    f"more than {MAX_FILES} members; if you trust it, unpack it yourself and give "
                    "the folder as source="
                )
            if declared > limit:
                raise DataError(
                    f"unpacks to {declared} bytes or more, above the limit of {limit}; if you "
                    "trust it, unpack it yourself and give the folder as source="
                )
        _write(archive.name, staging, members, declared)


def _is_zip(archive: Path) -> bool:
    """Whether an archive is a zip, and not a tar whose last file is a zip."""
    try:
        if not zipfile.is_zipfile(archive):  # which looks at the end
            return False
    except zipfile.BadZipFile:  # the last of several pieces that are above 4 GiB in all
        return True
    with archive.open("rb") as file:
        if file.read(4) in _ZIP_STARTS:
            return True
    try:
        with _decompressed(archive) as stream, _open_tar(stream):
            return False
    except DataError:
        return True  # with something before it, such as a program that unpacks it


def _zip_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    if info.flag_bits & 1:
        raise DataError(
            f"{info.filename!r} is encrypted; unpack it yourself and give the folder as source="
        )
    if not info.filename:
        raise DataError("a member has no name; not unpacked")
    name = info.filename
    if not info.flag_bits & 0x800:  # macOS writes UTF-8 without saying so
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    mode = info.external_attr >> 16
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    kind = "folder" if info.is_dir() else kinds.get(stat.S_IFMT(mode), "device")
    return _Member(name, kind, info.file_size, partial(opened.open, info))


def _tar_members(tar: tarfile.TarFile, content: IO[bytes], limit: int) -> Iterator[_Member]:
    """Yields the members of a tar archive, then checks its end, which tarfile does not."""
    for entry in tar:
        yield _tar_member(tar, entry)
    content.seek(tar.offset)
    if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(
            "its end-of-archive marker is missing, so it is truncated or damaged; fetch it again"
        )
    rest = 0
    while chunk := content.read(_CHUNK):  # a checksum of compressed data comes last
        rest += len(chunk)
        if rest > limit:
            raise DataError(f"more than {limit} bytes follow its end; not unpacked")


def _tar_member(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> _Member:
    if entry.isdir():
        kind = "folder"
    elif entry.isreg():
        kind = "file"
    else:
        kind = "link" if entry.issym() or entry.islnk() else "device"
    return _Member(entry.name, kind, entry.size, partial(tar.extractfile, entry))


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        magic = file.read(6)
    opener = next((o for m, o in _COMPRESSIONS.items() if magic.startswith(m)), open)
    stream: IO[bytes] = opener(archive, "rb")
    return stream


class _Bounded:
    """A tar archive's bytes, read in portions of bounded size: a header can declare any length."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)


def _open_tar(stream: IO[bytes]) -> tarfile.TarFile:
    bounded: Any = _Bounded(stream)
    start = b""
    try:
        start = stream.read(4)
        stream.seek(0)
        return tarfile.open(fileobj=bounded, mode="r:")
    except DAMAGE as error:
        if start == b"PK\x03\x04":
            compressed = not isinstance(stream, io.BufferedReader)
            raise DataError(
                "a compressed zip; decompress it first"
                if compressed
                else "a zip without its end: it is truncated, or other data follow; fetch it again"
            ) from error
        raise DataError(
            f"neither a zip nor a tar archive ({error}); give one, or a folder"
        ) from error


def _check(member: _Member) -> None:
    if member.kind not in ("file", "folder"):
        raise DataError(
            f"{member.name!r} is a {member.kind}, which is not unpacked; leave it out of the "
            "archive, or unpack it yourself and give the folder as source="
        )
    path = PureWindowsPath(member.name)  # knows drives and both separators
    if path.drive or path.root or ".." in path.parts or "\0" in member.name:
        raise DataError(f"{member.name!r} leaves the folder; not unpacked")
    if "\\" in member.name:  # the separator of some programs on Windows
        raise DataError(
            f"{member.name!r} contains a backslash, which does not separate folders in an archive; "
            "pack it with slashes, or unpack it yourself and give the folder as source="
        )


def _write(name: str, staging: Path, members: list[_Member], total: int) -> None:
    with progress_bar(f"Unpacking {name}", total, in_bytes=True) as advance:
        for member in members:
            target = staging / PurePosixPath(member.name)
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = member.open()
            assert stream is not None  # a regular file has one
            with stream, target.open("xb") as file:
                while chunk := stream.read(_CHUNK):
                    file.write(chunk)
                    advance(len(chunk))
