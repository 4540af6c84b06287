"""Figures of filters: what is drawn, and that it reaches the disk whole."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from matplotlib.image import imread

from spaudio.errors import ConfigError
from spaudio.filters import FILTERS, FilterBank, TokenFilter, make_filter
from spaudio.report import filter_plots
from spaudio.report.filter_plots import aligned_taps, plot_filters, plot_token_mask


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    saved: list[Figure] = []
    save = filter_plots.save_figure

    def keep(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(filter_plots, "save_figure", keep)
    return saved


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
    bank = tuned([0.4, 0.1, 0.25])
    plot_filters({"layers.0": bank}, tmp_path / "filters.png", hop_seconds=0.01, n_fft=200)
    assert imread(tmp_path / "filters.png").ndim == 3
    kernels, response = figures[0].axes[:2]
    drawn = torch.as_tensor(kernels.images[0].get_array())
    torch.testing.assert_close(drawn.float(), bank.kernels.detach()[[1, 2, 0]])
    # Peaks at 10, 25 and 40 Hz of 100 tokens a second.
    left, right, _, _ = response.images[0].get_extent()
    assert (left, right) == (0, 50)
    magnitude = torch.as_tensor(response.images[0].get_array())
    hertz = magnitude.argmax(dim=1) * (right / (magnitude.shape[1] - 1))
    assert hertz.tolist() == pytest.approx([10, 25, 40], abs=1)
    assert magnitude.max() == 0
    assert magnitude.min() >= filter_plots.FLOOR_DB - 1e-4
    curve = response.lines[0].get_xdata()
    assert torch.as_tensor(curve).tolist() == pytest.approx([10, 25, 40], abs=1.5)


def test_layers_are_rows_and_stages_are_columns(tmp_path: Path, figures: list[Figure]) -> None:
    before: dict[str, TokenFilter] = {
        "first": tuned([0.1, 0.2]),
        "none": make_filter("none"),
        "second": tuned([0.3]),
    }
    after = copy.deepcopy(before)
    with torch.no_grad():
        for parameter in after["first"].parameters():
            parameter.mul_(-1)
    plot_filters(after, tmp_path / "filters.png", before=before)
    axes = [a for a in figures[0].axes if a.get_subplotspec() and a.images and a.get_title()]
    assert len(axes) == 2 * 4
    assert [a.get_ylabel().split("\n")[0] for a in axes if "\n" in a.get_ylabel()] == [
        "first",
        "second",
    ]
    then, now = (torch.as_tensor(axes[i].images[0].get_array()) for i in (0, 2))
    torch.testing.assert_close(then, -now)


@pytest.mark.parametrize("name", [name for name in FILTERS if name != "none"])
@pytest.mark.parametrize("causal", [True, False])
def test_every_filter_can_be_drawn(name: str, causal: bool, tmp_path: Path) -> None:
    filter = make_filter(name, 8, causal=causal)
    plot_filters({"layer": filter}, tmp_path / "filters.png")
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


def test_nothing_to_draw_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no filter has kernels"):
        plot_filters({"layer": make_filter("none")}, tmp_path / "filters.png")
    bank = FilterBank(3, 4)
    with pytest.raises(ConfigError, match=r"lack \['b'\]; they have \['a'\]"):
        plot_filters({"a": bank, "b": bank}, tmp_path / "filters.png", before={"a": bank})
    assert not list(tmp_path.iterdir())


def test_mask_lies_under_its_spectrogram(tmp_path: Path, figures: list[Figure]) -> None:
    bank = tuned([0.4, 0.1])
    mask, spectrogram = torch.rand(20, 2), torch.randn(64, 38)
    plot_token_mask(
        mask,
        spectrogram,
        tmp_path / "mask.png",
        hop_seconds=0.02,
        frame_seconds=0.01,
        filter=bank,
        title="clip.wav",
    )
    upper, lower = figures[0].axes[:2]
    assert upper.get_title() == "clip.wav"
    assert upper.images[0].get_extent()[1] == pytest.approx(0.38)
    assert lower.images[0].get_extent()[1] == pytest.approx(0.4)
    drawn = torch.as_tensor(lower.images[0].get_array()).float()
    torch.testing.assert_close(drawn, mask.T.flip(0))
    with pytest.raises(ConfigError, match=r"hop_seconds=0"):
        plot_token_mask(mask, spectrogram, tmp_path / "x.png", hop_seconds=0, frame_seconds=1)


def test_parameters_and_half_precision_can_be_drawn(tmp_path: Path) -> None:
    """Tensors that require gradients, and bfloat16, of which numpy knows nothing."""
    plot_filters({"layer": FilterBank(4, 4, dtype=torch.bfloat16)}, tmp_path / "filters.png")
    model = nn.ModuleDict({"f": make_filter("adaptive", 8, width=8, heads=2)})
    mask = model["f"].token_mask(torch.randn(1, 9, 8))[0]  # type: ignore[operator]
    plot_token_mask(mask, torch.randn(4, 9), tmp_path / "mask.png", hop_seconds=1, frame_seconds=1)
    assert len(list(tmp_path.iterdir())) == 2
