"""Reads the start time of a recording from its file name."""

import re
from datetime import UTC, datetime
from pathlib import Path

from spaudio.errors import DataError

# 20240501_123000, 20240501T123000Z, 2024-05-01_12-30-00, 2024-05-01T12:30:00.5+02:00, and the like,
# anywhere in the name. A hyphen and four digits, as in 20240501_123000-0100, are a counter; only
# after an ISO time, which has a T, are they an offset.
_DATE_TIME = re.compile(
    r"(?<!\d)(?P<date>\d{4}-?\d{2}-?\d{2})(?:(?P<iso>T)|[_ -])"
    r"(?P<time>\d{2}[-:_]?\d{2}[-:_]?\d{2})(?!\d)(?P<fraction>[.,]\d{1,6})?"
    r"(?P<zone>Z|(?:[+-](?=\d\d:)|\+|(?(iso)-|(?!)))(?:00:?00|(?:0[1-9]|1[0-4]):?(?:00|15|30|45)"
    r"|(?(iso)(?:0\d|1[0-4])|(?!)))(?!\d))?"
)
# AudioMoth's first firmware: the whole name is the Unix time in hexadecimal.
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_YEARS = range(2010, 2050)  # of recordings with a hexadecimal name; 20240501 would be in 1987


def recording_start(path: Path) -> datetime:
    """Reads when a recording began.

    Args:
        path: Its file. The name is AudioMoth's hexadecimal time (``5E90A4D4.WAV``, in UTC), or
            contains date and time, as in ``20240501_123000`` or ISO 8601. Without a zone (``Z`` or
            an offset), the time is local.

    Raises:
        DataError: If the name holds no time, or an invalid one.
    """
    stem = path.stem
    if _HEX.fullmatch(stem):
        found = datetime.fromtimestamp(int(stem, 16), UTC)
        if found.year in _YEARS:
            return found
    match = _DATE_TIME.search(stem)
    if match is None:
        raise DataError(
            f"{path}: its name holds no start time; expected YYYYMMDD_HHMMSS, an ISO time, or "
            "AudioMoth's hexadecimal one. Rename it, or leave out --times"
        )
    date, time = (re.sub(r"\D", "", match[part]) for part in ("date", "time"))
    fraction = (match["fraction"] or "").replace(",", ".")
    try:
        return datetime.fromisoformat(f"{date}T{time}{fraction}{match['zone'] or ''}")
    except ValueError as error:
        raise DataError(
            f"{path}: {match[0]} in its name is not a valid time; rename it, or leave out --times"
        ) from error
