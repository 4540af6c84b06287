"""Hidden parts: those that an answer depends on are found, and no others."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from spaudio.audio.manifest import Clip
from spaudio.report.occlusion import COLUMNS, ROWS, log_odds, measure_importance
from spaudio.report.page.decided import find_decided
from spaudio.report.page.judged import Judged
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.normalise import BandNormaliser


def answer(variants: Sequence[np.ndarray]) -> np.ndarray:
    """Depends on steps 40 to 50 in bands 16 to 24, and against steps 100 on in bands 48 on."""
    return np.array([v[40:50, 16:24].mean() - 0.5 * v[100:, 48:].mean() for v in variants])


def test_the_part_that_decides_is_found() -> None:
    values = np.ones((120, 64), np.float32)
    found = measure_importance(values, answer, np.arange(121.0), np.arange(65.0))
    assert found.drop.shape == (ROWS, COLUMNS)
    row, column = np.unravel_index(found.drop.argmax(), found.drop.shape)
    assert found.seconds[column] <= 45 < found.seconds[column + 1] + 5
    assert found.hertz[row] == 16
    assert found.drop[-1, -1] < -0.1
    [interval] = found.intervals
    # Cells of 5 steps, patches of 3 cells.
    assert interval == (35, 55, pytest.approx(1))
    assert any(low <= 16 and high >= 24 for low, high, _ in found.bands)
    assert (values == 1).all()


def test_what_does_not_matter_has_no_importance() -> None:
    values, edges = np.ones((3, 1), np.float32), np.arange(4.0)
    found = measure_importance(values, lambda v: np.zeros(len(v)), edges, edges[:2])
    assert found.drop.tolist() == [[0, 0, 0]]
    assert (found.intervals, found.bands) == ([], [])


def test_log_odds_of_one_of_several_classes_and_of_independent_classes() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    for share, multi_label in ((logits.softmax(1), False), (logits.sigmoid(), True)):
        expected = (share / (1 - share))[:, 1].log().tolist()
        assert log_odds(logits, 1, multi_label) == pytest.approx(expected, abs=1e-6)


class Halves(torch.nn.Module):
    """Class 0 is the first half of a clip, class 1 the second."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([half.mean(dim=(1, 2)) for half in tokens.chunk(2, dim=1)], dim=1)


class Ones:
    """Stands for the cache."""

    def frames(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        return np.ones((48, 64), np.float32)[start:stop]

    def length(self, path: str) -> int:
        return 48


def test_the_part_that_decided_is_that_of_the_predicted_class() -> None:
    zero, one = np.zeros(64, np.float32), np.ones(64, np.float32)
    config = TokenConfig(16000, stack=1, stem="none")
    front_end = make_front_end(config, BandNormaliser("global", zero, one))
    clips = [Clip("0", "b", "test", "g", 0.48, 16000)]
    data = TokenDataset(clips, "ab", Ones(), front_end)  # type: ignore[arg-type]
    wrong = Judged("0", "g", 0.48, (1,), ((0, 0.9), (1, 0.1)), 0.1, 0.9)
    drops = []
    for temperature in (1.0, 4.0):
        found = find_decided(
            Halves(),
            front_end,
            data,
            [wrong],
            False,
            temperature,  # type: ignore[arg-type]
        )
        drops.append(found["0"].drop)
    drop = drops[0].mean(axis=0)
    assert drop[:8].min() > 0 > drop[-8:].max()
    # Of the probabilities that the page shows, as by `spaudio explain`.
    np.testing.assert_allclose(drops[1], drops[0] / 4, atol=1e-6)
