"""Journal of a preparation: what checking each file found, appended as it is found.

An interrupted preparation reads its journal back and checks only the rest. An entry counts as long
as its file keeps size and modification time.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from spaudio.audio.decode import MAX_SECONDS, SILENCE_DBFS

# A journal written under other rules is not read.
_RULES = {"version": 2, "silence_dbfs": SILENCE_DBFS, "max_seconds": MAX_SECONDS}


@dataclass(frozen=True)
class Finding:
    """What checking one file found: duration and rate, or the reason why it cannot be used."""

    path: str
    size: int
    mtime_ns: int
    seconds: float | None = None
    sample_rate: int | None = None
    reason: str | None = None


class Journal:
    """Findings of one audio root, kept in a JSON-lines file.

    Args:
        file: The journal.
        root: Audio root; a journal of another root starts afresh.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self._file = file
        self._header = {**_RULES, "root": os.fspath(root)}
        self._findings: dict[str, Finding] = {}
        self._stream: IO[str] | None = None
        whole = self._read()
        file.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            # A torn last line, left by a crash, is cut before anything is appended.
            with file.open("r+b") as stream:
                stream.truncate(whole)
        else:
            file.write_text(json.dumps(self._header) + "\n", encoding="utf-8")

    def get(self, path: str, status: os.stat_result) -> Finding | None:
        """The finding about ``path`` if the file is still the one that was checked."""
        finding = self._findings.get(path)
        if finding is None or (finding.size, finding.mtime_ns) != (
            status.st_size,
            status.st_mtime_ns,
        ):
            return None
        return finding

    def add(self, finding: Finding) -> None:
        """Appends a finding; it survives the process from here on."""
        if self._stream is None:
            raise ValueError("the journal is not open; use it as a context manager")
        self._findings[finding.path] = finding
        self._stream.write(json.dumps(asdict(finding)) + "\n")
        self._stream.flush()

    def __enter__(self) -> Journal:
        self._stream = self._file.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._stream = None

    def _read(self) -> int:
        """Reads the findings; returns how many bytes of the file are whole and ours."""
        try:
            lines = self._file.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return 0
        whole = 0
        for number, line in enumerate(lines):
            try:
                record = json.loads(line)
                if number == 0:
                    if record != self._header:
                        return 0
                else:
                    finding = Finding(**record)
                    self._findings[finding.path] = finding
            except (ValueError, TypeError):
                break
            if not line.endswith(b"\n"):
                break
            whole += len(line)
        return whole
