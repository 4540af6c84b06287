"""Decodes every clip of a dataset once: to check it, and to fill the stores that lack it.

Findings are appended to a journal. An interrupted preparation reads its journal and checks only the
rest. A finding is valid as long as its file keeps its state (see `spaudio.io.state.FileState`),
which changes with any change of the content.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from spaudio.audio.decode import (
    DECODER,
    MAX_ARRAY_AMPLITUDE,
    MAX_SECONDS,
    SILENCE_DBFS,
    Waveform,
    decode,
    hash_samples,
    is_passing,
    is_silent,
    resample,
)
from spaudio.audio.decoder_remarks import decoder_remarks
from spaudio.audio.manifest import SourceClip
from spaudio.errors import AudioError, reason, some
from spaudio.io.journal import JsonLines
from spaudio.io.progress import progress_bar
from spaudio.io.spread import spread
from spaudio.io.state import FileState

# A journal that was written with other rules is not read.
_RULES = {
    **DECODER,
    "silence_dbfs": SILENCE_DBFS,
    "max_seconds": MAX_SECONDS,
}


class ClipStore(Protocol):
    """Keeps something computed from each clip's waveform, such as its features.

    Attributes:
        sample_rate: Rate in Hz of the waveforms that `compute` expects.
    """

    sample_rate: int

    def select(self, clips: Sequence[SourceClip]) -> Sequence[SourceClip]:
        """Returns which of a dataset's clips the store should hold."""

    def writing(self) -> AbstractContextManager[object]:
        """Opens the store for `lacks` and `add`; other processes wait until it is closed."""

    def lacks(self, file: Path, status: os.stat_result) -> bool:
        """Whether the store has no entry for the file in its current state."""

    def compute(self, waveform: Waveform, samples: str) -> Any:
        """Computes what `add` keeps of a clip, in the process that decodes it.

        Args:
            waveform: (samples,), at the store's rate.
            samples: What `hash_samples` returns of the clip before it was resampled.

        Raises:
            AudioError: If the clip is of no use to the store.
        """

    def add(self, file: Path, status: os.stat_result, computed: Any) -> None:
        """Adds a clip, in the process that has called `writing`."""


@dataclass(frozen=True)
class Finding:
    """What checking one file found: duration and rate, or the reason why it cannot be used.

    Attributes:
        path: Path as listed.
        state: State of the file before it was decoded; None if it could not be found, or if the
            reason depends on the sample rate of a store, or is an error of the system.
        seconds: Duration.
        sample_rate: In Hz.
        reason: Why it cannot be used.
        samples: What `hash_samples` returns of the clip. None for a silent one, as all silence is
            alike.
        loud: Whether the peak is above `MAX_ARRAY_AMPLITUDE`, as in integers that were cast.
    """

    path: str
    state: FileState | None
    seconds: float | None = None
    sample_rate: int | None = None
    reason: str | None = None
    samples: str | None = None
    loud: bool = False


def scan_clips(
    clips: Sequence[SourceClip],
    root: Path,
    journal: Path,
    *,
    stores: Sequence[ClipStore] = (),
    silent_ok: bool = False,
    workers: int = 1,
    progress: bool = True,
    on_new: Callable[[], None] = lambda: None,
) -> dict[str, Finding]:
    """Decodes the clips that the journal does not know or that a store lacks, each once.

    Args:
        clips: The clips to check.
        root: Folder that their paths are relative to; a journal of another root is not read.
        journal: The journal's file.
        stores: Receive the waveforms, resampled once per sample rate. Bad clips are not added.
        silent_ok: If true, silent clips are accepted.
        workers: Processes that decode and compute what the stores keep.
        progress: Whether to show a progress bar.
        on_new: Called before checking, if the journal lacks a clip.

    Returns:
        The findings by path.

    Raises:
        DataError: If a process dies.
    """
    check = _Check(root, silent_ok, stores)
    lines = JsonLines(journal, {**_RULES, "root": os.fspath(root), "silent_ok": silent_ok})
    known: dict[str, Finding] = {}
    end = 0
    for record, after in lines.read():
        state = FileState(*record.pop("state"))
        known[record["path"]], end = Finding(state=state, **record), after
    remarks: dict[str, str] = {}
    with ExitStack() as stack:
        for store in stores:
            stack.enter_context(store.writing())
        findings, rest = _divide(clips, known, check)
        if any(job.path not in known for job in rest):
            on_new()
        lines.open(end)
        stack.callback(lines.close)
        if not rest:
            return findings
        done = len(clips) - len(rest)
        bar = progress_bar("Checking clips", len(clips), done=done, show=progress)
        advance = stack.enter_context(bar)
        results = stack.enter_context(closing(spread(check, rest, workers)))
        for job, (finding, computed, remark) in zip(rest, results, strict=True):
            for number, value in computed.items():
                assert job.status is not None  # a file that cannot be found goes to no store
                stores[number].add(root / job.path, job.status, value)
            if finding.state is not None and known.get(job.path) != finding:
                lines.append(vars(finding))
            findings[job.path] = finding
            if remark:
                remarks[job.path] = remark
            advance(1)
    if remarks:
        named = some([f"{path} ({remark})" for path, remark in remarks.items()])
        warnings.warn(
            f"the MP3 decoder found damage in {named}; listen to these clips, or fetch them again",
            stacklevel=2,
        )
    return findings


def _divide(
    clips: Sequence[SourceClip], known: dict[str, Finding], check: "_Check"
) -> tuple[dict[str, Finding], list["_Job"]]:
    """Divides clips into those of which all is known and those to decode.

    Args:
        clips: The clips.
        known: Findings of the journal by path; those of files that have changed are removed.
        check: What decodes them.

    Returns:
        The findings that hold, by path, and what is to be done.
    """
    selected = [(store, {clip.path for clip in store.select(clips)}) for store in check.stores]
    findings: dict[str, Finding] = {}
    rest: list[_Job] = []
    for path in (clip.path for clip in clips):
        file = check.root / path
        try:
            status = file.stat()
        except (OSError, ValueError):
            # `decode` reports what is wrong: missing, a loop of links, a bad name.
            findings[path] = check(_Job(path, None, ())).finding
            continue
        found = known.get(path)
        if found and found.state != FileState.of(status):
            del known[path]
            found = None
        wanting = [
            number
            for number, (store, paths) in enumerate(selected)
            if path in paths and store.lacks(file, status)
        ]
        if found and (found.reason or not wanting):
            findings[path] = found
        else:
            rest.append(_Job(path, status, wanting))
    return findings, rest


@dataclass(frozen=True)
class _Job:
    """A file to check, its state, and the numbers of the stores that lack it."""

    path: str
    status: os.stat_result | None
    wanting: Sequence[int]


class _Checked(NamedTuple):
    """A finding, what stores keep of the file by their number, and the decoder's first remark."""

    finding: Finding
    computed: dict[int, Any]
    remark: str = ""


@dataclass(frozen=True)
class _Check:
    """Decodes and checks files, and computes what stores keep of them."""

    root: Path
    silent_ok: bool
    stores: Sequence[ClipStore]

    def __call__(self, job: _Job) -> _Checked:
        """Decodes a file, and computes what each store that lacks it keeps."""
        path, file = job.path, self.root / job.path
        state = FileState.of(job.status) if job.status else None
        stores = {number: self.stores[number] for number in job.wanting}
        rates = {store.sample_rate for store in stores.values()}
        try:
            with decoder_remarks() as remarks:
                waveform, rate = decode(file, silent_ok=self.silent_ok)
        except AudioError as error:
            found = Finding(path, None if is_passing(error) else state, reason=reason(error, file))
            return _Checked(found, {})
        try:
            waveforms = {wanted: resample(waveform, rate, wanted, file) for wanted in rates}
            samples = hash_samples(waveform, rate)
            computed = {
                number: store.compute(waveforms[store.sample_rate], samples)
                for number, store in stores.items()
            }
        except AudioError as error:  # too short for this rate, or too loud for this front-end
            return _Checked(Finding(path, None, reason=reason(error, file)), {})
        seconds = round(len(waveform) / rate, 6)
        sounding = None if is_silent(waveform) else samples
        loud = bool(np.abs(waveform).max() > MAX_ARRAY_AMPLITUDE)
        finding = Finding(path, state, seconds, rate, samples=sounding, loud=loud)
        return _Checked(finding, computed, remarks[0] if remarks else "")
