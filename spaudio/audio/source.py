"""Opens what ``source=`` names: one archive or folder, or several that make up one dataset."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spaudio.audio.manifest import SourceClip
from spaudio.errors import ConfigError, DataError
from spaudio.io.atomic import make_folder
from spaudio.io.csv_files import read_rows
from spaudio.io.download import download
from spaudio.io.state import FileState
from spaudio.io.unpack import open_source, unpack


def find_root(source: str | Path | None, work: Path, inside: str, where: str) -> Path:
    """Opens a source and returns the folder in it that holds ``inside``, at most two levels down.

    Args:
        source: Archive or folder; None is an error, for datasets that cannot be downloaded.
        work: Folder to unpack an archive into.
        inside: File or folder that upstream's layout has at its top.
        where: Where to get the dataset, for the error message.

    Raises:
        ConfigError: If ``source`` is None.
        DataError: If nothing in it holds ``inside``, or for the reasons of `open_source`.
    """
    if source is None:
        raise ConfigError(f"source= is required, an archive or folder: {where}")
    folder = open_source(source, work)
    for root in (folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))):
        if (root / inside).exists():
            return root
    raise DataError(f"source={str(source)!r} holds no {inside}; {where}")


def read_table(file: Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Reads a CSV file of a published dataset.

    Args:
        file: The file.
        columns: Names of its columns; if empty, the first line names them.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        return read_rows(file, columns, remedy="fetch it again")
    except ValueError as error:
        raise DataError(f"{file}: cannot be read ({error}); fetch it again") from error


def folds_of_table(
    rows: Sequence[Mapping[str, str]], *, path: str, label: str, number: str, group: str
) -> tuple[list[SourceClip], list[str]]:
    """Lists the clips of a table whose column ``fold`` holds the official folds.

    Args:
        rows: From `read_table`.
        path: Path of a clip, with columns in braces, such as ``"audio/{filename}"``.
        label: Column of the class name.
        number: Column of the class number.
        group: Column of the recording that the clip was cut from.

    Returns:
        The clips; and the class names, in the order of their numbers.

    Raises:
        DataError: If a column is missing, or a number is not valid.
    """
    try:
        clips = [
            SourceClip(path.format_map(row), row[label], "train", row[group], int(row["fold"]))
            for row in rows
        ]
        labels = {int(row[number]): row[label] for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the dataset's table is damaged ({error!r}); fetch it again") from error
    return clips, [labels[place] for place in sorted(labels)]


@dataclass(frozen=True)
class Archive:
    """One of the archives in which a dataset is published.

    Attributes:
        name: Name of its part of the dataset, in the paths of the clips.
        files: URL of each file, and its SHA-256 or MD5 in hex (None if none is published). The
            last one is the archive; others are pieces that belong to it.
        folder: Folder that the archive unpacks to; empty if it has none.
        marker: A file or folder in it that no other archive has; empty if ``folder`` is unique.
        open_zip: Opens the archive if it is not a plain file; see `unpack`.
    """

    name: str
    files: Mapping[str, str | None]
    folder: str = ""
    marker: str = ""
    open_zip: Callable[[Path], zipfile.ZipFile] = zipfile.ZipFile

    @property
    def file_names(self) -> list[str]:
        """Names of the files to fetch."""
        return [url.rsplit("/", 1)[1] for url in self.files]


def open_parts(parts: Sequence[Archive], work: Path, source: str | None) -> dict[str, Path]:
    """Downloads the parts of a dataset, or finds them in ``source``.

    Args:
        parts: The archives of the parts that are needed.
        work: Folder to download and unpack into.
        source: An archive, or a folder that holds the parts' folders or published archives, at its
            top or one level below. None downloads.

    Returns:
        Folder of each part, by its name.

    Raises:
        ConfigError: If ``source`` is None and a part has no checksum.
        DataError: If parts are missing in ``source`` (all are named), or for the reasons of
            `download` and `unpack`.
    """
    if source is None:
        unsure = [url for part in parts for url, checksum in part.files.items() if not checksum]
        if unsure:
            raise ConfigError(
                "source= is required: no checksum of the dataset is published, so it is not "
                "downloaded unchecked; fetch these into one folder and give source=FOLDER: "
                + " ".join(unsure)
            )
        for part in parts:
            for (url, checksum), name in zip(part.files.items(), part.file_names, strict=True):
                download(url, work / "archives" / name, checksum)
    base = open_source(work / "archives" if source is None else source, work)
    found = {part.name: folder for part in parts if (folder := _find(part, base, work))}
    if missing := [part for part in parts if part.name not in found]:
        lines = [
            f"{part.name}: no {'/'.join(filter(None, (part.folder, part.marker)))}, nor all of "
            f"its archives: {' '.join(part.files)}"
            for part in missing
        ]
        raise DataError(
            f"source={source}: {len(missing)} of {len(parts)} parts of the dataset are missing; "
            "put them there:\n  " + "\n  ".join(lines)
        )
    return found


def link_parts(parts: Mapping[str, Path], work: Path) -> Path:
    """Joins folders, by name, under one root, so that paths do not depend on where each of them is.

    Returns:
        A folder in ``work`` with one link per part.
    """
    targets = {name: os.fspath(folder.resolve()) for name, folder in parts.items()}
    key = hashlib.sha256(os.fsencode(repr(sorted(targets.items())))).hexdigest()[:12]

    def fill(root: Path) -> None:
        for name, target in targets.items():
            (root / name).symlink_to(target, target_is_directory=True)

    return make_folder(work / f"parts-{key}", fill)


def _find(archive: Archive, base: Path, work: Path) -> Path | None:
    if found := _folder_of(archive, base):
        return found
    files = [base / name for name in archive.file_names]
    if not all(path.is_file() for path in files):
        return None
    identity = f"{base}\n{archive.file_names}\n{[FileState.of(path.stat()) for path in files]}"
    key = hashlib.sha256(os.fsencode(identity)).hexdigest()[:12]
    target = work / f"unpacked-{key}"
    return _folder_of(archive, unpack(files[-1], target, open_zip=archive.open_zip))


def _folder_of(archive: Archive, base: Path) -> Path | None:
    """Returns the folder of an archive: ``base``, a folder in it, or one a level below that."""
    tops = [base, *sorted(path for path in base.iterdir() if path.is_dir())]
    folders = [base] * (base.name == archive.folder) + [top / archive.folder for top in tops]
    return next((f for f in folders if f.is_dir() and (f / archive.marker).exists()), None)
