r"""Any folder with one sub-folder per class, in any format that `spaudio.audio` decodes.

    python data_prep/folder.py source=DIR [group_regex='^[^/]+/(\w+?)_'] [test_fraction=0.2]
    python data_prep/folder.py source=DIR table=metadata.csv
    python data_prep/folder.py source=RECORDINGS table=annotations.csv [background=RECORDINGS]
    python data_prep/folder.py source=RECORDINGS table=RAVEN_SELECTION_TABLES
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
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spaudio.audio import SourceClip, SourceClips
from spaudio.audio.background import BACKGROUND, add_background
from spaudio.audio.class_folders import read_class_folders
from spaudio.audio.command import main
from spaudio.audio.corrections import correct_labels
from spaudio.audio.find import audio_files, composed, is_audio, is_hidden, no_audio
from spaudio.audio.gaps import background_between
from spaudio.audio.intervals import Interval, cut_intervals, overlapping
from spaudio.audio.label_table import read_label_table
from spaudio.audio.manifest import SPLIT_NAMES
from spaudio.audio.selections import is_selections
from spaudio.audio.split import split_by_clip, split_by_group
from spaudio.errors import ConfigError, DataError, counted, some
from spaudio.io.csv_files import read_csv
from spaudio.io.paths import user_path
from spaudio.io.unpack import open_source

_TABLE = "if the labels are in a CSV file or in Raven tables, name them with table=FILE"
_OUTSIDE = f"move it into the folder of its class, or remove it; {_TABLE}"
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
        table: CSV file of the labels, of whole files or of intervals of them, see
            `spaudio.audio.label_table`; or a Raven selection table, or a folder of these. A path,
            or one below ``source``. None takes the labels from the folders.
        labels: CSV file of corrected labels, as ``report.html`` saves it; see
            `spaudio.audio.corrections`. It does not change the split.
        background: A folder of other recordings, of any length. The class ``_background_`` is cut
            from it: as many clips as the other classes have on average, of their median length. See
            `spaudio.audio.background`. If the table gives intervals, it may also be the folder of
            ``source``: the class is then cut from what lies between the intervals, as many clips as
            there are intervals.

    Raises:
        ConfigError: If an option is missing or out of range.
        DataError: If there are no classes, or only one without ``background``, a class has fewer
            than 3 clips, a clip is outside the class folders or does not match ``group_regex``, the
            groups cannot be split as requested, or the corrections do not fit the clips.
    """
    if not source:
        raise ConfigError("source= is required: a folder of class sub-folders")
    for name, path in (("table", table), ("labels", labels), ("background", background)):
        if path is not None and not path.strip():
            raise ConfigError(f"{name}= is empty; give a path, or leave it out")
    unpacked = root = open_source(source, work)
    if not user_path(source).is_dir():
        root = _top(root, table)
    if root == work.parent.resolve():
        raise ConfigError(
            f"source={source} is where the preparation keeps its own files; move the class folders "
            "to a folder of their own"
        )
    if table is None:
        found = _Found(*read_class_folders(root, _OUTSIDE))
    else:
        found = _from_table(root, table, group_regex)
    clips = [replace(clip, group=_group(clip.group, group_regex)) for clip in found.clips]
    _check(root, clips, group_regex, table, background)
    seeded = background is not None
    whole, bad, intervals, notes = root, dict[str, str](), found.intervals, list[str]()
    if table is None and root != unpacked:
        inner = root.relative_to(unpacked).as_posix()
        notes.append(f"the classes are the folders in {inner}/ of the archive")
    if intervals and not found.split_given:
        _check_groups(intervals, clips, table, valid_fraction, test_fraction)
    if intervals and background is not None and _is_same(background, source, root):
        empty = {name: _group(name, group_regex) or name for name in found.empty}
        more, gaps, bad = background_between(root, clips, intervals, empty=empty, seed=split_seed)
        clips, intervals, background = [*clips, *more], [*intervals, *gaps], None
    if intervals:
        root, uncut = cut_intervals(root, intervals, work)
        bad |= uncut
        before, clips = clips, _without_silent(root, clips, intervals)
        notes += _silent_background(before, clips, uncut)
    # Clips of recordings that cannot be used were not cut: they are reported, but not split.
    lost = {clip.folder for clip in clips} & bad.keys()
    unlisted = [clip for clip in clips if clip.folder in lost]
    clips = [clip for clip in clips if clip.folder not in lost]
    notes += _alike({clip.label for clip in clips})
    if clips and not found.split_given:
        grouped = group_regex is not None or any(clip.group != clip.path for clip in clips)
        if len({clip.group for clip in clips}) == len(clips):
            notes.append(_random(grouped=grouped))
        divide = split_by_group if grouped else split_by_clip
        clips = divide(
            clips, valid_fraction=valid_fraction, test_fraction=test_fraction, seed=split_seed
        )
        notes += _little_training(clips, 1 - valid_fraction - test_fraction)
    overlaps = [(one.path, two.path) for one, two in overlapping(found.intervals)]
    if clips and background is not None:
        root, clips, unusable = add_background(
            root, clips, user_path(background), work, source=whole, seed=split_seed
        )
        bad |= unusable
        notes += _scarce_background(clips)
    clips = [*clips, *unlisted]
    if labels is not None:
        clips, corrected = correct_labels(clips, user_path(labels))
        notes = [*corrected, *notes]
        left = {clip.folder for clip in clips}  # recordings of which all clips were left out
        bad = {name: why for name, why in bad.items() if name in left or name not in lost}
    return SourceClips(
        root=root,
        clips=clips,
        warnings=[*found.notes, *notes],
        unused=_idle(split_given=found.split_given, seeded=seeded),
        bad=bad,
        overlaps=overlaps,
    )


@dataclass(frozen=True)
class _Found:
    """What a source holds.

    Attributes:
        clips: The clips; those of intervals are yet to be cut.
        split_given: Whether the clips have splits.
        notes: What of the source is not used, or not as it may have been meant, in sentences.
        intervals: The intervals of recordings that clips are cut from.
        empty: Recordings of which a table says that they hold no event.
    """

    clips: list[SourceClip]
    split_given: bool
    notes: list[str]
    intervals: Sequence[Interval] = ()
    empty: Sequence[str] = ()


def _from_table(root: Path, table: str, group_regex: str | None) -> _Found:
    """Takes labels, and splits and groups if there are any, from a table."""
    file = user_path(table)
    if not file.exists() and (root / table).exists():
        file = root / table
    paths = sorted(audio_files(root))
    if not paths:
        raise no_audio(root)
    given = read_label_table(file, root, paths)
    if group_regex is not None and "group" in given.columns:
        raise ConfigError(
            f"table={file} has a column group; leave group_regex out, or remove the column"
        )
    notes = []
    if given.unlisted:  # reports and published models show this: no folders of the machine
        count, named = len(given.unlisted), some(given.unlisted)
        notes = [f"not in table={file.name}: {counted(count, 'audio file')}: {named}"]
    notes += given.notes
    tops = {PurePosixPath(clip.path).parts[0].lower() for clip in given.clips}
    splits = {SPLIT_NAMES.get(top) for top in tops}
    if "split" not in given.columns and None not in splits and {"train", "test"} <= splits:
        notes.append(
            f"the folders {', '.join(sorted(tops))} do not divide the clips, as table={file.name} "
            "has no column split; add one if they are the splits"
        )
    notes += _combined({clip.label for clip in given.clips})
    split_given = "split" in given.columns
    return _Found(given.clips, split_given, notes, given.intervals, given.empty)


def _check_groups(
    intervals: Sequence[Interval],
    clips: Sequence[SourceClip],
    table: str | None,
    valid_fraction: float,
    test_fraction: float,
) -> None:
    """Checks that the annotations have enough groups to divide; those of background do not count.

    Raises:
        DataError: If a split would get none.
    """
    groups, recordings = {clip.group for clip in clips}, {one.recording for one in intervals}
    needed = 1 + (valid_fraction > 0) + (test_fraction > 0)
    if len(groups) >= needed:
        return
    if groups != recordings:
        raise DataError(
            f"table={table} has annotations in {len(groups)} of the {needed} groups needed, one "
            f"for each split: {some(sorted(groups))}; check what defines the groups"
        )
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
    if table and user_path(table).is_file() and not is_selections(user_path(table)):
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


def _without_silent(
    root: Path, clips: Sequence[SourceClip], intervals: Sequence[Interval]
) -> list[SourceClip]:
    """Leaves out the clips that were not cut because they are silent."""
    silent = {one.path for one in intervals if one.spare and not (root / one.path).exists()}
    return [clip for clip in clips if clip.path not in silent]


def _silent_background(
    before: Sequence[SourceClip], clips: Sequence[SourceClip], uncut: Container[str]
) -> list[str]:
    """Returns a sentence with the number of clips that are left out because they are silent.

    Raises:
        DataError: If all of them are.
    """
    chosen, kept = (
        sum(clip.label == BACKGROUND and clip.folder not in uncut for clip in part)
        for part in (before, clips)
    )
    if chosen == kept:
        return []
    if kept == 0:
        raise DataError(
            f"background=: the annotated recordings hold only silence between their annotations, "
            f"so there is nothing to cut {BACKGROUND} from; name a folder of other recordings"
        )
    return [
        f"{chosen - kept} of {chosen} clips of {BACKGROUND} are left out, because these parts of "
        "the recordings are silent"
    ]


def _little_training(clips: Sequence[SourceClip], fraction: float) -> list[str]:
    """Returns a sentence if less than half of the clips that were asked are left to train on.

    Args:
        clips: The clips, with their splits.
        fraction: Share of the clips that was asked.
    """
    trained = sum(clip.split == "train" for clip in clips)
    group, most = Counter(clip.group for clip in clips).most_common(1)[0]
    if trained >= fraction / 2 * len(clips):
        return []
    if most <= fraction / 2 * len(clips) - trained or most == 1:
        return [
            f"only {trained} of {len(clips)} clips are trained on, as each class has at least one "
            "clip in each split; add clips"
        ]
    return [
        f"only {trained} of {len(clips)} clips are trained on, as groups are not divided, and "
        f"{group!r} has {counted(most, 'clip')}; try another split_seed, or give the splits"
    ]


def _scarce_background(clips: Sequence[SourceClip]) -> list[str]:
    """Returns a sentence if the class of other sounds is smaller than the others are on average."""
    counts = Counter(clip.label for clip in clips)
    cut = counts.pop(BACKGROUND, 0)
    if cut * len(counts) >= counts.total():
        return []
    return [
        f"the recordings of background= hold sound for {cut} clips of {BACKGROUND}, fewer than the "
        f"{counts.total() / len(counts):.0f} that the other classes have on average"
    ]


def _is_same(path: str, source: str, root: Path) -> bool:
    """Whether a path that the user names is the source, or the folder that it was unpacked to."""
    return user_path(path).resolve() in (user_path(source).resolve(), root.resolve())


def _group(path: str, group_regex: str | None) -> str:
    """Returns the group of an audio file; it is empty if the expression finds none."""
    if group_regex is None:
        return path
    try:
        found = re.search(group_regex, composed(path))
    except re.error as error:
        raise ConfigError(
            f"group_regex={group_regex!r} is not a regular expression ({error})"
        ) from error
    return (found[min(1, found.re.groups)] or "") if found else ""


def _idle(*, split_given: bool, seeded: bool) -> tuple[str, ...]:
    """Returns the options that have no effect; the seed also chooses the clips of a background."""
    if not split_given:
        return ()
    return ("test_fraction", "valid_fraction", *(() if seeded else ("split_seed",)))


def _random(*, grouped: bool) -> str:
    """Returns a sentence on clips that each have a group of their own."""
    cause = ", as each clip has a group of its own" if grouped else ""
    remedy = "Check what defines the groups" if grouped else "group_regex=... keeps them together"
    return (
        f"the split is random over clips{cause}: clips of one speaker or recording may be in both "
        f"training and test, so that the score says little about new ones. {remedy}"
    )


def _alike(labels: Iterable[str]) -> list[str]:
    """Returns a sentence with the classes whose names differ in case or spaces alone, if any."""
    by_name: dict[str, list[str]] = {}
    for label in sorted(labels):
        by_name.setdefault("".join(label.casefold().split()), []).append(label)
    alike = []
    for names in by_name.values():
        differ_in_case = len({name.casefold() for name in names}) == 1
        if len(names) > 1:  # quoted, as a space at an end could not be seen
            alike.append(" and ".join(names if differ_in_case else map(repr, names)))
    return [f"classes whose names differ only in case or spaces: {some(alike)}"] if alike else []


def _check(
    root: Path,
    clips: Sequence[SourceClip],
    group_regex: str | None,
    table: str | None,
    background: str | None,
) -> None:
    counts = Counter(clip.label for clip in clips)
    alone = len(counts) < 2 and background is None
    if not counts:
        raise DataError(f"table={table} labels nothing; add lines")
    if alone and table is not None:
        raise DataError(
            f"table={table}: all clips have the label {next(iter(counts))!r}; at least two labels "
            "are needed, or the class of other sounds that background=RECORDINGS adds"
        )
    if alone:
        raise DataError(
            f"{root}: only one class folder holds audio, {next(iter(counts))!r}; at least two are "
            "needed (give the folder above if this is one class of several, or that folder if its "
            f"sub-folders are the classes; {_TABLE}; background=RECORDINGS adds the class of other "
            "sounds)"
        )
    if scarce := sorted(label for label, number in counts.items() if number < _FEWEST):
        raise DataError(
            f"{root}: classes with fewer than {_FEWEST} clips: {some(scarce)}; add clips, or "
            "remove the class"
        )
    if unmatched := [clip.path for clip in clips if not clip.group]:
        raise DataError(
            f"group_regex={group_regex} finds no group in {len(unmatched)} of {len(clips)} "
            f"paths: {some(unmatched)}; remove files that are not clips (skip_bad=true skips them "
            "only if they have a group), or give an expression that is found in each path, such as "
            "'([^/]+)_[^/]*$' for what precedes the last underscore of a file's name"
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
