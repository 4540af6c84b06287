"""Manifest: one JSON object per clip and line (path, label, split, group, seconds, rate, fold)."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from spaudio.errors import DataError
from spaudio.io.atomic import write_atomic

SPLITS = ("train", "valid", "test")
#: Names of splits, in folders and tables.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
#: Separates the class names of a clip with several; class names must then not contain it.
LABEL_SEPARATOR = ","
_MOST = 1e9  # JSON numbers may have any length, but readers of a manifest may be limited


@dataclass(frozen=True)
class SourceClip:
    """A file that a dataset lists, not yet checked; fields as in `Clip`."""

    path: str
    label: str
    split: str
    group: str
    fold: int | None = None

    @property
    def folder(self) -> str:
        """Path of its folder: that of its recording, if it is cut from one."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True)
class Clip:
    """One checked audio file.

    Attributes:
        path: POSIX path relative to the dataset's audio root, so that a manifest does not depend
            on where the data are.
        label: Class name; in a multi-label dataset all names, joined by `LABEL_SEPARATOR`.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        group: Speaker, instrument or recording. Splits by group keep it in one split; official
            splits and ``validation.by=clip`` may not.
        seconds: Duration of the decoded audio.
        sample_rate: Rate of the file in Hz.
        fold: Official cross-validation fold, or None.

    Raises:
        DataError: If a field has the wrong type or a value out of range.
    """

    path: str
    label: str
    split: str
    group: str
    seconds: float
    sample_rate: int
    fold: int | None = None

    def __post_init__(self) -> None:
        for field in ("path", "label", "split", "group"):
            value = getattr(self, field)
            if not isinstance(value, str) or not value:
                raise DataError(f"field {field!r} is {value!r}; expected a non-empty string")
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts or not _is_filename(self.path):
            raise DataError(
                f"field 'path' is {self.path!r}; expected a path relative to the audio root, "
                "with forward slashes and without '..'; rename a file whose name holds a backslash"
            )
        if self.split not in SPLITS:
            raise DataError(f"field 'split' is {self.split!r}; expected one of {', '.join(SPLITS)}")
        if not _is_number(self.seconds, int, float) or not 0 < self.seconds < _MOST:
            raise DataError(f"field 'seconds' is {self.seconds!r}; expected a positive number")
        if not _is_number(self.sample_rate, int) or not 0 < self.sample_rate < _MOST:
            raise DataError(
                f"field 'sample_rate' is {self.sample_rate!r}; expected a positive integer (Hz)"
            )
        if self.fold is not None and not (_is_number(self.fold, int) and abs(self.fold) < _MOST):
            raise DataError(f"field 'fold' is {self.fold!r}; expected an integer or null")


AnyClip = TypeVar("AnyClip", Clip, SourceClip)


def class_names(label: str, multi_label: bool) -> list[str]:
    """Returns the classes that a clip's label names; blanks around separators do not count."""
    return [name.strip() for name in label.split(LABEL_SEPARATOR)] if multi_label else [label]


_FIELDS = tuple(field.name for field in dataclasses.fields(Clip))
_REQUIRED = tuple(f.name for f in dataclasses.fields(Clip) if f.default is dataclasses.MISSING)


def is_nothing(label: str) -> bool:
    """Whether a class means the absence of all others: its name is between underscores."""
    return len(label) > 2 and label.startswith("_") and label.endswith("_")


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> None:
    """Writes ``clips`` as JSON lines with sorted keys; the file appears whole or not at all."""
    write_atomic(Path(path), encode_manifest(clips))


def manifest_hash(clips: Iterable[Clip]) -> str:
    """Returns the SHA-256 (hex) of the manifest file that `write_manifest` writes."""
    return hashlib.sha256(encode_manifest(clips)).hexdigest()


def encode_manifest(clips: Iterable[Clip]) -> bytes:
    """Returns the content of the manifest file that `write_manifest` writes."""
    # `dataclasses.asdict` would copy every value, which takes longer than the rest.
    lines = (json.dumps(vars(clip), sort_keys=True) + "\n" for clip in clips)
    return "".join(lines).encode("ascii")


def read_manifest(path: str | os.PathLike[str]) -> list[Clip]:
    """Reads a manifest.

    Args:
        path: JSON-lines file, as `write_manifest` writes it.

    Returns:
        The clips, in the order of the lines.

    Raises:
        DataError: If the file is missing or a line is not a valid clip; the message names file,
            line, field and remedy.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: manifest cannot be read ({error}); prepare the dataset again"
        ) from error
    clips: list[Clip] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            clip = _decode(line)
            if before := first_line.get(clip.path):
                raise DataError(f"field 'path' repeats {clip.path!r} of line {before}")
        except DataError as error:
            raise DataError(
                f"{path}, line {number}: {error}; correct the line or prepare the dataset again"
            ) from error
        first_line[clip.path] = number
        clips.append(clip)
    return clips


def _decode(line: str) -> Clip:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # also for huge numbers and deep nesting
        raise DataError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, got {type(record).__name__}")
    if missing := [field for field in _REQUIRED if field not in record]:
        raise DataError(f"field {missing[0]!r} is missing")
    if unknown := sorted(set(record) - set(_FIELDS)):
        raise DataError(f"field {unknown[0]!r} is unknown (known: {', '.join(_FIELDS)})")
    return Clip(**record)


def _is_filename(path: str) -> bool:
    """Whether every system allows a file with that name."""
    try:
        return not set(b"\0\\") & set(os.fsencode(path))
    except UnicodeEncodeError:
        return False


def _is_number(value: object, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
