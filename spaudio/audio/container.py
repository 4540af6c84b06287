"""Checks audio files against what their container declares, where the decoder does not.

libsndfile reads a truncated Ogg, W64, RF64, CAF or SPHERE file as a shorter whole one, and skips
damaged Ogg pages.
"""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

#: Containers whose end can be checked, by libsndfile's names: by a function here, or (`None`) by a
#: length that libsndfile compares with the file's. Files in other containers are refused, because a
#: truncated one could not be told from a whole one.
CONTAINERS: dict[str, Callable[[BinaryIO, int], str | None] | None] = {}

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_UNKNOWN = 1 << 62  # writers to a pipe declare a length near 2^63 or 2^64
_MPEG_SLACK = 0.99  # of the bytes that an MPEG file declares
_MPEG_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1
# Kilobits per second by their number, from 1 on: layers 1 to 3 of MPEG-1; layer 1 and layers 2 and
# 3 of MPEG-2.
_MPEG_KILOBITS = {
    1: range(32, 449, 32),
    2: (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    4: (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    5: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_NEAR = 1 << 16  # bytes in which the next MPEG frame is sought
_NIST_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)\s*$", re.M)


def truncation(path: Path, container: str) -> str | None:
    """Returns what a file lacks of its declared content; None if nothing, or if it declares none.

    Raises:
        OSError: If the file cannot be read.
    """
    check = CONTAINERS[container]
    if check is None:
        return None
    with path.open("rb") as file:
        return check(file, path.stat().st_size)


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Every page must be whole, and the last one marked as the end of its stream (RFC 3533)."""
    pages: dict[bytes, int] = {}  # number of the last page, by stream
    ended = False
    while (header := file.read(27)).startswith(b"OggS"):
        segments = file.read(header[26]) if len(header) == 27 else b""
        body = file.read(sum(segments))
        if len(header) < 27 or len(segments) < header[26] or len(body) < sum(segments):
            return "it does not end with a whole Ogg page"
        checksum, stream = int.from_bytes(header[22:26], "little"), header[14:18]
        number = int.from_bytes(header[18:22], "little")
        if _ogg_checksum(header[:22] + bytes(4) + header[26:] + segments + body) != checksum:
            return f"page {number} does not match its checksum"
        if number != pages.get(stream, number - 1) + 1:
            return f"page {number} follows page {pages[stream]}"
        pages[stream] = number
        ended = bool(header[5] & 4)
    return None if ended else "its last Ogg page is not marked as the end of the stream"


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with zlib's polynomial, but most significant bit first and starting from zero."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _wave64(file: BinaryIO, size: int) -> str | None:
    header = file.read(24)
    return _shorter(struct.unpack_from("<Q", header, 16)[0], size) if len(header) == 24 else None


def _rf64(file: BinaryIO, size: int) -> str | None:
    """The first chunk, ds64, holds the 64-bit size (EBU 3306)."""
    header = file.read(28)
    if len(header) < 28 or header[12:16] != b"ds64":
        return None
    return _shorter(struct.unpack_from("<Q", header, 20)[0] + 8, size)


def _caf(file: BinaryIO, size: int) -> str | None:
    """Chunks follow each other: a type of 4 bytes, a big-endian size of 8, the content."""
    at = 8
    while at + 12 <= size:
        file.seek(at)
        length = struct.unpack(">4xq", file.read(12))[0]
        if length < 0:  # the data chunk of a writer to a pipe, which is the last one
            return None
        at += 12 + length
    return _shorter(at, size)


def _sphere(file: BinaryIO, size: int) -> str | None:
    header = file.read(1024)
    fields = {name: int(value) for name, value in _NIST_FIELD.findall(header)}
    offset = header[8:16].strip()
    if b"sample_count" not in fields or not offset.isdigit():
        return None
    # A-law and mu-law have one byte per sample, which not every header declares.
    width = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 1)
    return _shorter(int(offset) + fields[b"sample_count"] * width, size)


def _mpeg(file: BinaryIO, size: int) -> str | None:
    """The first frame usually holds the number of bytes.

    Encoders differ by a frame, and in whether they count tags at the end: hence 1 % of slack.
    """
    start = _after_tags(file, 0)
    declared = _xing_bytes(file, start)
    if not declared or size - start >= _MPEG_SLACK * declared:
        return None
    return _shorter(start + declared, size)


class MpegSound(NamedTuple):
    """What the frames of an MPEG file hold.

    Attributes:
        seconds: Their sum.
        declared: Whether the first frame declares a length, which may be wrong.
    """

    seconds: float
    declared: bool


def mpeg_sound(path: Path) -> MpegSound | None:
    """Adds up the frames of an MPEG file whose first frame does not declare how long the file is.

    libsndfile takes the length from the first frame: it guesses if that does not declare one, and
    of files that were joined it reads the first.

    Returns:
        None if the first frame declares as many bytes as the file has, if no frame is found, or if
        the length of a frame is not known (free format).

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        at: int | None = _after_tags(file, 0)
        assert at is not None
        size, declared = path.stat().st_size, _xing_bytes(file, at)
        if declared and _MPEG_SLACK * (size - at) <= declared:
            return None
        seconds, second = 0.0, None
        while at is not None and at + 4 <= size:
            file.seek(at)
            header = file.read(4)
            if frame := _mpeg_frame(header):
                second = header[1:2]
                seconds += frame.samples / frame.rate
                at += frame.length
            elif (after := _after_tags(file, at)) > at:
                at = after
            elif _free_format(header):
                return None
            else:
                at = _next_mpeg_frame(file, at + 1, second)
        return MpegSound(seconds, declared is not None) if seconds else None


class _MpegFrame(NamedTuple):
    """A frame's bytes and samples per channel, and their rate in Hz."""

    length: int
    samples: int
    rate: int


def _mpeg_frame(header: bytes) -> _MpegFrame | None:
    """Reads the four bytes with which a frame begins; None if they are not those of one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    first = version == 3  # MPEG-1; MPEG-2 and 2.5 have half and a quarter of its rates
    hertz = _MPEG_RATES[rate] >> (0 if first else 1 if version == 2 else 2)
    kilobits = _MPEG_KILOBITS[layer if first else 4 if layer == 1 else 5][bits - 1]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return _MpegFrame((12_000 * kilobits // hertz + padding) * 4, 384, hertz)
    samples = 1152 if first or layer == 2 else 576
    return _MpegFrame(125 * samples * kilobits // hertz + padding, samples, hertz)


def _free_format(header: bytes) -> bool:
    """Whether a frame begins whose length its header does not give."""
    return _mpeg_frame(header) is None and (
        _mpeg_frame(header[:2] + bytes([header[2] | 0x10]) + header[3:]) is not None
    )


def _next_mpeg_frame(file: BinaryIO, at: int, second: bytes | None) -> int | None:
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
        if frame := _mpeg_frame(file.read(4)):
            file.seek(at + found.start() + frame.length)
            if _mpeg_frame(file.read(4)):
                return at + found.start()
    return None


def _after_tags(file: BinaryIO, at: int) -> int:
    """Returns where the tags that begin at a place end."""
    while True:
        file.seek(at)
        head = file.read(32)
        if head.startswith(b"ID3") and len(head) >= 10:
            # The size of an ID3v2 tag has 7 bits per byte.
            at += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(head[6:10]))
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX") and len(head) == 32:
            # Its size counts the items and the footer, but not this header, which a bit tells from
            # the footer.
            length, is_header = struct.unpack_from("<I", head, 12)[0], head[23] & 0x20
            at += 32 + (length if is_header else 0)
        else:
            return at


def _xing_bytes(file: BinaryIO, start: int) -> int | None:
    """Returns the bytes that an MPEG file declares to have from its first frame, at ``start``, on.

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


def _shorter(declared: int, size: int) -> str | None:
    if not size < declared < _UNKNOWN:
        return None
    return f"its header declares {declared} bytes, it holds {size}"


CONTAINERS |= {
    **dict.fromkeys(("WAV", "WAVEX", "AIFF", "AU", "FLAC")),
    **dict.fromkeys(("MP3", "MPEG"), _mpeg),
    "OGG": _ogg,
    "W64": _wave64,
    "RF64": _rf64,
    "CAF": _caf,
    "NIST": _sphere,
}
