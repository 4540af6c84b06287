"""Checks audio files against what their container declares, where the decoder does not.

libsndfile reads a truncated Ogg, W64, RF64, CAF or SPHERE file as a shorter whole one, and skips
damaged Ogg pages.
"""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from spaudio.audio.mpeg import LEAST_SHARE, after_tags, xing_bytes

#: Containers whose end can be checked, by libsndfile's names: by a function here, or (`None`) by a
#: length that libsndfile compares with the file's. Files in other containers are refused, because a
#: truncated one could not be told from a whole one.
CONTAINERS: dict[str, Callable[[BinaryIO, int], str | None] | None] = {}

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_PADDING = 4096  # bytes after the samples of a WAV file that may be anything
_UNKNOWN = 1 << 62  # writers to a pipe declare a length near 2^63 or 2^64
_NIST_FIELD = re.compile(rb"^(sample_count|channel_count|sample_n_bytes) -i (\d+)\s*$", re.M)


def fault(path: Path, container: str) -> str | None:
    """Returns why a file would not be read completely, with the remedy.

    None means that it would be, or that its container does not tell.

    Raises:
        OSError: If the file cannot be read.
    """
    check = CONTAINERS[container]
    if check is None:
        return None
    with path.open("rb") as file:
        return check(file, path.stat().st_size)


def _ogg(file: BinaryIO, size: int) -> str | None:
    """Every page must be whole, and the last one marked as the end of its stream (RFC 3533).

    Of chained streams, libsndfile reads only the first.
    """
    pages: dict[bytes, int] = {}  # number of the last page, by stream
    ended = False
    while (header := file.read(27)).startswith(b"OggS"):
        segments = file.read(header[26]) if len(header) == 27 else b""
        body = file.read(sum(segments))
        if len(header) < 27 or len(segments) < header[26] or len(body) < sum(segments):
            return _damaged("it does not end with a whole Ogg page")
        checksum, stream = int.from_bytes(header[22:26], "little"), header[14:18]
        number = int.from_bytes(header[18:22], "little")
        if _ogg_checksum(header[:22] + bytes(4) + header[26:] + segments + body) != checksum:
            return _damaged(f"page {number} does not match its checksum")
        if number != pages.get(stream, number - 1) + 1:
            return _damaged(f"page {number} follows page {pages[stream]}")
        pages[stream] = number
        if ended and header[5] & 2:  # the beginning of a stream
            return (
                "it holds several streams one after another, of which the decoder reads only the "
                "first; join them: ffmpeg -i OLD.ogg NEW.flac"
            )
        ended = bool(header[5] & 4)
    return None if ended else _damaged("its last Ogg page is not marked as the end of the stream")


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with zlib's polynomial, but most significant bit first and starting from zero."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _wav(file: BinaryIO, size: int) -> str | None:
    """The samples must be there, and what follows them must be a chunk or padding.

    libsndfile reads no more samples than are declared. Recorders that crash declare too little, and
    so do files above 4 GiB, whose size wraps. A length of zero is read to the end of the file.
    """
    order = {b"RIFF": "<", b"RIFX": ">"}.get(file.read(4))
    if order is None or (found := _find_chunk(file, b"data", order)) is None:
        return None
    at, length = found
    end = at + length
    if missing := _missing(at, length, size):
        return missing
    if not length or size <= end + _PADDING or order == ">":
        return None
    for start in (end, end + length % 2):  # not every writer pads
        file.seek(start)
        name, content = struct.unpack("<4sI", file.read(8))
        if name.isascii() and name.decode().isprintable() and start + 8 + content <= size:
            return None
    return (
        f"its header declares {length} bytes of samples, but {size - end} bytes that are not a "
        "chunk follow them, as in a file above 4 GiB or from a recorder that crashed; read it to "
        "its end: ffmpeg -ignore_length 1 -i OLD.wav NEW.flac"
    )


def _aiff(file: BinaryIO, size: int) -> str | None:
    found = _find_chunk(file, b"SSND", ">")
    return found and _missing(*found, size)


def _find_chunk(file: BinaryIO, wanted: bytes, order: str) -> tuple[int, int] | None:
    """Returns position and declared length of a chunk's content in a RIFF or IFF file."""
    at, name, length = 12, b"", 0
    while name != wanted:
        at += length + length % 2
        file.seek(at)
        if len(header := file.read(8)) < 8:
            return None
        name, length = struct.unpack(f"{order}4sI", header)
        at += 8
    return at, length


def _missing(at: int, declared: int, size: int) -> str | None:
    """Returns why samples are missing from a file; libsndfile tells it only of few chunks."""
    if at + declared <= size or is_unknown(declared):
        return None
    return (
        f"truncated (header declares {declared} bytes of samples, file holds {size - at}); fetch "
        "it again"
    )


def is_unknown(declared: int) -> bool:
    """Whether a declared number of bytes is the placeholder of a program that wrote to a pipe."""
    return 0x7F00_0000 <= declared <= 0x8000_0000 or declared >= 0xFF00_0000


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
    start = after_tags(file, 0)
    declared = xing_bytes(file, start)
    if not declared or size - start >= LEAST_SHARE * declared:
        return None
    return _shorter(start + declared, size)


def _shorter(declared: int, size: int) -> str | None:
    if not size < declared < _UNKNOWN:
        return None
    return _damaged(f"its header declares {declared} bytes, it holds {size}")


def _damaged(what: str) -> str:
    return f"truncated or damaged ({what}); fetch it again"


CONTAINERS |= {
    **dict.fromkeys(("AU", "FLAC")),
    "AIFF": _aiff,
    **dict.fromkeys(("WAV", "WAVEX"), _wav),
    **dict.fromkeys(("MP3", "MPEG"), _mpeg),
    "OGG": _ogg,
    "W64": _wave64,
    "RF64": _rf64,
    "CAF": _caf,
    "NIST": _sphere,
}
