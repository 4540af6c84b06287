"""Finds events in long recordings: classifies windows, applies a threshold, merges neighbours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spaudio.audio.decode import Waveform, is_silent, probe
from spaudio.audio.manifest import is_nothing
from spaudio.audio.recorded import recording_start
from spaudio.errors import ConfigError
from spaudio.inference.events import Event, Recording
from spaudio.inference.live import Heard, WindowClassifier, WindowStream
from spaudio.inference.predict_files import listed_if_unusable
from spaudio.io.progress import progress_bar

_BATCH = 32  # windows


def divide(answers: Iterable[Heard]) -> Iterator[Heard]:
    """Divides a recording among its windows, without gap or overlap.

    Each window represents the sound that is closer to its centre than to that of any other window.
    So the ends of an event are accurate to half a hop, rather than to the length of a window.
    """
    before, start = None, 0.0
    for heard in answers:
        if before is not None:
            end = (before.start + before.end + heard.start + heard.end) / 4
            yield replace(before, start=start, end=end)
            start = end
        before = heard
    if before is not None:
        yield replace(before, start=start)


def merge(parts: Iterable[Heard], thresholds: Sequence[float]) -> tuple[list[list[Event]], float]:
    """Joins neighbouring parts with the same class.

    Args:
        parts: The parts of a recording, in order.
        thresholds: Lowest probabilities at which a class counts as present.

    Returns:
        The events at each threshold, sorted by start, and the duration of the recording. Classes
        with names between underscores, such as ``_background_``, are not events.
    """
    still_open: list[dict[str, Event]] = [{} for _ in thresholds]
    done: list[list[Event]] = [[] for _ in thresholds]
    seconds = 0.0
    for part in parts:
        seconds = part.end
        heard = [
            (label, float(p))
            for label, p in zip(part.classes, part.probabilities, strict=True)
            if not is_nothing(label)
        ]
        for threshold, events, ended in zip(thresholds, still_open, done, strict=True):
            found = {label: p for label, p in heard if p >= threshold}
            ended += [events.pop(label) for label in list(events) if label not in found]
            for label, p in found.items():
                before = events.get(label, Event(part.start, part.end, label, p))
                events[label] = Event(before.start, part.end, label, max(p, before.confidence))
    for events, ended in zip(still_open, done, strict=True):
        ended += events.values()
        ended.sort(key=lambda event: (event.start, event.end, event.label))
    return done, seconds


def event_finder(
    predictor: WindowClassifier, hop: float | None, thresholds: Sequence[float]
) -> Callable[[Iterable[Waveform]], tuple[list[list[Event]], float]]:
    """Returns a function that takes a sound, in pieces at the predictor's rate, and finds events.

    It returns the same as `merge`.

    Args:
        predictor: Predictor of the run, or several models together; windows of its
            `event_seconds` slide over the sound.
        hop: Seconds from one window to the next; None is half the window, at least a hop of
            the front-end.
        thresholds: Lowest probabilities at which a class counts as present.

    Raises:
        ConfigError: If hop or a threshold is out of range.
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ConfigError(
                f"threshold={threshold:g}; expected a probability above 0 and at most 1"
            )
    window = predictor.event_seconds
    if hop is None:
        hop = max(window / 2, predictor.frame_seconds)
    stream = WindowStream(predictor, window, hop, batch=_BATCH)
    return lambda pieces: merge(divide(stream.answers(pieces, predictor.sample_rate)), thresholds)


def detect(
    predictor: WindowClassifier,
    files: Sequence[Path],
    *,
    hop: float | None = None,
    threshold: float = 0.5,
    other_thresholds: Sequence[float] = (),
    timed: bool = False,
) -> tuple[list[Recording], list[tuple[Path, str]]]:
    """Finds events in files of any length.

    Only a few windows and the events are kept in memory. Silent windows contain no events.

    Args:
        predictor: As in `event_finder`.
        files: The recordings.
        hop: As in `event_finder`.
        threshold: Lowest probability at which a class counts as present.
        other_thresholds: Thresholds at which events are sought as well, without running the model
            again.
        timed: Read the start times of the recordings from the names of the files.

    Returns:
        The recordings, and the unusable files, each with a reason.

    Raises:
        ConfigError: If hop or a threshold is out of range.
    """
    find = event_finder(predictor, hop, (threshold, *other_thresholds))
    recordings = []
    bad: list[tuple[Path, str]] = []
    with progress_bar("detect", len(files), show=len(files) > 1) as advance:
        for path in files:
            with listed_if_unusable(path, bad):
                begin = None
                if timed:
                    probe(path)  # a missing file is reported as such, not by its name
                    begin = recording_start(path)
                heard: set[bool] = set()
                pieces = predictor.read(path, silent_ok=True)
                (events, *others), seconds = find(_listen(pieces, heard))
                at = dict(zip(other_thresholds, others, strict=True))
                recordings.append(Recording(path, seconds, events, begin, True not in heard, at))
            advance(1)
    return recordings, bad


def _listen(pieces: Iterable[Waveform], heard: set[bool]) -> Iterator[Waveform]:
    """Passes pieces on, and adds to ``heard`` whether each is more than silence."""
    for piece in pieces:
        heard.add(not is_silent(piece))
        yield piece
