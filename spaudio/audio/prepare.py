"""Prepares a dataset: checks every clip, then writes a manifest and a completion marker.

A preparation is kept in ``<folder>/<name>/<key>/``, where the key is a hash of name and options. It
holds ``journal.jsonl`` (see `spaudio.audio.scan`), ``manifest.jsonl``, ``bad_clips.txt`` and
``duplicates.txt`` if there are any, and ``prepared.json``, which is written last: without it the
preparation is not finished. Downloads, unpacked archives and renderings are in the folder ``work``
beside ``<key>``, which all options share and whose files are never taken as those of a source.
"""

import hashlib
import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from spaudio.audio.decode import MAX_ARRAY_AMPLITUDE
from spaudio.audio.duplicates import check_choice, check_duplicates, find_duplicates
from spaudio.audio.find import NOT_A_SOURCE
from spaudio.audio.manifest import (
    Clip,
    SourceClip,
    class_names,
    encode_manifest,
    manifest_hash,
    read_manifest,
)
from spaudio.audio.scan import ClipStore, Finding, scan_clips
from spaudio.errors import DataError, counted, some
from spaudio.io.atomic import write_atomic
from spaudio.io.full_disk import named_full_disk
from spaudio.io.lock import locked
from spaudio.io.paths import refuse_empty_source

_SHORT = 0.02  # seconds; less than an analysis window
_LISTED = 20  # bad clips in an error's message; bad_clips.txt lists all
MANIFEST, MARKER = "manifest.jsonl", "prepared.json"


@dataclass(frozen=True)
class SourceClips:
    """The clips that a dataset's script finds.

    Attributes:
        root: Folder to which the clips' paths are relative.
        clips: The files, in any order.
        labels: Known labels in their natural order; a clip with another label is bad. None takes
            the labels that occur, sorted.
        multi_label: Whether a clip may have several classes; its label joins them (see `Clip`).
        silent_ok: If true, silent clips are accepted.
        warnings: What the user should know about the clips, one sentence each.
        unused: Names of the options that had no effect.
        bad: Recordings that clips are cut from but that cannot be used, each with the reason. Clips
            whose folder has the path of such a recording are left out with it.
        overlaps: Pairs of paths of clips that share a part of a recording.
    """

    root: Path
    clips: Iterable[SourceClip]
    labels: Sequence[str] | None = None
    multi_label: bool = False
    silent_ok: bool = False
    warnings: Sequence[str] = ()
    unused: Sequence[str] = ()
    bad: Mapping[str, str] = field(default_factory=dict)
    overlaps: Sequence[tuple[str, str]] = ()


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
        multi_label: Whether a clip may have several classes.
        silent_ok: Whether silent clips are accepted.
        duplicates: Paths of clips with the same samples, group by group.
        overlaps: Pairs of paths of clips that share a part of a recording.
        samples_hash: SHA-256 of the clips' decoded samples, which the manifest does not hold.
        warnings: What the user should know, one sentence each.
        unused: Names of the options that had no effect.
    """

    root: Path
    manifest: Path
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    hash: str
    skipped: tuple[tuple[str, str], ...]
    multi_label: bool = False
    silent_ok: bool = False
    duplicates: tuple[tuple[str, ...], ...] = ()
    overlaps: tuple[tuple[str, str], ...] = ()
    samples_hash: str = ""
    warnings: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def labels_hash(self) -> str:
        """SHA-256 of the clips' labels, in the order of `samples_hash`, whatever their splits."""
        return _hash([clip.label for clip in self.clips])

    @property
    def splits_hash(self) -> str:
        """SHA-256 of the clips' splits, in the same order."""
        return _hash([clip.split for clip in self.clips])


def prepare(
    name: str,
    source_clips: Callable[[Path], SourceClips],
    *,
    folder: Path,
    options: Mapping[str, Any],
    skip_bad: bool = False,
    duplicates: str = "refuse",
    workers: int = 1,
    stores: Sequence[ClipStore] = (),
    progress: bool = True,
) -> Prepared:
    """Lists a dataset's clips, decodes each once to check it, and writes the manifest.

    Called again with the same options, it lists the clips again but decodes only those that are
    new, that a store lacks, or whose file state (`spaudio.io.state.FileState`) has changed. After
    an interruption it decodes the rest. If the manifest has changed, the previous one is kept as
    ``manifest-<hash>.jsonl``.

    Args:
        name: Name of the dataset.
        source_clips: Lists the clips, given a folder to download, unpack or render into. It is
            called each time, so it must be fast once that is done.
        folder: Where preparations are kept.
        options: Everything that changes which clips are listed; must be JSON-serialisable.
        skip_bad: Leave bad clips out and list them in ``prepared.json``, instead of stopping.
        duplicates: ``"refuse"`` refuses the same audio under different labels or in different
            splits or folds, and overlapping clips in different splits; ``"allow"`` only warns.
        workers: Processes that decode and compute what the stores keep.
        stores: Receive the waveforms, for example to cache features. Clips that a store lacks are
            decoded again.
        progress: Whether to show a progress bar.

    Returns:
        The checked clips, their labels, the hash of the manifest, and what was left out.

    Raises:
        ConfigError: If ``duplicates`` is unknown, or an option ``source`` is empty.
        DataError: If clips are bad (``bad_clips.txt`` lists all with their reasons), none are left,
            a label has no clip to train on, duplicates are refused, the manifest was changed after
            it was written, or the disk is full.
    """
    check_choice(duplicates)
    refuse_empty_source(options.get("source"))
    home = Path(folder) / name
    target = home / _key(name, options)
    waiting = f"waiting for another process that prepares data in {home}"
    # Hidden: the folder may be in one of sounds, of which other files are counted.
    with named_full_disk(folder, "data"), locked(home / ".lock", waiting):
        work = home.absolute() / "work"  # so that calls from other folders find the same root
        work.mkdir(parents=True, exist_ok=True)
        (work / NOT_A_SOURCE).touch()
        source = source_clips(work)
        try:
            listed = _listing(name, source)
            cut = [c for c in listed if c.folder not in source.bad]
            findings = scan_clips(
                cut,
                source.root,
                target / "journal.jsonl",
                stores=stores,
                silent_ok=source.silent_ok,
                workers=workers,
                progress=progress,
                on_new=lambda: (target / MARKER).unlink(missing_ok=True),
            )
            clips, bad = _judge(cut, findings, source)
            _report_bad(target, bad, source.bad, len(cut), skip_bad)
            skipped = [(c.path, source.bad[c.folder]) for c in listed if c.folder in source.bad]
            groups = find_duplicates(clips, findings)
            paths = {clip.path for clip in clips}
            overlaps = [pair for pair in source.overlaps if paths.issuperset(pair)]
            notes = _notes(source, listed, clips, findings)
            notes += check_duplicates(
                clips, groups, overlaps, duplicates, target / "duplicates.txt"
            )
            content = encode_manifest(clips)
            prepared = Prepared(
                root=source.root,
                manifest=target / MANIFEST,
                clips=tuple(clips),
                labels=_labels(name, clips, source),
                hash=hashlib.sha256(content).hexdigest(),
                skipped=(*skipped, *bad),
                multi_label=source.multi_label,
                silent_ok=source.silent_ok,
                duplicates=tuple(groups),
                overlaps=tuple(overlaps),
                samples_hash=_hash([findings[clip.path].samples for clip in clips]),
                warnings=tuple(notes),
                unused=tuple(source.unused),
            )
        except DataError:  # its clips can no longer be used
            (target / MARKER).unlink(missing_ok=True)
            raise
        _finish(prepared, content, name, options)
    return prepared


def _key(name: str, options: Mapping[str, Any]) -> str:
    try:
        text = json.dumps([name, dict(options)], sort_keys=True)
    except TypeError as error:
        raise DataError(f"{name}: options cannot be written as JSON ({error})") from error
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _hash(values: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


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
        else:
            seconds, rate = found.seconds, found.sample_rate
            clips.append(
                Clip(clip.path, clip.label, clip.split, clip.group, seconds, rate, clip.fold)
            )
    return clips, bad


def _report_bad(
    target: Path,
    clips: Sequence[tuple[str, str]],
    recordings: Mapping[str, str],
    checked: int,
    skip_bad: bool,
) -> None:
    """Lists what cannot be used.

    Args:
        target: Folder of the preparation.
        clips: Paths of bad clips, each with the reason.
        recordings: Recordings that clips are cut from and that cannot be used, with the reasons.
        checked: Number of clips that were checked.
        skip_bad: Whether they are left out.

    Raises:
        DataError: If there are any, unless they are left out.
    """
    file = target / "bad_clips.txt"
    bad = [*sorted(recordings.items()), *clips]
    if not bad:
        file.unlink(missing_ok=True)
        return
    lines = [f"{path}: {reason}" for path, reason in bad]
    write_atomic(file, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    if skip_bad:
        return
    shown = "\n  ".join(lines[:_LISTED])
    more = f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    kind = "clips or recordings" if recordings else "clips"
    raise DataError(
        f"{len(bad)} of {checked + len(recordings)} {kind} cannot be used (all are listed in "
        f"{file}); repair or remove them, or leave them out with skip_bad=true:\n  {shown}{more}"
    )


def _labels(name: str, clips: Sequence[Clip], source: SourceClips) -> tuple[str, ...]:
    if not clips:
        raise DataError(
            f"{name}: every clip is bad, so nothing is left to train on; repair those that "
            "bad_clips.txt lists"
        )
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


def _notes(
    source: SourceClips,
    listed: Sequence[SourceClip],
    clips: Sequence[Clip],
    findings: Mapping[str, Finding],
) -> list[str]:
    """Returns sentences about what the user should know of the clips, except for duplicates."""
    notes = [*source.warnings, *_lost(listed, clips, source.multi_label)]
    if loud := sum(findings[clip.path].loud for clip in clips):
        trap = ", so a model may tell them apart by this" if loud < len(clips) else ""
        notes.append(
            f"{loud} of {len(clips)} clips have peaks above {MAX_ARRAY_AMPLITUDE:g} (1 is full "
            f"scale), as if integers had been stored as floating-point samples{trap}"
        )
    if short := sorted((clip.seconds, clip.path) for clip in clips if clip.seconds < _SHORT):
        notes.append(
            f"{len(short)} of {len(clips)} clips are shorter than {_SHORT * 1000:g} ms (the "
            f"shortest: {short[0][1]}, {short[0][0] * 1000:.3g} ms); listen to them, as they may "
            "be remains of a wrong cut"
        )
    if unused := sorted(source.bad.keys() - {clip.folder for clip in listed}):
        notes.append(f"cannot be used: {counted(len(unused), 'recording')}: {some(unused)}")
    return notes


_VALID = "the valid split"


def _lost(listed: Sequence[SourceClip], clips: Sequence[Clip], multi_label: bool) -> list[str]:
    """Names the classes that have lost all clips of a split or fold because they were bad."""

    def count(found: Iterable[SourceClip | Clip]) -> Counter[tuple[str, str]]:
        return Counter(
            (name, f"the {clip.split} split" if clip.fold is None else f"fold {clip.fold}")
            for clip in found
            for name in class_names(clip.label, multi_label)
        )

    before, left = count(listed), count(clips)
    gone = {where for _, where in before} - {where for _, where in left}
    notes = [
        f"class {name!r} has no clip in {where}: "
        f"{f'all {number} are' if number > 1 else 'its only one is'} bad and left out"
        for (name, where), number in sorted(before.items())
        if not left[name, where] and not (where == _VALID and where in gone)
    ]
    if _VALID in gone:
        instead = "" if multi_label else "; training clips are held out instead"
        notes.append(f"all clips of {_VALID} are bad{instead}")
    return notes


def _finish(prepared: Prepared, content: bytes, name: str, options: Mapping[str, Any]) -> None:
    """Writes the manifest and then the marker, unless both are there already.

    Args:
        prepared: The preparation.
        content: Content of its manifest.
        name: Name of the dataset.
        options: Options of the preparation.

    Raises:
        DataError: If the manifest is not as the earlier preparation wrote it.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in prepared.clips:
        counts[clip.split].update(class_names(clip.label, prepared.multi_label))
    record: dict[str, Any] = {
        "name": name,
        "options": dict(options),
        "root": os.fspath(prepared.root),
        "labels": prepared.labels,
        "manifest_sha256": prepared.hash,
        "clips": len(prepared.clips),
        "counts": counts,
        "skipped": [{"path": path, "reason": reason} for path, reason in prepared.skipped],
        "multi_label": prepared.multi_label,
        "duplicates": prepared.duplicates,
        "warnings": prepared.warnings,
    }
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    manifest = prepared.manifest
    marker = manifest.with_name(MARKER)
    standing = _standing(marker)
    held = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None
    if standing is not None and held not in (None, standing["manifest_sha256"]):
        try:
            found = manifest_hash(read_manifest(manifest))
        except DataError:
            warnings.warn(f"{manifest} is damaged; it is rewritten", stacklevel=2)
            standing = None
        else:
            if found != standing["manifest_sha256"]:
                raise DataError(
                    f"{manifest} does not match {marker.name}: it was changed after the "
                    f"preparation; delete {manifest.parent} to prepare again"
                )
    if standing != json.loads(text) or held is None:
        marker.unlink(missing_ok=True)
        if held is not None and held != prepared.hash:
            os.replace(manifest, previous_manifest(manifest, held))
        write_atomic(manifest, content)
        write_atomic(marker, text.encode())


def previous_manifest(manifest: Path, sha256: str) -> Path:
    """Returns where a manifest is kept after another one has replaced it."""
    return manifest.with_name(f"manifest-{sha256[:16]}.jsonl")


def _standing(marker: Path) -> dict[str, Any] | None:
    """Reads the marker of an earlier preparation; a damaged one counts as missing."""
    try:
        standing = json.loads(marker.read_text(encoding="utf-8"))
        if isinstance(standing["manifest_sha256"], str):
            return dict(standing)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, TypeError, KeyError):
        pass
    warnings.warn(f"{marker} is damaged; it is rewritten", stacklevel=2)
    return None
