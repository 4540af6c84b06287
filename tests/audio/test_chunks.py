import numpy as np
import pytest

from spaudio.audio.chunks import cut_windows


@pytest.mark.parametrize("hop", [None, 1, 3])
@pytest.mark.parametrize(
    ("samples", "length"),
    [(1, 1), (1, 7), (6, 7), (7, 7), (8, 7), (14, 7), (20, 10), (63, 1), (65, 64)],
)
def test_windows_follow_each_other_and_the_last_ends_with_the_stream(
    samples: int, length: int, hop: int | None
) -> None:
    hop = None if hop is None else min(hop, length)
    stream = np.arange(samples, dtype=np.float32)
    rng = np.random.default_rng(samples)
    pieces = np.split(stream, np.sort(rng.integers(0, samples + 1, 5)))  # empty ones too
    windows = list(cut_windows(pieces, length, hop))
    expected = list(range(0, max(1, samples - length + 1), hop or length))
    if expected[-1] + length < samples:
        expected.append(samples - length)
    assert [window.start for window in windows] == expected
    for start, wave in windows:
        np.testing.assert_array_equal(wave, stream[start : start + min(samples, length)])
    assert list(cut_windows([], length, hop)) == []


def test_a_window_does_not_wait_for_the_sound_after_it() -> None:
    given = []

    def pieces() -> object:
        for number in range(6):
            given.append(number)
            yield np.full(2, number, np.float32)

    seen = [(len(given), window.start) for window in cut_windows(pieces(), 4, 2)]  # type: ignore[arg-type]
    assert seen == [(2, 0), (3, 2), (4, 4), (5, 6), (6, 8)]
