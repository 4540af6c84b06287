"""Labels of clips, and splits if there are any, from the names of folders."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path, PurePosixPath

from spaudio.audio.find import (
    NOT_A_SOURCE,
    audio_files,
    composed,
    extensions,
    ignored,
    is_hidden,
    no_audio,
)
from spaudio.audio.manifest import SPLIT_NAMES, SourceClip
from spaudio.errors import DataError, some


def read_class_folders(
    root: Path, remedy: str = "move it into the folder of its class, or remove it"
) -> tuple[list[SourceClip], bool, list[str]]:
    """Lists the clips of ``<class>/**/<clip>``, or of ``{train,valid,test}/<class>/**/<clip>``.

    Args:
        root: Folder of the source.
        remedy: What to do about a clip outside the class folders, for the error.

    Returns:
        The clips, of which each is a group of its own; whether the folders give the split; and
        sentences on what was ignored.

    Raises:
        DataError: If there are no audio files, one is outside the class folders, a class folder
            is a link to another one or holds a link into it, or folders seem to be splits but are
            not at the top or have other names.
    """
    linked: list[tuple[str, str]] = []
    others: list[str] = []
    listed = audio_files(root, on_twice=lambda *two: linked.append(two), on_other=others.append)
    paths = sorted(listed)
    if not paths:
        raise no_audio(root)
    split_given = _split_folders(root, paths)
    _check_links(root, linked, split_given)
    clips = [_clip(root, path, split_given, remedy) for path in paths]
    return clips, split_given, [*_unused_classes(root, paths, split_given), *ignored(others)]


def _split_folders(root: Path, paths: Sequence[str]) -> bool:
    """Returns whether the first level of folders gives the split: it has both train and test.

    Raises:
        DataError: If folders seem to be splits, but are not at that level or have other names.
    """
    inner: dict[str, set[str]] = {}  # by the folders of the first level, those of the second
    for path in paths:
        top, *rest = PurePosixPath(path).parts
        inner.setdefault(top, set()).update(rest[:-1][:1])
    tops = sorted(inner)
    named = [top for top in tops if top.lower() in SPLIT_NAMES]
    if {"train", "test"} <= {SPLIT_NAMES[top.lower()] for top in named}:
        if others := [top for top in tops if top not in named]:
            raise DataError(
                f"{root}: holds train and test, and beside them {some(others)}; the top folders "
                "must be either classes or splits"
            )
        return True
    if len(tops) > 1 and named == tops:
        raise DataError(
            f"{root}: holds the folders {some(tops)}, which are splits, but not both train and "
            "test; add the other one, or rename them if they are classes"
        )
    for top, other in product(named, tops):
        shared = sorted(inner[top] & inner[other])
        if top != other and len(shared) > 1:
            raise DataError(
                f"{root}: the folders {top} and {other} both hold {some(shared)}, so they seem to "
                "be splits; rename them to train, valid and test (train and test are needed), or "
                f"rename {top} if it is a class"
            )
    both = [
        top
        for top in tops
        if {"train", "test"} <= {SPLIT_NAMES.get(name.lower()) for name in inner[top]}
    ]
    if len(both) > 1:
        raise DataError(
            f"{root}: the class folders {some(both)} hold the folders train and test; put the "
            "classes into the splits, as in train/<class> and test/<class>, or rename those "
            "folders if they are not splits"
        )
    return False


def _clip(root: Path, path: str, split_given: bool, remedy: str) -> SourceClip:
    folders = PurePosixPath(path).parts
    split, *parts = folders if split_given else ("train", *folders)
    if len(parts) < 2:
        raise DataError(f"{root / path}: is outside the class folders; {remedy}")
    return SourceClip(path, composed(parts[0]), SPLIT_NAMES[split.lower()], path)


def _check_links(root: Path, linked: Sequence[tuple[str, str]], split_given: bool) -> None:
    """Checks that no folder is in two class or split folders, by a link.

    Args:
        root: The source.
        linked: The two paths of each folder that has several; its files are listed at the first.
        split_given: Whether the first level of folders gives the split.

    Raises:
        DataError: If the label or split of its files would depend on the path.
    """
    depth = 2 if split_given else 1
    for two in linked:
        first, again = (PurePosixPath(*PurePosixPath(path).parts[:depth]) for path in two)
        # A link to a folder above it adds nothing.
        if not (first.is_relative_to(again) or again.is_relative_to(first)):
            raise DataError(
                f"{root}: the class folders {first} and {again} hold the same files, by a link; "
                "remove the link"
            )


def _unused_classes(root: Path, paths: Sequence[str], split_given: bool) -> list[str]:
    """Names the class folders that no clip was taken from, except those of a preparation."""
    pattern, depth = ("*/*", 2) if split_given else ("*", 1)
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
    return extensions(file.name for file in files) or "it is empty"
