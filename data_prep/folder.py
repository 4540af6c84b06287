r"""Any folder with one sub-folder per class, in any format that `spaudio.audio` decodes.

    python data_prep/folder.py source=DIR [group_regex='^[^/]+/(\w+?)_'] [test_fraction=0.2]
    python data_prep/folder.py source=DIR table=metadata.csv
    python data_prep/folder.py source=RECORDINGS table=annotations.csv
    python data_prep/folder.py source=DIR labels=corrections.csv
    python data_prep/folder.py source=DIR background=RECORDINGS

``DIR/<class>/**/<clip>`` is split at random, by a seed;
``DIR/{train,valid,test}/<class>/**/<clip>`` keeps its split; a table gives the labels of clips that
are not in such folders. Hidden files and files that are not audio are skipped. A class folder from
which nothing is taken is reported.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.background import add_background
from spaudio.audio.command import main
from spaudio.audio.corrections import correct_labels
from spaudio.audio.find import (
    EXTENSIONS,
    NOT_A_SOURCE,
    audio_files,
    composed,
    is_audio,
    is_hidden,
    may_be_audio,
)
from spaudio.audio.intervals import Interval, cut_intervals, overlapping
from spaudio.audio.label_table import SPLIT_NAMES, read_label_table
from spaudio.audio.split import split_by_clip, split_by_group
from spaudio.errors import ConfigError, DataError, some
from spaudio.io.csv_files import read_csv
from spaudio.io.unpack import open_source, user_path

_FEWEST = 3  # clips per class: one each to train, validate and test


def prepare(
    work: Path,
    *,
    source: str | None = None,
    group_regex: str | None = None,
    test_fraction: float = 0.2,
    valid_fraction: float = 0.1,
    split_seed: int = 0,
    table: str | None = None,
    labels: str | None = None,
    background: str | None = None,
) -> SourceClips:
    r"""Lists the clips of a folder; labels are the names of class folders, or given by a table.

    Args:
        work: Folder to unpack into, if ``source`` is an archive.
        source: The folder, or a zip or tar archive of it.
        group_regex: Regular expression that is searched for in a clip's path, relative to
            ``source``. Its first capture group, or the whole match if it has none, is the clip's
            group (speaker, recording, site). Example: ``'(speaker\d+)'``. Groups are not divided
            among splits, except for validation clips that a run takes from given training clips
            (``validation.by=clip``). None splits by clip.
        test_fraction: Share of the clips to test on; unused if the split is given.
        valid_fraction: Share of the clips to validate on; unused if the split is given.
        split_seed: Seed of the split.
        table: CSV file of the labels, of whole files or of intervals of them; see
            `spaudio.audio.label_table`. A path, or a file name below ``source``. None takes the
            labels from the folders.
        labels: CSV file of corrected labels, as ``report.html`` saves it; see
            `spaudio.audio.corrections`. It does not change the split.
        background: A folder of other recordings, of any length. The class ``_background_`` is cut
            from it: clips as long as the median of the others, and as many as the other classes
            have on average. See `spaudio.audio.background`.

    Raises:
        ConfigError: If an option is missing or out of range.
        DataError: If there are no classes or only one, a class has fewer than 3 clips, a clip is
            outside the class folders or does not match ``group_regex``, the groups cannot be split
            as requested, or the corrections do not fit the clips.
    """
    if not source:
        raise ConfigError("source= is required: a folder of class sub-folders")
    for name, path in (("table", table), ("labels", labels), ("background", background)):
        if path is not None and not path.strip():
            raise ConfigError(f"{name}= is empty; give a path, or leave it out")
    root = open_source(source, work)
    if not user_path(source).is_dir():
        root = _top(root, table)
    if root == work.parent.resolve():
        raise ConfigError(
            f"source={source} is where the preparation keeps its own files; move the class folders "
            "to a folder of their own"
        )
    found = _from_folders(root) if table is None else _from_table(root, table, group_regex)
    clips = found.clips
    if group_regex is not None:
        clips = [replace(clip, group=_group(clip.group, group_regex)) for clip in clips]
    _check(root, clips, group_regex, table)
    whole, bad = root, dict[str, str]()
    if found.intervals:
        if not found.split_given:
            _check_recordings(found.intervals, clips, table, valid_fraction, test_fraction)
        root, bad = cut_intervals(root, found.intervals, work)
    # Of recordings that cannot be used there are no clips. They are listed, but not divided.
    lost = {clip.folder for clip in clips} & bad.keys()
    unlisted = [clip for clip in clips if clip.folder in lost]
    clips = [clip for clip in clips if clip.folder not in lost]
    notes = _alike({clip.label for clip in clips})
    if clips and not found.split_given:
        grouped = group_regex is not None or any(clip.group != clip.path for clip in clips)
        if len({clip.group for clip in clips}) == len(clips):
            cause = ", as each clip has a group of its own" if grouped else ""
            remedy = (
                "Check what makes the groups" if grouped else "group_regex=... keeps them together"
            )
            notes.append(
                f"the split is random over clips{cause}: clips of one speaker or recording may be "
                "in both training and test, so that the score says little about new ones. " + remedy
            )
        divide = split_by_group if grouped else split_by_clip
        clips = divide(
            clips, valid_fraction=valid_fraction, test_fraction=test_fraction, seed=split_seed
        )
    overlaps = [(one.path, two.path) for one, two in overlapping(found.intervals)]
    if clips and background is not None:
        root, clips, unusable = add_background(
            root, clips, user_path(background), work, source=whole, seed=split_seed
        )
        bad |= unusable
    clips = [*clips, *unlisted]
    if labels is not None:
        clips, corrected = correct_labels(clips, user_path(labels))
        notes = [*corrected, *notes]
        left = {clip.folder for clip in clips}  # recordings of which all clips were left out
        bad = {name: why for name, why in bad.items() if name in left or name not in lost}
    idle = ("test_fraction", "valid_fraction") if found.split_given else ()
    if found.split_given and background is None:  # whose clips are chosen by the seed, too
        idle = (*idle, "split_seed")
    return SourceClips(
        root=root,
        clips=clips,
        warnings=[*found.unused, *notes],
        unused=idle,
        bad=bad,
        overlaps=overlaps,
    )


@dataclass(frozen=True)
class _Found:
    """What a source holds.

    Attributes:
        clips: The clips; those of intervals are yet to be cut.
        intervals: The intervals of recordings that clips are cut from.
        split_given: Whether the clips have splits.
        unused: What of the source is not used, or not as it may have been meant, in sentences.
    """

    clips: list[SourceClip]
    intervals: list[Interval]
    split_given: bool
    unused: list[str]


def _audio_files(
    root: Path,
    on_twice: Callable[[str, str], object] = lambda *_: None,
    on_other: Callable[[str], object] = lambda _: None,
) -> list[str]:
    """Lists the audio files of the source.

    Raises:
        DataError: If there are none.
    """
    paths = sorted(audio_files(root, on_twice=on_twice, on_other=on_other))
    if not paths:
        raise DataError(
            f"{root}: no audio files found; expected <class>/<clip>, with one of the extensions "
            f"{', '.join(sorted(EXTENSIONS))}"
        )
    return paths


def _from_folders(root: Path) -> _Found:
    """Takes labels, and splits if there are any, from the names of folders."""
    linked: list[tuple[str, str]] = []
    others: list[str] = []
    paths = _audio_files(root, lambda *two: linked.append(two), others.append)
    split_given = _split_folders(root, paths)
    _check_links(root, linked, split_given)
    clips = [_clip(root, path, split_given) for path in paths]
    unused = _unused_classes(root, paths, split_given)
    if left := [name for name in others if may_be_audio(name)]:
        unused.append(f"files that were not taken, by their extension: {_extensions(left)}")
    return _Found(clips, [], split_given, unused)


def _from_table(root: Path, table: str, group_regex: str | None) -> _Found:
    """Takes labels, and splits and groups if there are any, from a table."""
    file = user_path(table)
    if not file.is_file() and (root / table).is_file():
        file = root / table
    given = read_label_table(file, root, _audio_files(root))
    if group_regex is not None and "group" in given.columns:
        raise ConfigError(
            f"table={file} has a column group; leave group_regex out, or remove the column"
        )
    unused = []
    if given.unlisted:  # reports and published models show this: no folders of the machine
        count, named = len(given.unlisted), some(given.unlisted)
        unused = [f"{count} audio files are not in table={file.name}: {named}"]
    unused += _combined({clip.label for clip in given.clips})
    return _Found(given.clips, given.intervals, "split" in given.columns, unused)


def _check_recordings(
    intervals: Sequence[Interval],
    clips: Sequence[SourceClip],
    table: str | None,
    valid_fraction: float,
    test_fraction: float,
) -> None:
    """Checks that there are enough recordings to divide, if they are the groups.

    Raises:
        DataError: If a split would get none.
    """
    recordings = {one.recording for one in intervals}
    needed = 1 + (valid_fraction > 0) + (test_fraction > 0)
    if {clip.group for clip in clips} == recordings and len(recordings) < needed:
        raise DataError(
            f"table={table} annotates {len(recordings)} of the {needed} recordings needed: "
            "the intervals of a recording are kept in one split; annotate at least "
            f"{needed} recordings, or add a column group that divides them, such as with one "
            "value per line"
        )


def _top(folder: Path, table: str | None) -> Path:
    """Returns the folder of an archive that holds the classes, or that paths are relative to.

    It may lie below folders that hold one folder each, whatever other files they hold. With a table
    in the archive, it is the folder of the table; with one elsewhere, that of its first path.
    """
    way = [folder]
    while True:
        inner = [path for path in way[-1].iterdir() if path.is_dir() and not is_hidden(path.name)]
        if len(inner) != 1:
            break
        way.append(inner[0])
    wanted = table
    if table and user_path(table).is_file():
        rows = read_csv("table", user_path(table))
        wanted = rows[0][1].get("file_name") if rows else None
    for place in way:
        if wanted and os.path.isfile(place / wanted):
            return place
    for place in way[1:]:
        if any(is_audio(path.name) for path in place.iterdir()):
            break
        folder = place
    return folder


def _split_folders(root: Path, paths: Sequence[str]) -> bool:
    """Returns whether the first level of folders gives the split: it has both train and test.

    Raises:
        DataError: If folders seem to be splits, but are not at that level or have other names.
    """
    inner: dict[str, set[str]] = {}  # by the folders of the first level, those of the second
    for path in paths:
        top, *rest = PurePosixPath(path).parts
        inner.setdefault(top, set()).update(rest[:-1][:1])
    tops = set(inner)
    splits = {SPLIT_NAMES[top.lower()] for top in tops if top.lower() in SPLIT_NAMES}
    if not {"train", "test"} <= splits:
        if len(tops) > 1 and all(top.lower() in SPLIT_NAMES for top in tops):
            raise DataError(
                f"{root}: holds the folders {some(sorted(tops))}, which are splits, but not both "
                "train and test; add the other one, or rename them if they are classes"
            )
        named = [top for top in sorted(tops) if top.lower() in SPLIT_NAMES]
        for top, other in product(named, sorted(tops)):
            shared = sorted(inner[top] & inner[other])
            if top != other and len(shared) > 1:
                raise DataError(
                    f"{root}: the folders {top} and {other} both hold {some(shared)}, so they seem "
                    "to be splits; rename them to train, valid and test (train and test are "
                    f"needed), or rename {top} if it is a class"
                )
        both = [
            top
            for top, names in sorted(inner.items())
            if {"train", "test"} <= {SPLIT_NAMES.get(name.lower()) for name in names}
        ]
        if len(both) > 1:
            raise DataError(
                f"{root}: the class folders {some(both)} hold the folders train and test; put the "
                "classes into the splits, as in train/<class> and test/<class>, or rename those "
                "folders if they are no splits"
            )
        return False
    if others := sorted(top for top in tops if top.lower() not in SPLIT_NAMES):
        raise DataError(
            f"{root}: holds train and test, and beside them {some(others)}; the top folders must "
            "be either classes or splits"
        )
    return True


def _check_links(root: Path, linked: Sequence[tuple[str, str]], by_folder: bool) -> None:
    """Checks that no folder is in two class or split folders, by a link.

    Args:
        root: The source.
        linked: The two paths of each folder that has several; its files are listed at the first.
        by_folder: Whether the first level of folders gives the split.

    Raises:
        DataError: If the label or split of its files would depend on the path.
    """
    depth = 2 if by_folder else 1
    for two in linked:
        first, again = (PurePosixPath(*PurePosixPath(path).parts[:depth]) for path in two)
        # A link to a folder above it adds nothing.
        if not (first.is_relative_to(again) or again.is_relative_to(first)):
            raise DataError(
                f"{root}: the class folders {first} and {again} hold the same files, by a link; "
                "remove the link"
            )


def _unused_classes(root: Path, paths: Sequence[str], by_folder: bool) -> list[str]:
    """Names the class folders that no clip was taken from, except those of a preparation."""
    pattern, depth = ("*/*", 2) if by_folder else ("*", 1)
    used = {PurePosixPath(*PurePosixPath(path).parts[:depth]) for path in paths}
    there = {
        PurePosixPath(folder.relative_to(root).as_posix()): folder
        for folder in sorted(root.glob(pattern))
        if folder.is_dir() and not is_hidden(folder.name)
    }
    return [
        f"no clip was taken from the folder {name}: it holds no audio ({_contents(folder)})"
        for name, folder in there.items()
        if name not in used and not any(folder.rglob(NOT_A_SOURCE))
    ]


def _contents(folder: Path) -> str:
    """Returns the extensions of the files in a folder, with their counts."""
    files = (file for file in folder.rglob("*") if file.is_file() and not is_hidden(file.name))
    return _extensions(file.name for file in files) or "it is empty"


def _extensions(names: Iterable[str]) -> str:
    """Returns the extensions of files, with their counts."""
    found = Counter(Path(name).suffix.lower() or "without extension" for name in names)
    sizes = sorted((-number, suffix) for suffix, number in found.items())
    return some([f"{-number} {suffix}" for number, suffix in sizes])


def _clip(root: Path, path: str, by_folder: bool) -> SourceClip:
    split, *parts = (
        PurePosixPath(path).parts if by_folder else ("train", *PurePosixPath(path).parts)
    )
    if len(parts) < 2:
        raise DataError(
            f"{root / path}: is outside the class folders; move it into that of its class, or "
            "remove it. If the labels are in a CSV file: table=FILE"
        )
    return SourceClip(path, composed(parts[0]), SPLIT_NAMES[split.lower()], path)


def _group(path: str, group_regex: str) -> str:
    """Returns the group of an audio file; it is empty if the expression finds none."""
    try:
        found = re.search(group_regex, composed(path))
    except re.error as error:
        raise ConfigError(
            f"group_regex={group_regex!r} is not a regular expression ({error})"
        ) from error
    return (found[min(1, found.re.groups)] or "") if found else ""


def _alike(labels: Iterable[str]) -> list[str]:
    """Returns a sentence with the classes whose names differ in case alone, if any."""
    by_name: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_name.setdefault(label.casefold(), []).append(label)
    alike = [" and ".join(names) for names in by_name.values() if len(names) > 1]
    return [f"classes whose names differ only in case: {some(alike)}"] if alike else []


def _check(
    root: Path, clips: Sequence[SourceClip], group_regex: str | None, table: str | None
) -> None:
    counts = Counter(clip.label for clip in clips)
    if len(counts) < 2 and table is not None:
        raise DataError(
            f"table={table}: all clips have the label {next(iter(counts))!r}; at least two labels "
            "are needed"
        )
    if len(counts) < 2:
        raise DataError(
            f"{root}: only one class folder holds audio, {next(iter(counts))!r}; at least two are "
            "needed (give the folder above if this is one class of several, or that folder if its "
            "sub-folders are the classes)"
        )
    if scarce := sorted(label for label, number in counts.items() if number < _FEWEST):
        raise DataError(
            f"{root}: classes with fewer than {_FEWEST} clips: {some(scarce)}; add clips, or "
            "remove the class"
        )
    if unmatched := [clip.path for clip in clips if not clip.group]:
        raise DataError(
            f"group_regex={group_regex!r} finds no group in {len(unmatched)} of {len(clips)} "
            f"paths: {some(unmatched)}"
        )
    splits = Counter(group for group, _ in {(clip.group, clip.split) for clip in clips})
    if torn := sorted(group for group, number in splits.items() if number > 1):
        raise DataError(
            f"{root}: groups in more than one of the given splits: {some(torn)}; move their clips "
            "into one, or give other groups"
        )


def _combined(labels: Iterable[str]) -> list[str]:
    """Returns a sentence on classes that seem to be several labels, if any: they share parts."""
    parts = {label: set(re.findall(r"[^;|,\s][^;|,]*(?<!\s)", label)) for label in labels}
    counts = Counter(part for found in parts.values() for part in found)
    joined = sorted(
        label
        for label, found in parts.items()
        if len(found) > 1 and any(counts[part] > 1 for part in found)
    )
    if not joined:
        return []
    return [
        f"{len(joined)} of {len(parts)} classes seem to be several labels each, but are taken as "
        f"one class each: {some(joined)}; several labels per clip need a recipe such as fsd50k"
    ]


if __name__ == "__main__":
    main("folder", prepare)
