"""FSD50K: 51,197 Freesound clips of 0.3 to 30 s, 200 classes, several per clip, 44.1 kHz.

Source: https://zenodo.org/records/4060432 (Fonseca et al., arXiv 2010.00475). The dataset is CC BY
4.0; each clip has its own licence (CC0, CC BY, CC BY-NC or CC Sampling+).

    python data_prep/fsd50k.py [source=FOLDER]

The audio comes as split zips (``x.z01``, ..., ``x.zip``), which Python's `zipfile` cannot read by
itself: the directory gives each offset from the start of a piece. `SplitZip` corrects the offsets.
"""

import io
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from typing_extensions import override

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.command import main
from spaudio.audio.source import Archive, link_parts, open_parts, read_table
from spaudio.errors import DataError

HOST = "https://zenodo.org/records/4060432/files"
# MD5 checksums as published by Zenodo.
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


def prepare(work: Path, *, source: str | None = None) -> SourceClips:
    """Lists the clips, split as published; each clip is its own group.

    Args:
        work: Folder to download and unpack into.
        source: Folder that holds ``FSD50K.{dev_audio,eval_audio,ground_truth}`` or their archives;
            None downloads.

    Raises:
        DataError: If parts are missing, a table is damaged, or a download has the wrong checksum.
    """
    parts = [
        Archive(
            name,
            {f"{HOST}/FSD50K.{name}.{end}": md5 for end, md5 in files.items()},
            folder=f"FSD50K.{name}",
            open_zip=SplitZip,
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


class SplitZip(zipfile.ZipFile):
    """A zip that may be split into pieces (``.z01``, ``.z02``, ...) in the same folder.

    Args:
        archive: The last piece, ``.zip``.

    Raises:
        DataError: If a piece is missing or the directory is damaged.
    """

    def __init__(self, archive: Path) -> None:
        paths = [archive]
        while (piece := archive.with_suffix(f".z{len(paths):02d}")).is_file():
            paths.insert(-1, piece)
        self._pieces = _Joined(paths)
        with archive.open("rb") as file:
            # The end record of 22 bytes is followed by a comment of at most 64 KiB. Above 4 GiB in
            # all, a Zip64 locator of 20 bytes precedes it.
            begin = max(0, archive.stat().st_size - 20 - 22 - (1 << 16))
            file.seek(begin)
            tail = file.read()
        end = tail.rfind(b"PK\5\6")
        last, first = struct.unpack_from("<2H", tail, end + 4)
        locator = end - 20
        if tail[locator : locator + 4] == b"PK\6\7":
            # zipfile refuses a locator that names several disks: it is read as if there were one.
            there = self._pieces.starts[len(paths) - 1] + begin + locator
            one = struct.pack("<LQL", 0, *struct.unpack_from("<Q", tail, locator + 8), 1)
            self._pieces.replace(there + 4, one)
        if last + 1 != len(paths) or first != last:
            raise DataError(
                f"{last + 1} pieces make up this zip, {len(paths)} are here; fetch the others, or "
                "unpack it yourself and give the folder as source="
            )
        super().__init__(io.BufferedReader(self._pieces))
        for member in self.infolist():
            if member.volume > last:
                raise DataError("its directory cannot be read; unpack the zip yourself")
            # zipfile has counted every offset from the start of the last piece.
            member.header_offset += self._pieces.starts[member.volume] - self._pieces.starts[last]
            if hasattr(member, "_end_offset"):  # derived from the uncorrected offsets
                member._end_offset = None

    @override
    def close(self) -> None:
        super().close()
        self._pieces.close()


class _Joined(io.RawIOBase):
    """Files, read as if they were one, of which some bytes may be replaced."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._files = [path.open("rb") for path in paths]
        self._position = 0
        self._replaced: dict[int, int] = {}

    def replace(self, start: int, content: bytes) -> None:
        """Makes reads return ``content`` from byte ``start`` on."""
        self._replaced = dict(enumerate(content, start))

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    @override
    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        place = bisect_right(self.starts, self._position) - 1
        if place == len(self._files):
            return 0
        self._files[place].seek(self._position - self.starts[place])
        count = self._files[place].readinto(buffer)
        for at, byte in self._replaced.items():
            if 0 <= at - self._position < count:
                buffer[at - self._position] = byte
        self._position += count
        return count

    @override
    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


if __name__ == "__main__":
    main("fsd50k", prepare)
