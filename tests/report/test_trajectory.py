"""The trajectory before and after a filter: what is recorded, projected and drawn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread
from torch import nn

from spaudio.errors import ConfigError
from spaudio.filters import make_filter
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.report.trajectory import (
    draw_trajectory,
    plot_trajectory,
    principal_axes,
    record_trajectory,
    relative_step,
)


@pytest.mark.parametrize("place", ["after", "attention"])
def test_what_enters_and_leaves_the_filter_is_recorded(place: str) -> None:
    shape = EncoderConfig(dim=12, layers=2, heads=2, filter_place=place)
    model = Classifier(5, 3, shape, {"name": "depthwise"}).eval()
    bank = model.encoder.filters[0]
    x = torch.randn(2, 9, 5)
    before, after = record_trajectory(bank, lambda: model(x))
    assert before.shape == (9, 12)
    torch.testing.assert_close(after, bank(before.unsqueeze(0))[0])
    assert not bank._forward_hooks
    with pytest.raises(ConfigError, match="did not call"):
        record_trajectory(nn.Linear(1, 1), lambda: model(x))


def test_trajectory_of_a_model(tmp_path: Path, figures: list[Figure]) -> None:
    shape = EncoderConfig(dim=8, layers=1, heads=2)
    model = Classifier(5, 3, shape, {"name": "haar"})
    path = tmp_path / "trajectory.png"
    assert draw_trajectory(model, torch.randn(9, 5), path, title="clip.wav")
    assert figures[0].get_suptitle() == "clip.wav; haar of layer 0"
    path.unlink()
    assert not draw_trajectory(model, torch.randn(1, 5), path, title="too short")
    without = Classifier(5, 3, shape, {"name": "none"})
    assert not draw_trajectory(without, torch.randn(9, 5), path, title="no filter")
    assert not path.exists()


def test_axes_are_those_of_the_greatest_spread() -> None:
    angle = torch.linspace(0, 2 * math.pi, 50, dtype=torch.float64)[:-1]
    circle = torch.stack([5 * angle.cos(), 3 * angle.sin()], dim=1)
    turn, _ = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))
    raw = circle @ turn[:2] + 4.0
    first, second, share = principal_axes(raw, raw)
    assert torch.equal(first, second)
    torch.testing.assert_close(first.abs(), circle.abs(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(share, torch.tensor([25 / 34, 9 / 34], dtype=torch.float64))
    # Both trajectories lie on the axes of both: what moved between them is seen.
    moved, _, _ = principal_axes(raw, raw + 100 * turn[0])
    assert moved.square().sum() > 10 * circle.square().sum()


def test_step_is_relative_to_the_spread() -> None:
    torch.manual_seed(0)
    noise = torch.randn(4000, 8)
    assert relative_step(noise) == pytest.approx(math.sqrt(2), abs=0.03)
    smoothed = make_filter("haar", 8, levels=4)(noise.unsqueeze(0))[0, :, 4:]
    assert relative_step(smoothed) < 0.8 * math.sqrt(2)
    assert relative_step(100 * noise + 7) == pytest.approx(relative_step(noise), rel=1e-6)
    assert relative_step(torch.ones(4, 2)) == 0


def test_the_figure_reaches_the_disk(tmp_path: Path) -> None:
    before, after = torch.randn(2, 70, 6)
    plot_trajectory(
        before, after, tmp_path / "trajectory.png", labels="a$_\\ {}^" * 8 + "abcdef", title="t$"
    )
    assert imread(tmp_path / "trajectory.png").ndim == 3
    for wrong, named in ((after[:3], r"\(3, 6\)"), (after.clone().fill_(math.nan), "finite")):
        with pytest.raises(ConfigError, match=named):
            plot_trajectory(before, wrong, tmp_path / "other.png")
    with pytest.raises(ConfigError, match="70 tokens need as many labels; got 2"):
        plot_trajectory(before, after, tmp_path / "other.png", labels="ab")
    assert not (tmp_path / "other.png").exists()
