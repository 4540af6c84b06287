"""The General-MIDI SoundFont that ``pretty_midi`` ships: reads it and removes its effects.

Source of the layout: SoundFont Technical Specification 2.04, sections 7.5, 7.9 and 8.1.3.
"""

import importlib.util
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from spaudio.errors import DataError, how_to_install

#: Families of eight programs each, in General-MIDI order; programs 80 and up are synthetic.
FAMILIES = [
    *("piano", "chromatic_percussion", "organ", "guitar", "bass"),
    *("strings", "ensemble", "brass", "reed", "pipe"),
]
PROGRAMS_PER_FAMILY = 8

_CHORUS_SEND, _REVERB_SEND, _INSTRUMENT, _SAMPLE = 15, 16, 41, 53  # generator operators


def load_soundfont() -> bytes:
    """Returns the bytes of ``TimGM6mb.sf2``.

    Raises:
        DataError: If pretty_midi or midirenderer is not installed.
    """
    folder = Path()
    for package in ("midirenderer", "pretty_midi"):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise DataError(
                f"rendering notes needs {package}; install it with: {how_to_install('notes')}"
            )
        folder = Path(spec.origin).parent
    return (folder / "TimGM6mb.sf2").read_bytes()


def without_effects(soundfont: bytes) -> bytes:
    """Returns a copy whose instruments send nothing to reverb and chorus.

    MIDI controllers can only add to an instrument's own sends, and reverberation would reach the
    next note.

    Raises:
        DataError: If ``soundfont`` is not in SoundFont 2 format.
    """
    dry = bytearray(soundfont)
    tables = _tables(soundfont)
    for first, last in (tables[b"pgen"], tables[b"igen"]):
        generators = np.frombuffer(dry, "<u2", (last - first) // 4 * 2, first).reshape(-1, 2)
        generators[np.isin(generators[:, 0], (_CHORUS_SEND, _REVERB_SEND)), 1] = 0
    return bytes(dry)


def program_samples(soundfont: bytes) -> dict[int, frozenset[int]]:
    """Returns the indices of the samples of each program of bank 0, by program number."""
    tables = {name: soundfont[first:last] for name, (first, last) in _tables(soundfont).items()}
    presets = list(struct.iter_unpack("<20xHHH12x", tables[b"phdr"]))  # program, bank, first zone
    instruments = [first for (first,) in struct.iter_unpack("<20xH", tables[b"inst"])]

    def amounts(kind: bytes, operator: int, first: int, last: int) -> list[int]:
        """Returns an operator's amounts in some zones of presets (``p``) or instruments (``i``)."""
        bag, table = tables[kind + b"bag"], tables[kind + b"gen"]
        start, end = (struct.unpack_from("<H", bag, 4 * i)[0] for i in (first, last))
        found = struct.iter_unpack("<HH", table[4 * start : 4 * end])
        return [amount for name, amount in found if name == operator]

    return {
        program: frozenset(
            sample
            for instrument in amounts(b"p", _INSTRUMENT, zone, following[2])
            for sample in amounts(b"i", _SAMPLE, *instruments[instrument : instrument + 2])
        )
        for (program, bank, zone), following in pairwise(presets)
        if bank == 0
    }


def _tables(soundfont: bytes) -> dict[bytes, tuple[int, int]]:
    """Returns first and last offset of each table in the chunk ``pdta``."""
    if soundfont[:4] != b"RIFF" or soundfont[8:12] != b"sfbk":
        raise DataError("not a SoundFont 2 file (no RIFF sfbk header); give an .sf2 file")
    for _, start, end in _chunks(soundfont, 12, len(soundfont)):
        if soundfont[start : start + 4] == b"pdta":
            return {name: (a, b) for name, a, b in _chunks(soundfont, start + 4, end)}
    return {}


def _chunks(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, first and last offset of the RIFF chunks between two offsets."""
    while start + 8 <= end:
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        yield content[start : start + 4], start + 8, min(start + 8 + size, end)
        start += 8 + size + size % 2
