"""Figures of filters, front-end, mask and trajectory: what is drawn, and that files are whole."""

import copy
import math
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from spaudio.filters import FILTERS, FilterBank, TokenFilter, make_filter
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.report.figures.drawing import LOWEST_DB
from spaudio.report.figures.filters_plot import aligned_taps, filters_of, plot_filters
from spaudio.report.figures.front_end_plot import plot_front_end
from spaudio.report.figures.mask_plot import plot_mask
from spaudio.report.figures.trajectory_plot import plot_trajectory, principal_axes, relative_step
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.scales import mel_edges
from spaudio.tokens.waveform_filterbank import WaveformFilterbank

SMALL = EncoderConfig(dim=8, layers=2, heads=2)
SECONDS = {"token_seconds": 0.02, "frame_seconds": 0.01}


def tuned(frequencies: list[float], size: int = 32) -> FilterBank:
    """A bank of windowed cosines, frequencies in cycles/token."""
    bank = FilterBank(len(frequencies), size, causal=True)
    wave = torch.outer(torch.tensor(frequencies), 2 * math.pi * torch.arange(float(size)))
    with torch.no_grad():
        bank.kernels.copy_(wave.cos() * torch.hann_window(size))
    return bank


def test_kernels_and_responses_are_sorted_by_frequency(
    tmp_path: Path, figures: list[Figure]
) -> None:
    after: dict[str, TokenFilter] = {"first": tuned([0.4, 0.1, 0.25]), "second": tuned([0.3])}
    before = copy.deepcopy(after)
    with torch.no_grad():
        for parameter in before["first"].parameters():
            parameter.mul_(-1)
    assert plot_filters(before, after, tmp_path / "filters.png", token_seconds=0.01)
    axes = [a for a in figures[0].axes if a.images and a.get_title()]
    assert len(axes) == 2 * 4  # layers are rows; kernels and responses, before and after
    assert [a.get_ylabel() for a in axes[::4]] == ["first\nkernel", "second\nkernel"]
    then, now = (torch.as_tensor(axes[i].images[0].get_array()) for i in (0, 2))
    torch.testing.assert_close(now.float(), tuned([0.1, 0.25, 0.4]).kernels.detach())
    torch.testing.assert_close(then, -now)
    # Peaks at 10, 25 and 40 Hz of 100 tokens per second.
    response = axes[3]
    assert list(response.images[0].get_extent()[:2]) == [0, 50]
    magnitude = torch.as_tensor(response.images[0].get_array())
    hertz = magnitude.argmax(dim=1) * (50 / (magnitude.shape[1] - 1))
    assert hertz.tolist() == pytest.approx([10, 25, 40], abs=1)
    assert magnitude.max() == 0
    assert magnitude.min() >= LOWEST_DB - 1e-4
    curve = torch.as_tensor(response.lines[0].get_xdata())
    assert curve.tolist() == pytest.approx([10, 25, 40], abs=1.5)


def test_every_filter_can_be_drawn(tmp_path: Path) -> None:
    filters = {
        name: make_filter(name, 8, causal=i % 2 == 0)
        for i, name in enumerate(FILTERS)
        if name != "none"
    }
    filters["half precision"] = FilterBank(4, 4, dtype=torch.bfloat16)  # NumPy has no bfloat16
    assert plot_filters(filters, filters, tmp_path / "filters.png")
    assert imread(tmp_path / "filters.png").std() > 0
    assert [p.name for p in tmp_path.iterdir()] == ["filters.png"]


def test_scales_share_the_axis_of_tokens() -> None:
    filter = make_filter("multiscale", scales=[(1, 2), (1, 5)])
    taps, first = aligned_taps(filter)
    assert first == -2
    short, long = (k.detach().flatten() for k in filter.taps())
    torch.testing.assert_close(taps[0, 2:4], short)
    assert taps[0, [0, 1, 4]].isnan().all()
    torch.testing.assert_close(taps[1], long)


def test_without_a_filter_nothing_is_drawn(tmp_path: Path) -> None:
    model, path = Classifier(5, 3, SMALL, {"name": "none"}), tmp_path / "figure.png"
    assert not plot_filters(filters_of(model), filters_of(model), path)
    assert not plot_mask(model, torch.randn(9, 5), None, path, title="", **SECONDS)
    assert not plot_trajectory(model, torch.randn(9, 5), path, title="")
    model = Classifier(5, 3, SMALL, {"name": "haar"})
    assert not plot_trajectory(model, torch.randn(1, 5), path, title="too short")
    assert not plot_trajectory(model, torch.full((9, 5), math.nan), path, title="not finite")
    assert not list(tmp_path.iterdir())


def test_the_front_end_stands_against_the_mel_scale(tmp_path: Path, figures: list[Figure]) -> None:
    bank = WaveformConfig(num_filters=12, init="mel")
    config = TokenConfig(8000, "waveform", f_min=300.0, f_max=2000.0, waveform=bank)
    before, after = WaveformFilterbank(config), WaveformFilterbank(config)
    with torch.no_grad():
        after.filters.weight.copy_(before.filters.weight[torch.randperm(12)])
    plot_front_end(before, after, tmp_path / "frontend.png")
    first, second, centres = figures[0].axes[:3]
    drawn = [torch.as_tensor(axes.images[0].get_array()) for axes in (first, second)]
    torch.testing.assert_close(*drawn)  # the order of the filters in the bank is not shown
    assert first.images[0].get_extent()[3] == 4000
    loudest = drawn[0].argmax(dim=0) * 4000 / (drawn[0].shape[0] - 1)
    assert (loudest.diff() > 0).all()
    lines = {line.get_label(): torch.as_tensor(line.get_ydata()) for line in centres.lines}
    torch.testing.assert_close(lines["before"], lines["after"])
    assert lines["mel scale"].tolist() == pytest.approx(mel_edges(12, 300, 2000)[1:-1].tolist())
    assert (lines["after"] - lines["mel scale"]).abs().max() < 60


def test_the_mask_lies_under_the_spectrogram(tmp_path: Path, figures: list[Figure]) -> None:
    options = {"name": "adaptive", "mask_width": 8, "mask_heads": 2, "num_filters": 6}
    model = Classifier(5, 3, SMALL, options)
    assert list(filters_of(model)) == ["layer 0", "layer 1"]
    spectrogram, path = torch.randn(4, 18, requires_grad=True), tmp_path / "mask.png"
    assert plot_mask(model, torch.randn(10, 5), spectrogram, path, title="clip.wav", **SECONDS)
    upper, lower = figures[0].axes[:2]
    assert upper.get_title() == "clip.wav, encoder.filters.0"
    energies = torch.as_tensor(upper.collections[0].get_array()).float()
    torch.testing.assert_close(energies.reshape(4, 18), spectrogram.detach())
    assert upper.dataLim.x1 == pytest.approx(0.18)
    assert lower.images[0].get_extent()[:2] == pytest.approx((0, 0.2))
    assert torch.as_tensor(lower.images[0].get_array()).shape == (6, 10)
    # Of a clip whose first tokens were cut off.
    tokens = torch.randn(4, 5)
    assert plot_mask(model, tokens, spectrogram, path, start=0.1, title="", **SECONDS)
    assert figures[1].axes[1].images[0].get_extent()[:2] == pytest.approx((0.1, 0.18))


@pytest.mark.parametrize("place", ["after", "attention"])
def test_a_trajectory_is_what_enters_and_leaves_the_filter(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = EncoderConfig(dim=12, layers=2, heads=2, filter_place=place)
    model = Classifier(5, 3, shape, {"name": "depthwise"}).eval()
    spy = Mock(side_effect=principal_axes)
    monkeypatch.setattr("spaudio.report.figures.trajectory_plot.principal_axes", spy)
    path, odd = tmp_path / "trajectory.png", "a$_\\ {}^" * 8 + "abcdef"
    assert plot_trajectory(model, torch.randn(70, 5), path, title="t$", labels=odd)
    assert imread(path).ndim == 3
    before, after = (one.float() for one in spy.call_args.args[0])
    assert before.shape == (70, 12)
    torch.testing.assert_close(after, model.encoder.filters[0](before.unsqueeze(0))[0])
    assert not model.encoder.filters[0]._forward_hooks


def test_axes_are_those_of_the_greatest_spread() -> None:
    angle = torch.linspace(0, 2 * math.pi, 50, dtype=torch.float64)[:-1]
    circle = torch.stack([5 * angle.cos(), 3 * angle.sin()], dim=1)
    turn, _ = torch.linalg.qr(torch.randn(7, 7, dtype=torch.float64))
    raw = circle @ turn[:2] + 4.0
    (first, second), share = principal_axes([raw, raw])
    assert torch.equal(first, second)
    torch.testing.assert_close(first.abs(), circle.abs(), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(share, torch.tensor([25 / 34, 9 / 34], dtype=torch.float64))
    # Both trajectories lie on the axes of both: what moved between them is seen.
    (moved, _), _ = principal_axes([raw, raw + 100 * turn[0]])
    assert moved.square().sum() > 10 * circle.square().sum()


def test_a_step_is_relative_to_the_spread() -> None:
    noise = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert relative_step(noise) == pytest.approx(math.sqrt(2), abs=0.03)
    smoothed = make_filter("haar", 8, levels=4)(noise.unsqueeze(0))[0, :, 4:]
    assert relative_step(smoothed) < 0.8 * math.sqrt(2)
    assert relative_step(100 * noise.double() + 7) == pytest.approx(relative_step(noise), rel=1e-6)
    assert relative_step(torch.ones(4, 2)) == 0
