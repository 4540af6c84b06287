"""Events in recordings as CSV, Audacity labels or Raven selection tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from spaudio.io.csv_files import csv_text, for_csv
from spaudio.io.escape import writable


@dataclass(frozen=True)
class Event:
    """An interval of a recording with one class.

    Args:
        start: Seconds since the start of the recording.
        end: Seconds.
        label: Class.
        confidence: Highest probability of the class in the interval.
    """

    start: float
    end: float
    label: str
    confidence: float


@dataclass(frozen=True)
class Recording:
    """The events of one recording.

    Args:
        path: Its file.
        seconds: Its duration.
        events: Sorted by start.
        begin: Its start time, if known.
        silent: Whether it is silent throughout.
        at: Events at other thresholds.
    """

    path: Path
    seconds: float
    events: Sequence[Event]
    begin: datetime | None = None
    silent: bool = False
    at: Mapping[float, Sequence[Event]] = field(default_factory=dict)

    def clock(self, seconds: float) -> str:
        """Returns a time in the recording as ISO 8601, to the millisecond."""
        assert self.begin is not None
        time = self.begin + timedelta(seconds=round(seconds, 3))  # isoformat would truncate
        return time.isoformat(timespec="milliseconds")


def as_csv(recordings: Sequence[Recording]) -> str:
    """Returns a table over recordings, with clock times if they are known."""
    timed = any(one.begin is not None for one in recordings)
    clock = ["start_time", "end_time"] if timed else []
    lines = [["file", "start", "end", "class", "confidence", *clock]]
    for one in recordings:
        for event in one.events:
            times = [one.clock(event.start), one.clock(event.end)] if timed else []
            name, label = for_csv(writable(one.path)), for_csv(event.label)
            start, end = f"{event.start:.3f}", f"{event.end:.3f}"
            lines.append([name, start, end, label, f"{event.confidence:.4f}", *times])
    return csv_text(lines)


def as_audacity(recording: Recording) -> str:
    """Returns an Audacity label track: start, end, and class with confidence and clock time."""
    lines = []
    for event in recording.events:
        words = [writable(event.label), f"{event.confidence:.2f}"]
        if recording.begin is not None:
            words.append(recording.clock(event.start))
        lines.append(f"{event.start:.6f}\t{event.end:.6f}\t{' '.join(words)}\n")
    return "".join(lines)


def as_raven(recording: Recording, top: float) -> str:
    """Returns a Raven selection table; see its manual, "Selection tables".

    Args:
        recording: The recording.
        top: Upper edge of the model's frequency band in Hz, which selections need.
    """
    header = [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)",
        "High Freq (Hz)", "Begin File", "Begin Path", "Class", "Confidence",
        *(["Begin Date Time"] if recording.begin is not None else []),
    ]  # fmt: skip
    lines = ["\t".join(header)]
    for number, event in enumerate(recording.events, start=1):
        cells = [str(number), "Spectrogram 1", "1", f"{event.start:.6f}", f"{event.end:.6f}", "0",
                 f"{top:g}", writable(recording.path.name), writable(recording.path.absolute()),
                 writable(event.label), f"{event.confidence:.4f}"]  # fmt: skip
        if recording.begin is not None:
            cells.append(recording.clock(event.start))
        lines.append("\t".join(cells))
    return "\n".join(lines) + "\n"
