"""Windows of a text: each prediction counted once, and random ones by seed and epoch alone."""

import numpy as np
import pytest

from spaudio.errors import ConfigError
from spaudio.text.windows import (
    TextWindows,
    WindowBatches,
    collate_windows,
    sliding_windows,
    spread_windows,
)


@pytest.mark.parametrize(
    ("characters", "stride"), [(12, 1), (12, 11), (13, 4), (50, 1), (50, 11), (51, 4), (57, 11)]
)
def test_sliding_windows_predict_each_character_once(characters: int, stride: int) -> None:
    context = 11
    counted = [
        window.start + i + 1
        for window in sliding_windows(characters, context, stride)
        for i in range(window.skip, context)
    ]
    assert counted == list(range(1, characters))


def test_a_prediction_reads_at_least_context_minus_stride_plus_one() -> None:
    windows = sliding_windows(1000, 16, 4)
    assert {window.skip for window in windows[1:-1]} == {12}
    assert windows[-1].skip >= 12


def test_what_is_out_of_range_is_refused() -> None:
    for stride in (0, 12):
        with pytest.raises(ConfigError, match=r"eval\.stride"):
            sliding_windows(100, 11, stride)
    with pytest.raises(ConfigError, match="context=20"):
        TextWindows(np.zeros(20, dtype=np.uint8), 20)
    with pytest.raises(ConfigError, match="context=20"):
        sliding_windows(20, 20, 1)
    with pytest.raises(ConfigError, match="context=20"):
        spread_windows(20, 20, 3)


def test_windows_spread_from_beginning_to_end() -> None:
    windows = spread_windows(1000, 10, 8)
    assert [windows[0].start, windows[-1].start, len(windows)] == [0, 989, 8]
    assert len(spread_windows(14, 10, 8)) == 4  # there are no more


def test_random_windows_depend_on_seed_and_epoch_alone() -> None:
    def draw(seed: int, epoch: int) -> list[list[int]]:
        sampler = WindowBatches(90, 4, 5, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draw(1, 2) == draw(1, 2)
    assert draw(1, 2) != draw(1, 3) != draw(2, 3)
    assert {start for batch in WindowBatches(90, 50, 20) for start in batch} == set(range(90))


def test_every_window_comes_once_in_order() -> None:
    sampler = WindowBatches(7, 3)
    assert list(sampler) == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(sampler) == 3


def test_a_batch_holds_each_window_and_the_character_after_it() -> None:
    text = np.arange(20, dtype=np.uint8)
    dataset = TextWindows(text, 4)
    batch = collate_windows([dataset[3], dataset[len(dataset) - 1]])
    assert batch.symbols.tolist() == [[3, 4, 5, 6, 7], [15, 16, 17, 18, 19]]
    assert batch.skip.tolist() == [0, 0]
    assert batch.num_tokens == 8
