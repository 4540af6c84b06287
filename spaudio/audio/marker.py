"""The marker of a finished preparation, ``prepared.json``: written after the manifest."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaudio.audio.manifest import Clip, class_names, manifest_hash, read_manifest, write_manifest
from spaudio.errors import DataError
from spaudio.io.atomic import write_atomic

MANIFEST, MARKER = "manifest.jsonl", "prepared.json"


def describe(
    name: str,
    options: Mapping[str, Any],
    root: Path,
    labels: Sequence[str],
    clips: Sequence[Clip],
    bad: Sequence[tuple[str, str]],
    multi_label: bool = False,
) -> dict[str, Any]:
    """Content of ``prepared.json``."""
    counts: dict[str, dict[str, int]] = {}
    named = ((c.split, name) for c in clips for name in class_names(c.label, multi_label))
    for (split, label), number in sorted(Counter(named).items()):
        counts.setdefault(split, {})[label] = number
    record: dict[str, Any] = {
        "name": name,
        "options": dict(options),
        "root": os.fspath(root),
        "labels": list(labels),
        "manifest_sha256": manifest_hash(clips),
        "counts": counts,
        "skipped": [{"path": path, "reason": reason} for path, reason in bad],
    }
    if multi_label:
        record["multi_label"] = True
    # As it will be read back, so that the two can be compared.
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def finish(target: Path, clips: Sequence[Clip], record: Mapping[str, Any]) -> None:
    """Writes manifest, then marker, unless both stand already."""
    marker, manifest = target / MARKER, target / MANIFEST
    try:
        standing = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        standing = None
    if standing is not None and manifest_hash(read_manifest(manifest)) != standing.get(
        "manifest_sha256"
    ):
        raise DataError(
            f"{manifest} is not the one that {marker.name} tells of: it was changed after the "
            f"preparation; delete {target} to prepare again"
        )
    if standing == record:
        return
    marker.unlink(missing_ok=True)
    write_manifest(manifest, clips)
    write_atomic(marker, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
