import numpy as np
import pytest

from spaudio.audio.chunks import cut_windows


@pytest.mark.parametrize(
    ("samples", "length"),
    [(1, 1), (1, 7), (6, 7), (7, 7), (8, 7), (14, 7), (20, 10), (63, 1), (65, 64)],
)
def test_windows_follow_each_other_and_the_last_ends_with_the_stream(
    samples: int, length: int
) -> None:
    stream = np.arange(samples, dtype=np.float32)
    rng = np.random.default_rng(samples)
    pieces = np.split(stream, np.sort(rng.integers(0, samples + 1, 5)))  # empty ones too
    windows = list(cut_windows(pieces, length))
    assert len(windows) == -(-samples // length)
    assert {len(window) for window in windows} == {min(samples, length)}
    starts = [i * length for i in range(len(windows) - 1)]
    for start, window in zip([*starts, samples - len(windows[-1])], windows, strict=True):
        np.testing.assert_array_equal(window, stream[start : start + len(window)])
    assert list(cut_windows([], length)) == []
