"""Prepares a data set: checks every clip, then writes a manifest and the marker of completion.

A preparation is kept in ``<folder>/<name>/<key>/``, where the key is a hash of name and options. It
holds ``journal.jsonl`` (see `spaudio.audio.scan`), ``manifest.jsonl``, ``bad_clips.txt`` if there
are any, and ``prepared.json``, which is written last: without it the preparation is not finished.
Downloads, unpacked archives and renderings are in the folder ``work`` beside ``<key>``, which all
options share.
"""

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spaudio.audio.manifest import (
    Clip,
    SourceClip,
    class_names,
    manifest_hash,
    read_manifest,
    write_manifest,
)
from spaudio.audio.scan import ClipStore, Finding, scan_clips
from spaudio.errors import DataError
from spaudio.io.atomic import write_atomic
from spaudio.io.lock import locked

_LISTED = 20  # bad clips in an error's message; bad_clips.txt lists all
MANIFEST, MARKER = "manifest.jsonl", "prepared.json"


@dataclass(frozen=True)
class SourceClips:
    """What a data set's script finds.

    Attributes:
        root: Folder to which the clips' paths are relative.
        clips: The files, in any order.
        labels: Known labels in their natural order; a clip with another label is bad. None takes
            the labels that occur, sorted.
        multi_label: A clip may have several classes; its label joins them (see `Clip`).
        silent_ok: Silent clips are not bad.
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
        labels: Labels that occur, in their natural order if there is one, else sorted.
        hash: SHA-256 of the manifest.
        skipped: Clips left out with ``skip_bad``, each with its reason.
        seconds: Duration of the call.
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
    stores: Sequence[ClipStore] = (),
    progress: bool = True,
) -> Prepared:
    """Lists a data set's clips, decodes each once to check it, and writes the manifest.

    Called again with the same options it lists the clips again but decodes only those that are new,
    that a store lacks, or whose size or modification time has changed. After an interruption it
    decodes the rest.

    Args:
        name: Name of the data set.
        source_clips: Lists the clips, given a folder to download, unpack or render into. It is
            called each time, so it must be fast once that is done.
        folder: Where preparations are kept.
        options: Everything that changes which clips are listed; must be JSON-serialisable.
        min_seconds: Shorter clips are bad.
        skip_bad: Leave bad clips out and list them in ``prepared.json``, instead of stopping.
        workers: Threads that decode.
        stores: Receive the waveforms, for example to cache features. Clips that a store lacks are
            decoded again.
        progress: Show a bar.

    Raises:
        AudioError: If a clip is too short to be resampled for a store.
        DataError: If clips are bad (``bad_clips.txt`` lists all with their reasons), none are left,
            a label has no clip to train on, or the manifest was changed after it was written.
    """
    start = time.perf_counter()
    home = Path(folder) / name
    target = home / _key(name, options)
    with locked(home / "lock"):
        source = source_clips(home / "work")
        listed = _listing(name, source)
        findings = scan_clips(
            listed,
            source.root,
            target / "journal.jsonl",
            stores=stores,
            silent_ok=source.silent_ok,
            workers=workers,
            progress=progress,
            on_new=lambda: (target / MARKER).unlink(missing_ok=True),
        )
        clips, bad = _judge(listed, findings, source, min_seconds)
        _report_bad(target, bad, len(listed), skip_bad)
        prepared = Prepared(
            root=source.root,
            manifest=target / MANIFEST,
            clips=tuple(clips),
            labels=_labels(name, clips, source),
            hash=manifest_hash(clips),
            skipped=tuple(bad),
            seconds=time.perf_counter() - start,
            multi_label=source.multi_label,
        )
        _finish(prepared, name, options)
    return prepared


def _key(name: str, options: Mapping[str, Any]) -> str:
    try:
        text = json.dumps([name, dict(options)], sort_keys=True)
    except TypeError as error:
        raise DataError(f"{name}: options cannot be written as JSON ({error})") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _listing(name: str, source: SourceClips) -> list[SourceClip]:
    listed = sorted(source.clips, key=lambda clip: clip.path)
    if not listed:
        raise DataError(f"{name}: no clips found in {source.root}; check source=")
    if repeated := [a.path for a, b in pairwise(listed) if a.path == b.path]:
        raise DataError(f"{name}: clip {repeated[0]!r} is listed twice")
    return listed


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
            seconds, rate = found.seconds, found.sample_rate
            clips.append(
                Clip(clip.path, clip.label, clip.split, clip.group, seconds, rate, clip.fold)
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
        f"{len(bad)} of {total} clips cannot be used (all are listed in {file}); repair or "
        f"remove them, or leave them out with skip_bad=true:\n  {shown}{more}"
    )


def _labels(name: str, clips: Sequence[Clip], source: SourceClips) -> tuple[str, ...]:
    if not clips:
        raise DataError(f"{name}: every clip is bad; nothing is left to train on")
    present, trained = set[str](), set[str]()
    for clip in clips:
        names = class_names(clip.label, source.multi_label)
        present.update(names)
        trained.update(names if clip.split == "train" else ())
    if lacking := sorted(present - trained):
        raise DataError(
            f"{name}: label {lacking[0]!r} has no clip in the training split; add some, or "
            "change the split's settings"
        )
    known = source.labels
    return tuple(sorted(present) if known is None else [k for k in known if k in present])


def _finish(prepared: Prepared, name: str, options: Mapping[str, Any]) -> None:
    """Writes the manifest and then the marker, unless both are there already."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in prepared.clips:
        counts[clip.split].update(class_names(clip.label, prepared.multi_label))
    record: dict[str, Any] = {
        "name": name,
        "options": dict(options),
        "root": os.fspath(prepared.root),
        "labels": prepared.labels,
        "manifest_sha256": prepared.hash,
        "counts": counts,
        "skipped": [{"path": path, "reason": reason} for path, reason in prepared.skipped],
        "multi_label": prepared.multi_label,
    }
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    manifest = prepared.manifest
    marker = manifest.with_name(MARKER)
    standing = marker.read_text(encoding="utf-8") if marker.is_file() else None
    if standing is not None:
        known = json.loads(standing)["manifest_sha256"]
        if manifest_hash(read_manifest(manifest)) != known:
            raise DataError(
                f"{manifest} does not match {marker.name}: it was changed after the preparation; "
                f"delete {manifest.parent} to prepare again"
            )
    if standing != text:
        marker.unlink(missing_ok=True)
        write_manifest(manifest, prepared.clips)
        write_atomic(marker, text.encode())
