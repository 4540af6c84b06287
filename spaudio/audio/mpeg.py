"""Frames of MPEG audio (MP3): how much sound a file holds, and what its first frame declares."""

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: Share of its declared bytes that an MPEG file must hold to count as whole.
LEAST_SHARE = 0.99
_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1
# Bit rates in kbit/s, by their index in a header, from 1 on: layers 1 to 3 of MPEG-1; then layer 1,
# and layers 2 and 3, of MPEG-2.
_KILOBITS = {
    1: range(32, 449, 32),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    4: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    5: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_NEAR = 1 << 16  # bytes in which the next MPEG frame is sought


class MpegSound(NamedTuple):
    """What the frames of an MPEG file hold.

    Attributes:
        seconds: Their sum.
        declared: Whether the first frame declares a length, which may be wrong.
    """

    seconds: float
    declared: bool


def mpeg_sound(path: Path) -> MpegSound | None:
    """Adds up the frames of an MPEG file whose first frame does not declare its whole length.

    libsndfile takes the length from the first frame. If that frame declares none, it guesses; if
    files were joined, it reads only the first of them.

    Returns:
        None if the first frame declares as many bytes as the file has, if no frame is found, or if
        the length of a frame is not known (free format).

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        at: int | None = after_tags(file, 0)
        assert at is not None
        size, declared = path.stat().st_size, xing_bytes(file, at)
        if declared and LEAST_SHARE * (size - at) <= declared:
            return None
        seconds, second = 0.0, None
        while at is not None and at + 4 <= size:
            file.seek(at)
            header = file.read(4)
            if frame := _frame(header):
                second = header[1:2]
                seconds += frame.samples / frame.rate
                at += frame.length
            elif (after := after_tags(file, at)) > at:
                at = after
            elif _free_format(header):
                return None
            else:
                at = _next_frame(file, at + 1, second)
        return MpegSound(seconds, declared is not None) if seconds else None


class _Frame(NamedTuple):
    """A frame's bytes and samples per channel, and their rate in Hz."""

    length: int
    samples: int
    rate: int


def _frame(header: bytes) -> _Frame | None:
    """Parses the four-byte header of a frame; returns None if the bytes are not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first = version == 3  # MPEG-1; MPEG-2 and 2.5 have half and a quarter of its rates
    hertz = _RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    kilobits = _KILOBITS[layer if first else 4 if layer == 1 else 5][bits - 1]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return _Frame((12_000 * kilobits // hertz + padding) * 4, 384, hertz)
    samples = 1152 if first or layer == 2 else 576
    return _Frame(125 * samples * kilobits // hertz + padding, samples, hertz)


def _free_format(header: bytes) -> bool:
    """Whether the bytes are the header of a free-format frame, which does not give its length."""
    return _frame(header) is None and (
        _frame(header[:2] + bytes([header[2] | 0x10]) + header[3:]) is not None
    )


def _next_frame(file: BinaryIO, at: int, second: bytes | None) -> int | None:
    """Returns where the next two frames in a row begin, or None if that is not near.

    Args:
        file: The file.
        at: Where to begin.
        second: Second byte of the frames before, which these share; None takes any.
    """
    file.seek(at)
    block = file.read(_NEAR)
    for found in re.finditer(b"\xff" + (re.escape(second) if second else b"[\xe2-\xff]"), block):
        file.seek(at + found.start())
        if frame := _frame(file.read(4)):
            file.seek(at + found.start() + frame.length)
            if _frame(file.read(4)):
                return at + found.start()
    return None


def after_tags(file: BinaryIO, at: int) -> int:
    """Returns the position after the tags, if any, that begin at ``at``."""
    while True:
        file.seek(at)
        head = file.read(32)
        if head.startswith(b"ID3") and len(head) >= 10:
            # The size of an ID3v2 tag has 7 bits per byte.
            at += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            # Its size counts the items and the footer, but not the header. A bit says whether these
            # bytes are the header or the footer.
            length, is_header = struct.unpack_from("<I", head, 12)[0], head[23] & 0x20
            at += 32 + (length if is_header else 0)
        else:
            return at


def xing_bytes(file: BinaryIO, start: int) -> int | None:
    """Returns how many bytes an MPEG file declares, counted from its first frame at ``start``.

    Most encoders write a first frame without sound that holds their number (Xing or VBRI header).

    Returns:
        None if there is no such frame; 0 if it does not hold the number.
    """
    file.seek(start)
    frame = file.read(64)
    if (at := frame.find(b"VBRI")) >= 0:
        return int.from_bytes(frame[at + 10 : at + 14], "big")
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return None
    flags, *counts = struct.unpack_from(">III", frame, at + 4)
    declared: int = counts[1 if flags & 1 else 0]
    return declared if flags & 2 else 0
