"""Clips cut from labelled intervals of recordings."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spaudio.audio.cuts import make_cuts, state_of
from spaudio.audio.decode import MAX_SAMPLES, MAX_SECONDS, Waveform, is_silent, probe, stream_audio
from spaudio.audio.wav import write_wav
from spaudio.errors import DataError

_VERSION = 4  # of the cuts; raise it with any change to them
ROUNDING = 0.1  # seconds that an interval may end after its recording


@dataclass(frozen=True)
class Interval:
    """An interval of a recording.

    Attributes:
        recording: Path of the recording, relative to the folder of all recordings.
        start: Seconds since the start of the recording, to the millisecond.
        end: The same.
        where: Where the user gave it, for messages.
        spare: Whether it is dropped, rather than an error, if it is silent or ends after the
            recording.
    """

    recording: str
    start: float
    end: float
    where: str
    spare: bool = False

    @property
    def path(self) -> str:
        """Path of the clip, relative to the folder of the clips."""
        return f"{self.recording}/{self.start:.3f}-{self.end:.3f}.wav"


def overlapping(intervals: Iterable[Interval]) -> Iterator[tuple[Interval, Interval]]:
    """Yields the pairs of intervals that share a part of a recording."""
    earlier: list[Interval] = []
    for one in sorted(intervals, key=lambda one: (one.recording, one.start, one.end)):
        earlier = [e for e in earlier if e.recording == one.recording and e.end > one.start]
        yield from ((e, one) for e in earlier)
        earlier.append(one)


def cut_intervals(
    root: Path, intervals: Sequence[Interval], work: Path
) -> tuple[Path, dict[str, str]]:
    """Cuts intervals out of recordings of any length, unless that has been done before.

    Args:
        root: Holds the recordings.
        intervals: In any order; they may overlap.
        work: The clips are written to a folder in it.

    Returns:
        The folder of the clips, at `Interval.path`; and the recordings that cannot be used, of
        which there are no clips, each with the reason.

    Raises:
        DataError: If an interval that is not spare ends after its recording.
    """
    by_recording: dict[str, list[Interval]] = {}
    for one in sorted(intervals, key=lambda one: (one.recording, one.start, one.end)):
        by_recording.setdefault(one.recording, []).append(one)
    key = hashlib.sha256(f"v{_VERSION} ".encode())
    for name, wanted in by_recording.items():
        paths = [f"{one.path}{' spare' if one.spare else ''}" for one in wanted]
        key.update(os.fsencode(f"{root} {state_of(root / name)} {paths}"))

    target = work / f"intervals-{key.hexdigest()[:12]}"

    def cut(name: str, staging: Path) -> Iterator[Path]:
        return _cut(root / name, by_recording[name], staging)

    return target, make_cuts(target, root, list(by_recording), cut, "Cutting recordings")


def _cut(recording: Path, intervals: Sequence[Interval], target: Path) -> Iterator[Path]:
    """Writes the intervals of one recording, sorted by start, in one pass; yields their paths."""
    header = probe(recording)
    rate = header.sample_rate
    most = min(MAX_SECONDS, MAX_SAMPLES / rate)
    for one in intervals:
        # Before it is held in memory; one that ends after its recording is reported below.
        if one.end - one.start > most and one.end <= header.seconds + ROUNDING:
            raise DataError(
                f"{one.where}: the interval from {one.start:g} to {one.end:g} s is longer than "
                f"{most:g} s, the most at {rate:,} Hz; divide it"
            )
    coming = deque((round(one.start * rate), round(one.end * rate), one) for one in intervals)
    current: list[tuple[int, int, Interval, list[Waveform]]] = []
    count = 0  # samples before the piece
    for piece in stream_audio(recording, rate, silent_ok=True):
        end = count + len(piece)
        while coming and coming[0][0] < end:
            current.append((*coming.popleft(), []))
        for first, last, _, parts in current:
            parts.append(piece[max(0, first - count) : last - count])
        for _, last, one, parts in current:
            if last <= end:
                yield from _write(target, one, parts, rate)
        current = [one for one in current if one[1] > end]
        count = end
    for first, last, one, parts in [*current, *((*late, []) for late in coming)]:
        if first >= count or last > count + ROUNDING * rate:
            if one.spare:  # chosen by the length in the header, which is a little too long
                continue
            raise DataError(
                f"{one.where}: the interval from {one.start:g} to {one.end:g} s ends after "
                f"{one.recording}, which is {count / rate:.3f} s long; correct the table"
            )
        yield from _write(target, one, parts, rate)


def _write(
    target: Path, interval: Interval, parts: Sequence[Waveform], rate: int
) -> Iterator[Path]:
    """Writes the clip of an interval, and yields its path."""
    wave = np.concatenate(parts)
    if not (interval.spare and is_silent(wave)):
        yield write_wav(target / interval.path, wave, rate)
