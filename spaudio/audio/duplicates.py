"""Clips with the same samples, and clips that share a part of a recording."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from spaudio.audio.manifest import Clip
from spaudio.audio.scan import Finding
from spaudio.errors import ConfigError, DataError, counted
from spaudio.io.atomic import write_atomic

_SHOWN = 3  # groups in a message; duplicates.txt and prepared.json list all
_CHOICES = ("refuse", "allow")


def check_choice(duplicates: str) -> None:
    """Checks what is to be done about duplicates.

    Raises:
        ConfigError: If it is neither ``"refuse"`` nor ``"allow"``.
    """
    if duplicates not in _CHOICES:
        raise ConfigError(f"duplicates={duplicates!r}; expected {' or '.join(_CHOICES)}")


def find_duplicates(
    clips: Sequence[Clip], findings: Mapping[str, Finding]
) -> list[tuple[str, ...]]:
    """Returns the paths of clips with the same samples, group by group; silence is left out."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for clip in clips:
        if samples := findings[clip.path].samples:
            groups[samples].append(clip.path)
    return [tuple(paths) for paths in groups.values() if len(paths) > 1]


def check_duplicates(
    clips: Sequence[Clip],
    duplicates: Sequence[tuple[str, ...]],
    overlaps: Sequence[tuple[str, str]],
    on_duplicates: str,
    file: Path,
) -> list[str]:
    """Checks that clips with the same samples, or of the same part of a recording, agree.

    Args:
        clips: Clips of the dataset.
        duplicates: Paths of clips with the same samples, group by group.
        overlaps: Pairs of paths of clips that share a part of a recording.
        on_duplicates: ``"refuse"`` or ``"allow"``.
        file: Lists those that ``"refuse"`` refuses; removed if there are none.

    Returns:
        Warnings about duplicates, including those that ``"refuse"`` would have refused.

    Raises:
        DataError: If duplicates have different labels, splits or folds, or overlapping clips
            different splits, and are not allowed.
    """
    by_path = {clip.path: clip for clip in clips}
    groups = [[by_path[path] for path in group] for group in duplicates]
    alike: dict[str, list[list[Clip]]] = {}  # by how the clips of a group differ, each group once
    for group in groups:
        labels, places = {c.label for c in group}, {(c.split, c.fold) for c in group}
        differing = ["under different labels"] * (len(labels) > 1)
        differing += ["in different splits or folds"] * (len(places) > 1)
        alike.setdefault(" and ".join(differing), []).append(group)
    harmless = alike.pop("", [])
    wrong = [
        f"the same audio {where} ({counted(len(found), 'recording')}): {_some_groups(found)}"
        for where, found in sorted(alike.items(), reverse=True)  # labels first
    ]
    pairs = [[by_path[path] for path in pair] for pair in overlaps]
    if torn := [pair for pair in pairs if pair[0].split != pair[1].split]:
        wrong.append(
            f"overlapping parts of a recording in different splits "
            f"({counted(len(torn), 'pair')}; give each pair one group, or one split): "
            + _some_groups(torn, " and ")
        )
    if not wrong:
        file.unlink(missing_ok=True)
    else:
        same = sorted((one for found in alike.values() for one in found), key=lambda g: g[0].path)
        listed = [(" = ", group) for group in same] + [(" and ", pair) for pair in torn]
        lines = [
            joint.join(f"{clip.path} ({clip.label}, {clip.split})" for clip in group) + "\n"
            for joint, group in listed
        ]
        write_atomic(file, "".join(lines).encode("utf-8", "backslashreplace"))
    if wrong and on_duplicates == "refuse":
        raise DataError(
            f"{'; '.join(wrong)} (all are listed in {file}). Remove the clips that are wrong, or "
            "keep all as they are with duplicates=allow"
        )
    if harmless:
        count = counted(len(harmless), "recording")
        wrong.append(f"the same audio more than once ({count}): {_some_groups(harmless)}")
    return wrong


def _some_groups(groups: Sequence[Sequence[Clip]], joint: str = " = ") -> str:
    """Shows some clips of some groups, first those that differ in label, split or fold."""
    shown = []
    for group in groups[:_SHOWN]:
        differing = {(clip.label, clip.split, clip.fold): clip for clip in reversed(group)}
        first = [*reversed(differing.values())]
        rest = [clip for clip in group if clip not in first]
        shown.append(joint.join(clip.path for clip in [*first, *rest][:_SHOWN]))
    return ", ".join(shown) + (f" and {len(groups) - _SHOWN} more" if groups[_SHOWN:] else "")
