"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s, several of 200 classes each, 44.1 kHz.

Source: https://zenodo.org/records/4060432 (Fonseca et al., arXiv 2010.00475). The set is CC BY 4.0;
each clip has its own licence (CC0, CC BY, CC BY-NC or CC Sampling+).

    python data_prep/fsd50k.py [source=FOLDER]

The audio comes as split zips (``x.z01``, ..., ``x.zip``), which Python's `zipfile` cannot read. The
pieces, one after the other, hold every member as it is; only the directory at the end counts its
offsets from the start of each piece. `SplitZip` reads the pieces in place, followed by a directory
with offsets from the start of all (zip64, APPNOTE 4.5.3).
"""

import io
import struct
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO

from typing_extensions import override

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import Part, link_parts, open_parts, read_table
from spaudio.errors import DataError

HOST = "https://zenodo.org/records/4060432/files"
# MD5 as Zenodo publishes them.
FILES = {
    "dev_audio": {
        "z01": "faa7cf4cc076fc34a44a479a5ed862a3",
        "z02": "8f9b66153e68571164fb1315d00bc7bc",
        "z03": "1196ef47d267a993d30fa98af54b7159",
        "z04": "d088ac4e11ba53daf9f7574c11cccac9",
        "z05": "81356521aa159accd3c35de22da28c7f",
        "zip": "c480d119b8f7a7e32fdb58f3ea4d6c5a",
    },
    "eval_audio": {
        "z01": "3090670eaeecc013ca1ff84fe4442aeb",
        "zip": "6fa47636c3a3ad5c7dfeba99f2637982",
    },
    "ground_truth": {"zip": "ca27382c195e37d2269c4c866dd73485"},
}
SPLITS = {"train": "train", "val": "valid"}

_END = struct.Struct("<4s4H2LH")  # signature, disk, its own disk, entries here, all, size, offset
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_MOST = 0xFFFF_FFFF


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists the clips, split as published; each clip is its own group.

    Args:
        work: Folder to download and unpack into.
        source: Folder that holds ``FSD50K.{dev_audio,eval_audio,ground_truth}`` or their archives;
            None downloads.

    Raises:
        DataError: If parts are missing, a table is damaged, or a download has another checksum.
    """
    parts = [
        Part(
            name,
            {f"{HOST}/FSD50K.{name}.{end}": md5 for end, md5 in files.items()},
            folder=f"FSD50K.{name}",
            open_zip=open_split_zip,
        )
        for name, files in FILES.items()
    ]
    folders = open_parts(parts, work, source)
    tables = folders["ground_truth"]
    vocabulary = read_table(tables / "vocabulary.csv", ("index", "label", "mid"))
    labels = [row["label"] for row in vocabulary]
    clips = []
    try:
        for table, part in (("dev.csv", "dev_audio"), ("eval.csv", "eval_audio")):
            for row in read_table(tables / table):
                split = SPLITS[row["split"]] if part == "dev_audio" else "test"
                path = f"{part}/{row['fname']}.wav"
                clips.append(SourceClip(path, row["labels"], split, row["fname"]))
    except KeyError as error:
        raise DataError(
            f"{tables}: a table is damaged ({error!r}); fetch {HOST}/FSD50K.ground_truth.zip again"
        ) from error
    return SourceClips(link_parts(folders, work), clips, labels, multi_label=True)


def open_split_zip(archive: Path) -> IO[bytes]:
    """Opens a zip, joined with its ``.z01``, ``.z02``, ... if they are in the same folder.

    Raises:
        DataError: If the directory is damaged or a piece is missing.
    """
    found: list[Path] = []
    while (piece := archive.with_suffix(f".z{len(found) + 1:02d}")).is_file():
        found.append(piece)
    return io.BufferedReader(SplitZip([*found, archive])) if found else archive.open("rb")


class SplitZip(io.RawIOBase):
    """A read-only file that joins the pieces of a split zip, with one directory for all of them.

    Args:
        paths: The pieces in order, the one with the directory last.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        starts = [0, *accumulate(path.stat().st_size for path in paths)]
        start, directory = _directory(paths, starts)
        self._streams: list[IO[bytes]] = [path.open("rb") for path in paths]
        self._streams.append(io.BytesIO(directory))
        # The last piece ends where its own directory began.
        self._ends = [*starts[1:-1], start, start + len(directory)]
        self._starts = [*starts[:-1], start]
        self._position = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ends[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    @override
    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        for stream, start, end in zip(self._streams, self._starts, self._ends, strict=True):
            if start <= self._position < end:
                stream.seek(self._position - start)
                data = stream.read(min(len(buffer), end - self._position))
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        return 0

    @override
    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        super().close()


def _directory(paths: Sequence[Path], starts: Sequence[int]) -> tuple[int, bytes]:
    """Returns where the directory starts, counted over all pieces, and its replacement."""
    with paths[-1].open("rb") as file:
        # The end record is followed by a comment of at most 64 KiB.
        file.seek(max(0, starts[-1] - starts[-2] - (1 << 16) - _END.size))
        tail = file.read()
        place = tail.rfind(b"PK\5\6")
        if place < 0 or place + _END.size > len(tail):
            raise DataError("no zip directory at its end; fetch it again")
        _, disk, first, _, entries, size, offset, _ = _END.unpack_from(tail, place)
        if disk + 1 != len(paths) or first != disk or _MOST in (size, offset):
            raise DataError(
                f"{disk + 1} pieces make up this zip, {len(paths)} are here; fetch the others, or "
                "unpack it yourself and give the folder as source="
            )
        file.seek(offset)
        old = file.read(size)
    begin = starts[-2] + offset
    new = b"".join(_moved(old, starts))
    end64 = _END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, len(new), begin)
    locator = _LOCATOR.pack(b"PK\6\7", 0, begin + len(new), 1)
    end = _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _MOST, _MOST, 0)
    return begin, new + end64 + locator + end


def _moved(directory: bytes, starts: Sequence[int]) -> list[bytes]:
    """Returns a directory's entries with offsets over all pieces, as zip64 fields."""
    entries, place = [], 0
    while place < len(directory):
        fields = list(_ENTRY.unpack_from(directory, place))
        name, extra, comment = fields[10:13]
        end = place + _ENTRY.size + name + extra + comment
        disk, offset = fields[13], fields[16]
        if fields[0] != b"PK\1\2" or end > len(directory) or disk >= len(starts) - 1 or (
            _MOST in (*fields[8:10], offset)
        ):  # fmt: skip
            raise DataError("its directory cannot be read; unpack the zip yourself")
        wide = struct.pack("<HHQ", 1, 8, starts[disk] + offset)
        fields[11], fields[13], fields[16] = extra + len(wide), 0, _MOST
        body = directory[place + _ENTRY.size : end]
        entries.append(_ENTRY.pack(*fields) + body[:name] + wide + body[name:])
        place = end
    return entries


if __name__ == "__main__":
    main("fsd50k", prepare)
