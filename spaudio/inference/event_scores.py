"""Scores of detected events against annotations of the same recordings."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path

from spaudio.inference.events import Event, Recording
from spaudio.report.tables import score_text


@dataclass(frozen=True)
class EventScore:
    """How well the events of one class fit its annotations.

    Precision, recall and F1 are those of segments of one second, in which a class is present or
    not: "segment-based metrics" of Mesaros, Heittola & Virtanen, "Metrics for Polyphonic Sound
    Event Detection", 2016, https://doi.org/10.3390/app6060162, as in the package sed_eval. Whole
    events are only counted, as neighbouring annotations may be found as one event.

    Attributes:
        label: Class.
        annotated: Number of annotations.
        found: Number of annotations that share a part of the recording with an event of the class.
        events: Number of events.
        false: Number of events that share no part of the recording with an annotation of the class.
        hits: Segments with an annotation and an event.
        missed: Segments with an annotation only.
        extra: Segments with an event only.
    """

    label: str
    annotated: int
    found: int
    events: int
    false: int
    hits: int
    missed: int
    extra: int

    @property
    def precision(self) -> float | None:
        """None without events."""
        return _share(self.hits, self.hits + self.extra)

    @property
    def recall(self) -> float | None:
        """None without annotations."""
        return _share(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float | None:
        """None without events and annotations."""
        return _share(2 * self.hits, 2 * self.hits + self.missed + self.extra)


def score_events(
    recordings: Iterable[Recording],
    annotations: Mapping[Path, Sequence[Event]],
    labels: Iterable[str],
) -> list[EventScore]:
    """Compares events with annotations.

    Args:
        recordings: The detected events. Recordings without an entry in ``annotations`` are left
            out.
        annotations: For each recording, by its path, all events that it holds; their confidence is
            ignored.
        labels: The classes to score.

    Returns:
        The score of each class with an annotation or an event, in order, and that of all classes,
        unless there is one.
    """
    pairs = [(one, annotations[one.path]) for one in recordings if one.path in annotations]
    scores = [
        _total(label, [_compare(label, one.events, annotated) for one, annotated in pairs])
        for label in labels
    ]
    scores = [score for score in scores if score.annotated or score.events]
    return scores if len(scores) == 1 else [*scores, _total("all classes", scores)]


def score_thresholds(
    recordings: Sequence[Recording],
    annotations: Mapping[Path, Sequence[Event]],
    labels: Sequence[str],
) -> list[EventScore]:
    """Compares events at several thresholds with annotations.

    Args:
        recordings: As in `score_events`, all with events at the same other thresholds.
        annotations: As in `score_events`.
        labels: As in `score_events`.

    Returns:
        The score of all classes together at each threshold, which is its label.
    """
    scores = []
    for threshold in recordings[0].at:
        found = [replace(one, events=one.at[threshold]) for one in recordings]
        every = score_events(found, annotations, labels)[-1]
        scores.append(replace(every, label=f"{threshold:g}"))
    return scores


def score_rows(
    scores: Sequence[EventScore], hours: float, of: str = "class"
) -> list[dict[str, str]]:
    """Returns the rows of a table of scores.

    Args:
        scores: The scores.
        hours: Duration of all recordings that were scored.
        of: Header of the labels.
    """
    return [
        {
            of: one.label,
            "annotated": f"{one.annotated:,}",
            "found": f"{one.found:,}",
            "events": f"{one.events:,}",
            "false": f"{one.false:,}",
            "false per hour": f"{one.false / hours:.2f}" if hours else "-",
            "precision": score_text(one.precision),
            "recall": score_text(one.recall),
            "F1": score_text(one.f1),
        }
        for one in scores
    ]


def _compare(label: str, events: Iterable[Event], annotated: Iterable[Event]) -> EventScore:
    """Scores the events of one class in one recording."""
    given, heard = list(_times(label, annotated)), list(_times(label, events))
    there, here = _segments(given), _segments(heard)
    return EventScore(
        label,
        annotated=len(given),
        found=_touching(given, heard),
        events=len(heard),
        false=len(heard) - _touching(heard, given),
        hits=len(there & here),
        missed=len(there - here),
        extra=len(here - there),
    )


def _times(label: str, events: Iterable[Event]) -> Iterator[tuple[float, float]]:
    """Yields start and end of the events of a class, to the millisecond, as in every table."""
    for event in events:
        if event.label == label:
            yield round(event.start, 3), round(event.end, 3)


def _segments(times: Iterable[tuple[float, float]]) -> set[int]:
    """Returns the numbers of the segments of one second in which a class is present."""
    return {n for start, end in times for n in range(math.floor(start), math.ceil(end))}


def _touching(times: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> int:
    """Counts intervals that share a part with at least one of the others."""
    ordered = sorted(others)
    firsts = [first for first, _ in ordered]
    latest = list(accumulate((last for _, last in ordered), max))  # end of all up to each
    before = [bisect_left(firsts, end) for _, end in times]  # those that begin before the end
    return sum(n > 0 and latest[n - 1] > start for n, (start, _) in zip(before, times, strict=True))


def _total(label: str, scores: Sequence[EventScore]) -> EventScore:
    """Returns the sums of all counts."""
    counts = [field.name for field in fields(EventScore) if field.name != "label"]
    return EventScore(label, **{name: sum(getattr(s, name) for s in scores) for name in counts})


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
