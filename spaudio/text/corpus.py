"""Encodes a text in text8's format as a memory-mapped array of symbols, split as text8 is.

The format is lower-case letters and single spaces, nothing else. The first 90 % are for training,
the next 5 % for validation and the last 5 % for the test, without shuffling: text8's standard
split.
"""

import hashlib
import os
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spaudio.errors import DataError
from spaudio.io.lock import locked
from spaudio.io.plain import read_json, write_json

ALPHABET = " abcdefghijklmnopqrstuvwxyz"

Symbols = npt.NDArray[np.uint8]

_REMEDY = (
    "text8's format has only lower-case letters and single spaces, so clean it first: python "
    "data_prep/text8.py clean=FILE > CLEANED"
)
_UNKNOWN = 255
_CODES = np.full(256, _UNKNOWN, dtype=np.uint8)
_CODES[np.frombuffer(ALPHABET.encode(), dtype=np.uint8)] = np.arange(len(ALPHABET))


@dataclass(frozen=True)
class SourceText:
    """A text that the script of a text dataset finds.

    Attributes:
        name: Its name in reports.
        choice: The value of ``corpus=`` that selects this text.
        stand_in: Whether it replaces text8; its losses are then not comparable with text8's.
        key: Changes when the text does.
        read: Reads the text in pieces.
    """

    name: str
    choice: str
    stand_in: bool
    key: str
    read: Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Corpus:
    """A prepared text.

    Attributes:
        name: Its name in reports.
        stand_in: Whether it replaces text8.
        symbols: (characters,) memory-mapped, indices into ``ALPHABET``.
        sha256: SHA-256 of the text.
    """

    name: str
    stand_in: bool
    symbols: Symbols
    sha256: str

    def split(self, name: str) -> Symbols:
        """Returns the symbols of ``"train"``, ``"valid"`` or ``"test"``."""
        total = len(self.symbols)
        first, second = total * 90 // 100, total * 90 // 100 + total * 5 // 100
        start, stop = {"train": (0, first), "valid": (first, second), "test": (second, total)}[name]
        return self.symbols[start:stop]


def encode(text: bytes) -> Symbols:
    """Encodes text as indices into ``ALPHABET``.

    Raises:
        DataError: If a character is not in it.
    """
    symbols = _CODES[np.frombuffer(text, dtype=np.uint8)]
    if (symbols == _UNKNOWN).any():
        wrong = text[int((symbols == _UNKNOWN).argmax())]
        raise DataError(f"the text holds {bytes([wrong])!r}; {_REMEDY}")
    return symbols


def decode(symbols: Iterable[int]) -> str:
    """Decodes indices into ``ALPHABET`` to text; the inverse of :func:`encode`."""
    return "".join(ALPHABET[symbol] for symbol in symbols)


def prepare_corpus(source: SourceText, folder: Path) -> Corpus:
    """Encodes a text, unless that was done before, and opens it.

    Args:
        source: The text.
        folder: Where encoded texts are kept, each in its own folder.

    Raises:
        DataError: If the text is not in text8's format or empty.
    """
    key = hashlib.sha256(f"{source.name}\n{source.key}".encode()).hexdigest()[:12]
    target = folder / key
    file, marker = target / "symbols.bin", target / "corpus.json"
    with locked(folder / "lock"):
        corpus = _open(source, file, marker)
        if corpus is None:
            if marker.exists():
                warnings.warn(f"{target} is damaged; it is recreated", stacklevel=2)
            target.mkdir(parents=True, exist_ok=True)
            count, digest, checksum = _write(source, file)
            facts = {"name": source.name, "characters": count, "sha256": digest, "crc32": checksum}
            write_json(marker, facts)
            corpus = _open(source, file, marker)
    if corpus is None:
        raise DataError(f"{file} cannot be read back; check the disk")
    return corpus


def _open(source: SourceText, file: Path, marker: Path) -> Corpus | None:
    """Opens an encoded text; None if there is none, or its checksum does not match."""
    try:
        facts = read_json(marker)
        symbols: Symbols = np.memmap(file, dtype=np.uint8, mode="r")
        if zlib.crc32(symbols.data) == facts["crc32"]:
            return Corpus(source.name, source.stand_in, symbols, str(facts["sha256"]))
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def _write(source: SourceText, file: Path) -> tuple[int, str, int]:
    """Writes the symbols of a text, whole or not at all.

    Returns:
        Number of characters, SHA-256 of the text, CRC-32 of the symbols.
    """
    part = file.with_suffix(".part")
    digest, count, checksum, ended = hashlib.sha256(), 0, 0, False
    last = np.empty(0, np.uint8)  # symbol of the piece before
    try:
        with part.open("wb") as opened:
            for piece in source.read():
                if ended and piece:
                    raise DataError("the text has more than one line; join its lines by spaces")
                # A newline at the end is not part of the text: editors add it.
                ended = piece.endswith(b"\n")
                text = piece.removesuffix(b"\n")
                symbols = encode(text)
                spaces = np.concatenate([last, symbols]) == ALPHABET.index(" ")
                if (spaces[1:] & spaces[:-1]).any():  # they would be easy to predict
                    raise DataError(f"the text has several spaces in a row; {_REMEDY}")
                last = symbols[-1:] if len(symbols) else last
                count += opened.write(symbols.data)
                checksum = zlib.crc32(symbols.data, checksum)
                digest.update(text)
            opened.flush()
            os.fsync(opened.fileno())
        if not count:
            raise DataError("the text is empty; give another one")
        part.replace(file)
    except DataError as error:
        raise DataError(f"{source.name}: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return count, digest.hexdigest(), checksum
