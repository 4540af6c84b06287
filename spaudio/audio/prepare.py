"""Prepares a data set: checks every clip, then writes a manifest and the marker of completion.

A preparation lives in ``<folder>/<name>/<key>/``, the key being a hash of name and options:
``journal.jsonl`` (see `spaudio.audio.journal`), ``manifest.jsonl``, ``bad_clips.txt`` if there are
any, and, written last, ``prepared.json``. Without that marker nothing is finished.
The folder ``work`` beside ``<key>`` is where downloads, unpacked archives and renderings lie; all
options share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from spaudio.audio.decode import decode
from spaudio.audio.journal import Finding, Journal
from spaudio.audio.manifest import Clip, class_names, manifest_hash
from spaudio.audio.marker import MANIFEST, MARKER, describe, finish
from spaudio.errors import AudioError, DataError
from spaudio.io.atomic import write_atomic
from spaudio.io.lock import locked
from spaudio.io.progress import progress_bar

_LISTED = 20  # bad clips named in an error's message; the file beside it names all
_QUEUED = 4096  # clips handed to the threads at a time, so that a large data set stays small here


@dataclass(frozen=True)
class SourceClip:
    """A file that a data set lists, not yet checked; fields as in `spaudio.audio.Clip`."""

    path: str
    label: str
    split: str
    group: str
    fold: int | None = None


@dataclass(frozen=True)
class SourceClips:
    """What a data set's own script finds.

    Attributes:
        root: Folder to which the clips' paths are relative.
        clips: The files, in any order.
        labels: Known labels in their natural order; a clip with another one is bad. None takes
            the labels as they come, sorted.
        multi_label: A clip may have several classes; its label joins them (see `Clip`).
        silent_ok: Silence is a sound of this data set, so that a silent clip is not a bad one.
    """

    root: Path
    clips: Iterable[SourceClip]
    labels: Sequence[str] | None = None
    multi_label: bool = False
    silent_ok: bool = False


@dataclass(frozen=True)
class Prepared:
    """A finished preparation.

    Attributes:
        root: Audio root of the clips' paths.
        manifest: Path of the JSON-lines manifest.
        clips: The checked clips, sorted by path.
        labels: Labels that occur, in natural order if the data set has one, else sorted.
        hash: SHA-256 of the manifest.
        skipped: Clips left out with ``skip_bad``, each with its reason.
        seconds: Duration of this call.
        multi_label: A clip may have several classes.
    """

    root: Path
    manifest: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    hash: str
    skipped: tuple[tuple[str, str], ...]
    seconds: float
    multi_label: bool = False


def prepare(
    name: str,
    source_clips: Callable[[Path], SourceClips],
    *,
    folder: Path,
    options: Mapping[str, Any],
    min_seconds: float = 0.0,
    skip_bad: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> Prepared:
    """Lists a data set's clips, checks every one by decoding it, and writes the manifest.

    Called again with the same options it lists the clips anew but decodes only those that are new
    or whose size or modification time has changed; after an interruption, only the rest.

    Args:
        name: Name of the data set.
        source_clips: Lists the clips, given a folder to download, unpack or render into. It is
            called each time, so it must be quick once its work is done.
        folder: Where preparations are kept.
        options: Whatever decides which clips are listed; must be JSON-serialisable.
        min_seconds: Shorter clips are bad.
        skip_bad: Leave bad clips out and list them in ``prepared.json``, instead of stopping.
        workers: Threads that decode.
        progress: Show a bar.

    Raises:
        DataError: If clips are bad (all are named with their reasons in ``bad_clips.txt``), none
            are left, a label has no clip to train on, or the manifest was changed after it was
            written.
    """
    start = time.perf_counter()
    home = Path(folder) / name
    target = home / _key(name, options)
    with locked(home / "lock"):
        source = source_clips(home / "work")
        listed = _listing(name, source)
        findings = _check(source, listed, target, workers, progress)
        clips, bad = _judge(listed, findings, source, min_seconds)
        _report_bad(target, bad, len(listed), skip_bad)
        labels = _labels(name, clips, source)
        record = describe(
            name, options, source.root, labels, clips, bad, multi_label=source.multi_label
        )
        finish(target, clips, record)
    return Prepared(
        root=source.root,
        manifest=target / MANIFEST,
        clips=tuple(clips),
        labels=labels,
        hash=manifest_hash(clips),
        skipped=tuple(bad),
        seconds=time.perf_counter() - start,
        multi_label=source.multi_label,
    )


def _key(name: str, options: Mapping[str, Any]) -> str:
    try:
        text = json.dumps([name, dict(options)], sort_keys=True)
    except TypeError as error:
        raise DataError(
            f"{name}: options {dict(options)!r} cannot be written as JSON ({error})"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _listing(name: str, source: SourceClips) -> list[SourceClip]:
    listed = sorted(source.clips, key=lambda clip: clip.path)
    if not listed:
        raise DataError(f"{name}: no clips found in {source.root}; check source=")
    repeated = [a.path for a, b in pairwise(listed) if a.path == b.path]
    if repeated:
        raise DataError(f"{name}: clip {repeated[0]!r} is listed twice")
    return listed


def _check(
    source: SourceClips, listed: Sequence[SourceClip], target: Path, workers: int, progress: bool
) -> dict[str, Finding]:
    """Decodes what the journal does not know yet; returns the findings by path."""
    root = source.root
    journal = Journal(target / "journal.jsonl", root)
    findings: dict[str, Finding] = {}
    rest: list[tuple[str, os.stat_result]] = []
    for clip in listed:
        try:
            status = (root / clip.path).stat()
        except (OSError, ValueError):
            # Decoding has the words for what is wrong: missing, a loop of links, a name.
            findings[clip.path] = _check_file(root, source.silent_ok, clip.path, None)
            continue
        if known := journal.get(clip.path, status):
            findings[clip.path] = known
        else:
            rest.append((clip.path, status))
    if not rest:
        return findings
    (target / MARKER).unlink(missing_ok=True)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        with (
            journal,
            progress_bar(
                "Checking clips", len(listed), done=len(listed) - len(rest), show=progress
            ) as advance,
        ):
            check = partial(_check_file, root, source.silent_ok)
            for start in range(0, len(rest), _QUEUED):
                queued = rest[start : start + _QUEUED]
                for finding in pool.map(check, *zip(*queued, strict=True)):
                    journal.add(finding)
                    findings[finding.path] = finding
                    advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return findings


def _check_file(root: Path, silent_ok: bool, path: str, status: os.stat_result | None) -> Finding:
    size, mtime_ns = (status.st_size, status.st_mtime_ns) if status else (0, 0)
    try:
        waveform, rate = decode(root / path, silent_ok=silent_ok)
    except AudioError as error:
        reason = str(error).removeprefix(f"{root / path}: ")
        return Finding(path, size, mtime_ns, reason=reason)
    return Finding(path, size, mtime_ns, round(len(waveform) / rate, 6), rate)


def _judge(
    listed: Sequence[SourceClip],
    findings: Mapping[str, Finding],
    source: SourceClips,
    min_seconds: float,
) -> tuple[list[Clip], list[tuple[str, str]]]:
    clips: list[Clip] = []
    bad: list[tuple[str, str]] = []
    for clip in listed:
        found = findings[clip.path]
        names = class_names(clip.label, source.multi_label)
        known = source.labels
        if known is not None and (unknown := [name for name in names if name not in known]):
            bad.append((clip.path, f"unknown label {unknown[0]!r}; known: {', '.join(known)}"))
        elif found.seconds is None or found.sample_rate is None:
            bad.append((clip.path, found.reason or "not checked"))
        elif found.seconds < min_seconds:
            bad.append((clip.path, f"{found.seconds:g} s long; at least {min_seconds:g} s needed"))
        else:
            clips.append(
                Clip(
                    path=clip.path,
                    label=clip.label,
                    split=clip.split,
                    group=clip.group,
                    seconds=found.seconds,
                    sample_rate=found.sample_rate,
                    fold=clip.fold,
                )
            )
    return clips, bad


def _report_bad(target: Path, bad: Sequence[tuple[str, str]], total: int, skip_bad: bool) -> None:
    file = target / "bad_clips.txt"
    if not bad:
        file.unlink(missing_ok=True)
        return
    lines = [f"{path}: {reason}" for path, reason in bad]
    write_atomic(file, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    if skip_bad:
        return
    (target / MARKER).unlink(missing_ok=True)
    shown = "\n  ".join(lines[:_LISTED])
    more = f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    raise DataError(
        f"{len(bad)} of {total} clips cannot be used (all are listed in {file}); mend or remove "
        f"them, or leave them out with skip_bad=true:\n  {shown}{more}"
    )


def _labels(name: str, clips: Sequence[Clip], source: SourceClips) -> tuple[str, ...]:
    if not clips:
        raise DataError(f"{name}: every clip is bad; nothing is left to train on")
    multi = source.multi_label
    named = {(c.split, label) for c in clips for label in class_names(c.label, multi)}
    present = {label for _, label in named}
    trained = {label for split, label in named if split == "train"}
    if lacking := sorted(present - trained):
        raise DataError(
            f"{name}: label {lacking[0]!r} has no clip in the training split; add some, or "
            "change the split's settings"
        )
    known = source.labels
    return tuple(sorted(present) if known is None else [k for k in known if k in present])
