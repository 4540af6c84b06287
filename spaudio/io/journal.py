"""Append-only files of JSON lines that survive a crash and detect damage."""

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


class JsonLines:
    """Records appended one by one; after a crash, whole lines are read and a torn one is cut off.

    Each line holds a checksum. Reading stops at the first damaged line.

    Args:
        file: The file.
        header: Its first line. A file with another header is overwritten.
    """

    def __init__(self, file: Path, header: Mapping[str, Any]) -> None:
        self.file = file
        self._header = json.loads(json.dumps(dict(header)))  # as it is read back
        self._stream: IO[bytes] | None = None

    def read(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yields each whole record and the offset of its end, in bytes; warns of a damaged one."""
        end = 0
        try:
            with self.file.open("rb") as stream:
                for number, line in enumerate(stream):
                    if not line.endswith(b"\n"):
                        return
                    record = _decode(line)
                    if record is None:
                        warnings.warn(
                            f"{self.file}, line {number + 1} is damaged; what it and later lines "
                            "hold is recomputed",
                            stacklevel=2,
                        )
                        return
                    if number == 0 and record != self._header:
                        return
                    end += len(line)
                    if number > 0:
                        yield record, end
        except FileNotFoundError:
            return

    def open(self, end: int) -> None:
        """Opens the file for `append` after its first ``end`` bytes; 0 overwrites it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: a record survives the process as soon as it is appended.
        self._stream = self.file.open("r+b" if end else "wb", buffering=0)
        if end:
            self._stream.truncate(end)
            self._stream.seek(end)
        else:
            self.append(self._header)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Appends records to the open file."""
        if self._stream is None:
            raise ValueError(f"{self.file} is not open")
        write_all(self._stream, b"".join(map(_encode, records)))

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _encode(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(record))
    return (json.dumps({**record, "line_crc32": zlib.crc32(text.encode())}) + "\n").encode()


def _decode(line: bytes) -> dict[str, Any] | None:
    """Returns a line's record, or None if it is damaged."""
    try:
        record = json.loads(line)
        del record["line_crc32"]
        return record if _encode(record) == line else None
    except (ValueError, RecursionError, KeyError, TypeError):
        return None


def write_all(stream: IO[bytes], content: bytes | memoryview) -> None:
    """Writes all of ``content`` to an unbuffered file, which may take it in portions."""
    rest = memoryview(content).cast("B")
    try:
        while len(rest):
            rest = rest[stream.write(rest) :]
    except OSError as error:
        error.filename = stream.name  # for the message
        raise
