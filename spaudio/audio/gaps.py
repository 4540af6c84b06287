"""The class of all other sounds, cut from what lies between the annotations of recordings."""

import bisect
import heapq
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
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

    They are as long as the median of the annotations, and as many as there are annotations: a
    recording consists mostly of sound without events, and fewer clips of it lead to more false
    events. Each has the group and the split of the annotation that is nearest to it, so a
    recording is divided as its annotations are. An interval of a recording without annotations has
    the group of the recording, and the split ``"train"``.

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
        DataError: If no gap between annotations is long enough.
    """
    if any(clip.label == BACKGROUND for clip in clips):
        raise ConfigError(
            f"background=: the table has the label {BACKGROUND} already; leave background out, or "
            "rename the label"
        )
    length = round(statistics.median(one.end - one.start for one in intervals), 3)
    bad: dict[str, str] = {}
    by_recording: dict[str, list[tuple[Interval, SourceClip]]] = {name: [] for name in empty}
    for one, clip in zip(intervals, clips, strict=True):
        by_recording.setdefault(one.recording, []).append((one, clip))

    def gaps() -> Iterator[Interval]:
        for name, events in sorted(by_recording.items()):
            try:
                seconds = probe(root / name).seconds
            except AudioError as error:
                if not events:
                    bad[name] = reason(error, root / name)
                continue
            for start in _starts([one for one, _ in events], seconds, length):
                yield Interval(name, start, round(start + length, 3), f"background={root}", True)

    # There may be millions of them, of which only the chosen ones are kept.
    pieces = heapq.nsmallest(len(clips), gaps(), key=lambda one: seeded_rank(one.path, seed))
    pieces.sort(key=lambda one: one.path)
    if not pieces:
        raise DataError(
            f"background={root}: the annotated recordings have no {length:g} s without an "
            "annotation; name a folder of other recordings"
        )
    more = []
    middles = {name: _middles(events) for name, events in by_recording.items()}
    for piece in pieces:
        near = _nearest(piece, middles[piece.recording])
        group, split = (near.group, near.split) if near else (empty[piece.recording], "train")
        more.append(SourceClip(piece.path, BACKGROUND, split, group))
    return more, pieces, bad


def _middles(
    events: Sequence[tuple[Interval, SourceClip]],
) -> tuple[list[float], list[SourceClip]]:
    """Returns twice the middles of the annotations of a recording, in order, and their clips."""
    ordered = sorted(events, key=lambda event: event[0].start + event[0].end)
    return [one.start + one.end for one, _ in ordered], [clip for _, clip in ordered]


def _nearest(piece: Interval, middles: tuple[list[float], list[SourceClip]]) -> SourceClip | None:
    """Returns the clip of the annotation whose middle is nearest to that of a piece."""
    places, clips = middles
    middle = piece.start + piece.end
    after = bisect.bisect_left(places, middle)
    near = range(max(0, after - 1), min(after + 1, len(places)))
    found = min(near, key=lambda index: abs(places[index] - middle), default=None)
    return None if found is None else clips[found]


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
