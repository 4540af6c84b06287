"""Which clips a report shows: some of each class, and the training clips nearest to a test clip."""

import numpy as np
import pytest

from spaudio.audio.manifest import Clip
from spaudio.report.choose_clips import some_of_each_class
from spaudio.report.nearest import find_nearest
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.segments import SegmentConfig
from tests.fixtures import toy


def test_clips_of_many_classes_are_not_more_than_asked_for() -> None:
    clips = [Clip(f"{i}", f"class {i % 50}", "test", "g", 1.0, 8000) for i in range(200)]
    for most, expected in ((120, 100), (30, 30)):
        chosen = some_of_each_class(clips, False, most)
        assert sum(map(len, chosen.values())) == expected


def summed(data: TokenDataset, clip: Clip) -> np.ndarray:
    """The sum over all tokens of a clip."""
    items = [item for item in range(len(data)) if data.clip(item) == clip]
    return np.concatenate([data[0, item].tokens for item in items]).sum(axis=0)


@pytest.mark.parametrize("seconds", [None, 0.03])
def test_the_nearest_training_clip_of_a_class_is_found(seconds: float | None) -> None:
    """Whole, or by all of its segments together."""
    cut, cache = SegmentConfig(seconds), toy.ToyCache()
    train, test = (
        TokenDataset(toy.dataset(numbers).clips, "ab", cache, toy.FRONT_END, segments=cut)  # type: ignore[arg-type]
        for numbers in (range(20), range(30, 34))
    )
    wanted = {index: ["a", "b"] for index in range(4)}
    near = find_nearest(toy.Summed(), train, test, wanted, False)  # type: ignore[arg-type]
    known, asked = (np.stack([summed(data, clip) for clip in data.clips]) for data in (train, test))
    similarity = asked @ (known / np.linalg.norm(known, axis=1, keepdims=True)).T
    for kind, name in enumerate("ab"):
        best = 2 * similarity[:, kind::2].argmax(axis=1) + kind
        assert [near[index, name] for index in range(4)] == [str(number) for number in best]
