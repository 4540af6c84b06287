"""Append-only files of JSON lines that survive a crash."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


class JsonLines:
    """Records appended one by one; after a crash, the whole lines are read and a torn one is cut.

    Args:
        file: The file.
        header: Its first line. A file with another header is overwritten.
    """

    def __init__(self, file: Path, header: Mapping[str, Any]) -> None:
        self.file = file
        self._header = json.loads(json.dumps(dict(header)))  # as it is read back
        self._stream: IO[bytes] | None = None

    def read(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yields each whole record and the offset of its end, in bytes."""
        end = 0
        try:
            with self.file.open("rb") as stream:
                for number, line in enumerate(stream):
                    record = json.loads(line)
                    if not line.endswith(b"\n") or not isinstance(record, dict):
                        return
                    if number == 0 and record != self._header:
                        return
                    end += len(line)
                    if number > 0:
                        yield record, end
        except (FileNotFoundError, ValueError):
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

    def append(self, record: Mapping[str, Any]) -> None:
        """Appends a record to the open file."""
        if self._stream is None:
            raise ValueError(f"{self.file} is not open")
        write_all(self._stream, (json.dumps(record) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def write_all(stream: IO[bytes], content: bytes | memoryview) -> None:
    """Writes all of ``content`` to an unbuffered file, which may take it in portions."""
    rest = memoryview(content).cast("B")
    while len(rest):
        rest = rest[stream.write(rest) :]
