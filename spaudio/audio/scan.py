"""Decodes every clip of a dataset once: to check it, and to fill the stores that lack it.

Findings are appended to a journal. An interrupted preparation reads its journal and checks only the
rest. A finding is valid as long as its file keeps its state (see `spaudio.io.state.FileState`),
which changes with any change of the content.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile

from spaudio.audio.decode import (
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
from spaudio.audio.manifest import SourceClip
from spaudio.errors import AudioError, reason
from spaudio.io.journal import JsonLines
from spaudio.io.progress import progress_bar
from spaudio.io.spread import spread
from spaudio.io.state import FileState

# A journal that was written with other rules is not read.
_RULES = {
    "version": 6,
    "libsndfile": soundfile.__libsndfile_version__,
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

    def compute(self, waveform: Waveform) -> Any:
        """Computes what `add` keeps of a clip, in the process that decodes it."""

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
        samples: Hash of the decoded samples and their rate, whatever the container. None for a
            silent clip, as all silence is alike.
        loud: Whether the peak is above `MAX_ARRAY_AMPLITUDE`, as of integers that were cast.
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
    rules = {**_RULES, "root": os.fspath(root), "silent_ok": silent_ok}
    lines = JsonLines(journal, rules)
    known: dict[str, Finding] = {}
    end = 0
    for record, after in lines.read():
        state = FileState(*record.pop("state"))
        known[record["path"]], end = Finding(state=state, **record), after
    findings: dict[str, Finding] = {}
    rest: list[_Job] = []
    with ExitStack() as stack:
        for store in stores:
            stack.enter_context(store.writing())
        selected = [(store, {clip.path for clip in store.select(clips)}) for store in stores]
        for path in (clip.path for clip in clips):
            file = root / path
            try:
                status = file.stat()
            except (OSError, ValueError):
                # `decode` reports what is wrong: missing, a loop of links, a bad name.
                findings[path], _ = check(_Job(path, None, ()))
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
        for job, (finding, computed) in zip(rest, results, strict=True):
            file = root / job.path
            for number, value in computed.items():
                assert job.status is not None  # a file that cannot be found goes to no store
                stores[number].add(file, job.status, value)
            if finding.state is not None and known.get(finding.path) != finding:
                lines.append(vars(finding))
            findings[finding.path] = finding
            advance(1)
    return findings


@dataclass(frozen=True)
class _Job:
    """A file to check, its state, and the numbers of the stores that lack it."""

    path: str
    status: os.stat_result | None
    wanting: Sequence[int]


@dataclass(frozen=True)
class _Check:
    """Decodes and checks files, and computes what stores keep of them."""

    root: Path
    silent_ok: bool
    stores: Sequence[ClipStore]

    def __call__(self, job: _Job) -> tuple[Finding, dict[int, Any]]:
        """Returns the finding, and what each store that lacks the file computes of it."""
        path, file = job.path, self.root / job.path
        state = FileState.of(job.status) if job.status else None
        stores = {number: self.stores[number] for number in job.wanting}
        rates = {store.sample_rate for store in stores.values()}
        try:
            waveform, rate = decode(file, silent_ok=self.silent_ok)
        except AudioError as error:
            found = Finding(path, None if is_passing(error) else state, reason=reason(error, file))
            return found, {}
        try:
            waveforms = {wanted: resample(waveform, rate, wanted, file) for wanted in rates}
            computed = {n: one.compute(waveforms[one.sample_rate]) for n, one in stores.items()}
        except AudioError as error:  # too short for this rate, or too loud for this front-end
            return Finding(path, None, reason=reason(error, file)), {}
        samples = None
        if not is_silent(waveform):
            samples = hash_samples(waveform, b"%d" % rate)
        seconds = round(len(waveform) / rate, 6)
        loud = bool(np.abs(waveform).max() > MAX_ARRAY_AMPLITUDE)
        return Finding(path, state, seconds, rate, samples=samples, loud=loud), computed
