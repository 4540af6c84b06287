"""The class of all other sounds, cut from what lies between the annotations of recordings."""

import bisect
import heapq
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from spaudio.audio.background import BACKGROUND
from spaudio.audio.decode import probe
from spaudio.audio.intervals import Interval
from spaudio.audio.manifest import SourceClip
from spaudio.audio.split import seeded_rank
from spaudio.errors import AudioError, ConfigError, DataError, reason


def background_between(
    root: Path,
    clips: Sequence[SourceClip],
    intervals: Sequence[Interval],
    *,
    empty: Mapping[str, str],
    seed: int,
) -> tuple[list[SourceClip], list[Interval], dict[str, str]]:
    """Chooses intervals of annotated recordings in which nothing is annotated.

    They are as long as the median of the annotations, and in each split at most as many as it has
    annotations: a recording consists mostly of sound without events, and fewer clips of it lead to
    more false events. Each has the group and the split of the annotation that is nearest to it, so
    a recording is divided as its annotations are. An interval of a recording without annotations
    has the group of the recording, and the split of that group; ``"train"`` if no annotation has
    it.

    Args:
        root: Holds the recordings. One that cannot be read gives no interval; if it has
            annotations, it is reported when these are cut.
        clips: The clip of each interval.
        intervals: The annotations.
        empty: Recordings that were searched for events and hold none, each with its group.
        seed: Determines which intervals are chosen.

    Returns:
        The clips; their intervals; and the recordings without annotations that cannot be read, each
        with the reason.

    Raises:
        ConfigError: If there is a class of this name already.
        DataError: If no gap between annotations is long enough, or none of the training split.
    """
    if any(clip.label == BACKGROUND for clip in clips):
        raise ConfigError(
            f"background=: the table has the label {BACKGROUND} already; leave background out, or "
            "rename the label"
        )
    length = round(statistics.median(one.end - one.start for one in intervals), 3)
    by_recording: dict[str, list[tuple[Interval, SourceClip]]] = {name: [] for name in empty}
    for one, clip in zip(intervals, clips, strict=True):
        by_recording.setdefault(one.recording, []).append((one, clip))

    recordings, unreadable = _durations(root, by_recording)
    bad = {name: why for name, why in unreadable.items() if name in empty}
    splits = {clip.group: clip.split for clip in clips}
    nearest = {name: _Nearest(events) for name, events in by_recording.items()}

    def place(piece: Interval) -> tuple[str, str]:
        """Returns the group and the split of a piece."""
        if (near := nearest[piece.recording](piece)) is not None:
            return near.group, near.split
        return empty[piece.recording], splits.get(empty[piece.recording], "train")

    def gaps(split: str) -> Iterator[Interval]:
        for name, seconds in recordings.items():
            events = by_recording[name]
            kinds = {clip.split for _, clip in events}
            if kinds and split not in kinds:
                continue
            for start in _starts([one for one, _ in events], seconds, length):
                end = round(start + length, 3)
                piece = Interval(name, start, end, f"background={root}", spare=True)
                if kinds == {split} or place(piece)[1] == split:
                    yield piece

    pieces = []
    # Each split has as many as annotations, whatever the length of its recordings.
    for split, count in Counter(clip.split for clip in clips).items():
        # There may be millions of them, of which only the chosen ones are kept.
        pieces += heapq.nsmallest(count, gaps(split), key=lambda one: seeded_rank(one.path, seed))
    pieces.sort(key=lambda one: one.path)
    if not pieces:
        raise DataError(
            f"background={root}: the annotated recordings have no {length:g} s without an "
            "annotation; name a folder of other recordings"
        )
    more = []
    for piece in pieces:
        group, split = place(piece)
        more.append(SourceClip(piece.path, BACKGROUND, split, group))
    if all(clip.split != "train" for clip in more):
        raise DataError(
            f"background={root}: the recordings of the training split have no {length:g} s without "
            "an annotation; name a folder of other recordings"
        )
    return more, pieces, bad


def _durations(root: Path, names: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Returns the seconds of recordings; and those that cannot be read, each with the reason."""
    seconds, unreadable = {}, {}
    for name in sorted(names):
        try:
            seconds[name] = probe(root / name).seconds
        except AudioError as error:
            unreadable[name] = reason(error, root / name)
    return seconds, unreadable


class _Nearest:
    """Finds the annotation of a recording that is nearest to a piece which touches none.

    Args:
        events: The annotations, which may overlap, and their clips.
    """

    def __init__(self, events: Sequence[tuple[Interval, SourceClip]]) -> None:
        self._events = sorted(events, key=lambda event: event[0].start)
        self._starts = [one.start for one, _ in self._events]
        # Of the annotations up to each one, that which ends last.
        self._last = list(
            accumulate(self._events, lambda *two: max(two, key=lambda event: event[0].end))
        )

    def __call__(self, piece: Interval) -> SourceClip | None:
        after = bisect.bisect_left(self._starts, (piece.start + piece.end) / 2)
        near = [
            (piece.start - one.end, clip) for one, clip in self._last[max(0, after - 1) : after]
        ]
        near += [(one.start - piece.end, clip) for one, clip in self._events[after : after + 1]]
        return min(near, key=lambda one: one[0])[1] if near else None


def _starts(events: Sequence[Interval], seconds: float, length: float) -> Iterator[float]:
    """Yields the starts of pieces that touch no event, from the start of each gap on."""
    ends, last = [0.0], 0.0
    for one in sorted(events, key=lambda one: one.start):
        ends += [one.start, max(last, one.end)]
        last = ends[-1]
    for number, (start, end) in enumerate(pairwise([*ends, seconds])):
        if number % 2 == 0:
            for piece in range(math.floor((end - start) / length + 1e-6)):
                yield round(start + piece * length, 3)
