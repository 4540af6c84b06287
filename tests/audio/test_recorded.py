"""The start of a recording, from names as recorders give them."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from spaudio.audio.recorded import recording_start
from spaudio.errors import DataError

LOCAL = datetime(2024, 5, 1, 12, 30, 5)


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("5E90A4D4.WAV", datetime(2020, 4, 10, 16, 54, 44, tzinfo=UTC)),  # AudioMoth before 2020
        ("20240501_123005.WAV", LOCAL),
        ("20240501_123005T.WAV", LOCAL),  # AudioMoth, triggered
        ("S4A01234_20240501_123005.wav", LOCAL),  # Song Meter
        ("site_20240501_123005-0001.wav", LOCAL),  # a counter, not an offset
        ("2024-05-01T12-30-05.flac", LOCAL),
        ("site 3 2024-05-01 12:30:05 left.flac", LOCAL),
        ("20240501T123005Z.wav", LOCAL.replace(tzinfo=UTC)),
        ("20240501T123005.250+0200.wav",
         LOCAL.replace(microsecond=250_000, tzinfo=timezone(timedelta(hours=2)))),
        ("20240501T123005-0930_x.wav", LOCAL.replace(tzinfo=timezone(-timedelta(hours=9.5)))),
        ("20240501_123005-02:00.wav", LOCAL.replace(tzinfo=timezone(-timedelta(hours=2)))),
        ("r_20240501_123005-0100.wav", LOCAL),  # a counter as well
        ("20240501T123005-0015.wav", LOCAL),
        ("20240501T123005+02.wav", LOCAL.replace(tzinfo=timezone(timedelta(hours=2)))),
        ("20240501_123005-02.wav", LOCAL),  # a counter
    ],
)  # fmt: skip
def test_names_of_recorders(name: str, time: datetime) -> None:
    found = recording_start(Path("deep") / name)
    assert found == time
    assert found.utcoffset() == time.utcoffset()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dog.wav", "holds no start time.* leave out --times"),
        ("20240501.WAV", "holds no start time"),  # as hexadecimal a time of 1987
        ("120240501_1230051.wav", "holds no start time"),
        ("20241301_123005.wav", "20241301_123005 in its name is not a valid time"),
        ("20240501_126005.wav", "not a valid time; rename it, or leave out --times"),
    ],
)
def test_names_without_a_time_are_refused(name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        recording_start(Path(name))
