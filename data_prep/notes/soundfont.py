"""The General-MIDI SoundFont that ``pretty_midi`` ships: reading it, removing its effects.

Source of the layout: SoundFont Technical Specification 2.04, sections 7.5, 7.9 and 8.1.3.
"""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from spaudio.errors import DataError

#: Families of eight programs each, in General-MIDI order; programs 80 and up are synthetic.
FAMILIES = [
    "piano",
    "chromatic_percussion",
    "organ",
    "guitar",
    "bass",
    "strings",
    "ensemble",
    "brass",
    "reed",
    "pipe",
]
PROGRAMS_PER_FAMILY = 8

_CHORUS_SEND, _REVERB_SEND, _INSTRUMENT, _SAMPLE = 15, 16, 41, 53  # generator operators


def load_soundfont() -> bytes:
    """Returns the bytes of ``TimGM6mb.sf2``.

    Raises:
        DataError: If pretty_midi or midirenderer is not installed.
    """
    for package in ("pretty_midi", "midirenderer"):
        if importlib.util.find_spec(package) is None:
            raise DataError(
                f"rendering notes needs {package}; install it with: pip install 'spaudio[demo]'"
            )
    spec = importlib.util.find_spec("pretty_midi")
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else Path()
    path = folder / "TimGM6mb.sf2"
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: SoundFont cannot be read ({error.strerror}); reinstall it with: "
            "pip install --force-reinstall pretty_midi"
        ) from error


def without_effects(soundfont: bytes) -> bytes:
    """Returns a copy whose instruments send nothing to reverb and chorus.

    MIDI controllers can only add to an instrument's own sends, and reverberation would reach the
    next note.

    Raises:
        DataError: If ``soundfont`` is not in SoundFont 2 format.
    """
    dry = bytearray(soundfont)
    for name, start, end in _lists(soundfont):
        if name != b"pdta":
            continue
        for part, first, last in _chunks(soundfont, start, end):
            if part not in (b"pgen", b"igen"):
                continue
            for offset in range(first, last - 3, 4):
                if int.from_bytes(dry[offset : offset + 2], "little") in (
                    _CHORUS_SEND,
                    _REVERB_SEND,
                ):
                    dry[offset + 2 : offset + 4] = b"\0\0"
    return bytes(dry)


def program_samples(soundfont: bytes) -> dict[int, frozenset[int]]:
    """Returns the samples that each program of bank 0 consists of.

    Args:
        soundfont: A SoundFont 2 file.

    Returns:
        The indices of its samples over all pitches and velocities, by program number.

    Raises:
        DataError: If ``soundfont`` is not in SoundFont 2 format.
    """
    tables = {
        part: soundfont[first:last]
        for name, start, end in _lists(soundfont)
        if name == b"pdta"
        for part, first, last in _chunks(soundfont, start, end)
    }
    presets = list(struct.iter_unpack("<20xHHH12x", tables[b"phdr"]))  # program, bank, first zone
    instruments = [first for (first,) in struct.iter_unpack("<20xH", tables[b"inst"])]
    starts = {
        kind: [first for first, _ in struct.iter_unpack("<HH", tables[kind + b"bag"])]
        for kind in (b"p", b"i")
    }
    generators = {
        kind: list(struct.iter_unpack("<HH", tables[kind + b"gen"])) for kind in (b"p", b"i")
    }

    def amounts(kind: bytes, operator: int, first: int, last: int) -> Iterator[int]:
        """Amounts of an operator in some zones of presets (``p``) or instruments (``i``)."""
        for found, amount in generators[kind][starts[kind][first] : starts[kind][last]]:
            if found == operator:
                yield amount

    return {
        program: frozenset(
            sample
            for instrument in amounts(b"p", _INSTRUMENT, zone, following[2])
            for sample in amounts(
                b"i", _SAMPLE, instruments[instrument], instruments[instrument + 1]
            )
        )
        for (program, bank, zone), following in pairwise(presets)
        if bank == 0
    }


def _lists(soundfont: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, first and last offset of the LIST chunks of a SoundFont."""
    if soundfont[:4] != b"RIFF" or soundfont[8:12] != b"sfbk":
        raise DataError("not a SoundFont 2 file (no RIFF sfbk header); give an .sf2 file")
    for name, start, end in _chunks(soundfont, 12, len(soundfont)):
        if name == b"LIST":
            yield soundfont[start : start + 4], start + 4, end


def _chunks(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, first and last offset of the RIFF chunks between two offsets."""
    while start + 8 <= end:
        name = content[start : start + 4]
        (size,) = struct.unpack_from("<I", content, start + 4)
        yield name, start + 8, min(start + 8 + size, end)
        start += 8 + size + size % 2
