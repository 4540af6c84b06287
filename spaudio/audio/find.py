"""Finds audio files by their extension, below one folder or among files and folders."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import soundfile

from spaudio.audio.decode import FOREIGN
from spaudio.errors import DataError, some
from spaudio.io.messages import warn

# Includes other extensions of formats, and formats that soundfile does not read: such clips are
# reported as bad rather than skipped silently. Headerless `.raw` cannot be read at all.
EXTENSIONS = (
    {name.lower() for name in soundfile.available_formats()} - {"raw"}
    | FOREIGN
    | {
        *("aif", "aifc", "au", "snd", "wave", "bwf", "oga", "opus", "mp1", "mp2", "sph"),
    }
)

# Not read, but named in a warning, because they may hold sound. So may files without an extension,
# except `_TEXTS`.
_LIKE_AUDIO = {"raw", "pcm", "ac3", "dts", "dsf", "dff", "tta", "mpc", "spx", "ra", "avi"}
_TEXTS = {"readme", "license", "licence", "copying", "notice", "authors", "makefile"}

#: File that marks a folder of audio files that are cut, rendered or unpacked from a source.
NOT_A_SOURCE = ".spaudio-work"


def audio_files(
    root: Path,
    *,
    on_twice: Callable[[str, str], object] = lambda first, again: None,
    on_other: Callable[[str], object] = lambda name: None,
) -> Iterator[str]:
    """Lists audio files by their extension; linked folders are followed, each once.

    Args:
        root: The folder.
        on_twice: Called with the two paths of a folder that is reached again, by a link.
        on_other: Called with the name of each file that is not hidden and has another extension.

    Yields:
        POSIX paths, relative to ``root``. Hidden files and folders are skipped, and folders of
        files that a preparation has written (see `NOT_A_SOURCE`). An empty folder that is named
        like a clip is listed, so that it is reported as bad.

    Raises:
        DataError: If a folder cannot be listed.
    """
    for folder, is_empty, names in walk(root, on_twice):
        if is_empty and is_audio(folder.name):
            yield folder.relative_to(root).as_posix()
        for name in names:
            if not is_audio(name):
                on_other(name)
            else:
                yield (folder / name).relative_to(root).as_posix()


def walk(
    root: Path, on_twice: Callable[[str, str], object] = lambda first, again: None
) -> Iterator[tuple[Path, bool, list[str]]]:
    """Walks a folder as `audio_files` does.

    Args:
        root: The folder.
        on_twice: As for `audio_files`.

    Yields:
        A folder, whether there is nothing in it, and the names of its files that are not hidden.

    Raises:
        DataError: If a folder cannot be listed.
    """
    seen: dict[str, str] = {}  # by its real path, the path of a folder
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        path = Path(folder).relative_to(root).as_posix()
        if real in seen:
            on_twice(seen[real], path)
        if real in seen or (NOT_A_SOURCE in files and path != "."):
            subfolders.clear()
            continue
        seen[real] = path
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        names = [name for name in files if not is_hidden(name)]
        yield Path(folder), not subfolders and not files, names


def extensions(names: Iterable[str]) -> str:
    """Returns the extensions of files, with their counts."""
    found = Counter(Path(name).suffix.lower() or "without extension" for name in names)
    sizes = sorted((-number, suffix) for suffix, number in found.items())
    return some([f"{-number} {suffix}" for number, suffix in sizes])


def ignored(names: Iterable[str]) -> list[str]:
    """Returns a sentence about files that are not taken but may hold sound, if there are any."""
    left = [name for name in names if may_be_audio(name)]
    return [f"files that were ignored, by their extension: {extensions(left)}"] if left else []


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Replaces folders with the audio files below them; each file once, in order.

    Prints a warning about other files there that may hold sound.

    Args:
        paths: Files and folders.

    Returns:
        Files, and folders that hold no audio files or cannot be listed, each with a reason.
    """
    files: dict[Path, None] = {}
    bad: list[tuple[Path, str]] = []
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        others: list[str] = []
        try:
            found = sorted(path / name for name in audio_files(path, on_other=others.append))
        except DataError as error:
            bad.append((path, str(error)))
            continue
        if not found:
            bad.append((path, "holds no audio file; check the path"))
        files.update(dict.fromkeys(found))
        for line in ignored(others):
            warn(f"warning: {path}: {line}")
    return list(files), bad


def no_audio(root: Path) -> DataError:
    """Returns the error for a source without audio files."""
    return DataError(
        f"{root}: no audio files found; expected <class>/<clip>, with an extension such as wav, "
        "flac, ogg, mp3 or aiff"
    )


def path_finder(paths: Sequence[str]) -> Callable[[str], str | None]:
    """Returns a function that finds a path as a user has written it, or returns None.

    Accents may be composed in another way (NFC, NFD), and folders separated as on Windows.

    Args:
        paths: The paths, POSIX.
    """
    exact = set(paths)
    alike = {composed(path): path for path in paths}

    def find(written: str) -> str | None:
        for text in (written, written.replace("\\", "/")):
            path = PurePosixPath(text).as_posix()
            if found := path if path in exact else alike.get(composed(path)):
                return found
        return None

    return find


def composed(text: str) -> str:
    """Returns text in NFC: macOS and other systems store the same name as different characters."""
    return unicodedata.normalize("NFC", text)


def is_hidden(name: str) -> bool:
    """Whether a file is not data: its name has a leading dot, or macOS adds it to zip files."""
    return name.startswith(".") or name == "__MACOSX"


def is_audio(name: str) -> bool:
    """Whether a file's name has an audio extension."""
    return Path(name).suffix[1:].lower() in EXTENSIONS


def may_be_audio(name: str) -> bool:
    """Whether a file that is not taken may hold sound: by its extension, or if it has none."""
    suffix = Path(name).suffix[1:].lower()
    return suffix in _LIKE_AUDIO or (not suffix and name.lower() not in _TEXTS)


def _refuse(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: cannot be listed ({error.strerror}); correct its permissions"
    )
