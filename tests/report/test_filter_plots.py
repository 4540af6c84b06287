"""Figures of filters and masks: what is drawn, and that the file is whole."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from spaudio.errors import ConfigError
from spaudio.filters import FILTERS, FilterBank, TokenFilter, make_filter
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.report.drawing import LOWEST_DB, save_figure
from spaudio.report.filter_plots import aligned_taps, draw_filters, plot_filters
from spaudio.report.mask_plot import draw_mask, plot_mask

SMALL = EncoderConfig(dim=8, layers=2, heads=2)


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
    kernels, response = figures[0].axes[:2]
    drawn = torch.as_tensor(kernels.images[0].get_array())
    torch.testing.assert_close(drawn.float(), bank.kernels.detach()[[1, 2, 0]])
    # Peaks at 10, 25 and 40 Hz of 100 tokens per second.
    left, right, _, _ = response.images[0].get_extent()
    assert (left, right) == (0, 50)
    magnitude = torch.as_tensor(response.images[0].get_array())
    hertz = magnitude.argmax(dim=1) * (right / (magnitude.shape[1] - 1))
    assert hertz.tolist() == pytest.approx([10, 25, 40], abs=1)
    assert magnitude.max() == 0
    assert magnitude.min() >= LOWEST_DB - 1e-4
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
    names = [a.get_ylabel().split("\n")[0] for a in axes if "\n" in a.get_ylabel()]
    assert names == ["first", "second"]
    then, now = (torch.as_tensor(axes[i].images[0].get_array()) for i in (0, 2))
    torch.testing.assert_close(then, -now)


def test_every_filter_can_be_drawn(tmp_path: Path) -> None:
    filters = {
        f"{name}, causal={causal}": make_filter(name, 8, causal=causal)
        for name, causal in zip(FILTERS, [True, False] * len(FILTERS), strict=False)
    }
    filters["half precision"] = FilterBank(4, 4, dtype=torch.bfloat16)  # NumPy has no bfloat16
    plot_filters(filters, tmp_path / "filters.png")
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
    path = tmp_path / "filters.png"
    with pytest.raises(ConfigError, match="no filter has kernels"):
        plot_filters({"layer": make_filter("none")}, path)
    bank = FilterBank(3, 4)
    with pytest.raises(ConfigError, match=r"lack \['b'\]; they have \['a'\]"):
        plot_filters({"a": bank, "b": bank}, path, before={"a": bank})
    model = Classifier(5, 3, SMALL, {"name": "none"})
    assert not draw_filters(model.encoder, model.encoder, path, hop_seconds=None)
    assert not draw_mask(
        model, torch.randn(9, 5), None, path, hop_seconds=1, frame_seconds=1, title=""
    )
    assert not list(tmp_path.iterdir())


def test_filters_and_mask_of_a_model(tmp_path: Path, figures: list[Figure]) -> None:
    model = Classifier(5, 3, SMALL, {"name": "adaptive", "width": 8, "heads": 2, "num_filters": 6})
    assert draw_filters(model.encoder, model.encoder, tmp_path / "filters.png", hop_seconds=0.02)
    names = [a.get_ylabel() for a in figures[0].axes if "\n" in a.get_ylabel()]
    assert names == ["layer 0\nkernel", "layer 1\nkernel"]
    tokens = torch.randn(9, 5)
    seconds = {"hop_seconds": 0.02, "frame_seconds": 0.01}
    path = tmp_path / "mask.png"
    assert draw_mask(model, tokens, torch.randn(4, 18), path, title="clip.wav", **seconds)
    upper, lower = figures[1].axes[:2]
    assert upper.get_title() == "clip.wav, encoder.filters.0"
    assert torch.as_tensor(lower.images[0].get_array()).shape == (6, 9)
    with pytest.raises(ConfigError, match="needs a spectrogram"):
        draw_mask(model, tokens, None, path, title="", **seconds)


def test_mask_lies_under_its_spectrogram(
    tmp_path: Path, figures: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask, spectrogram = torch.rand(20, 2), torch.randn(64, 38, requires_grad=True)
    plot_mask(
        mask,
        spectrogram,
        tmp_path / "mask.png",
        hop_seconds=0.02,
        frame_seconds=0.01,
        filter=tuned([0.4, 0.1]),
    )
    upper, lower = figures[0].axes[:2]
    energies = torch.as_tensor(upper.collections[0].get_array()).float()
    torch.testing.assert_close(energies.reshape(64, 38), spectrogram.detach())
    assert upper.dataLim.x1 == pytest.approx(0.38)
    assert lower.images[0].get_extent()[1] == pytest.approx(0.4)
    drawn = torch.as_tensor(lower.images[0].get_array()).float()
    torch.testing.assert_close(drawn, mask.T.flip(0))
    monkeypatch.undo()
    save_figure(figures[0], tmp_path / "mask.png")
    assert imread(tmp_path / "mask.png").ndim == 3
    with pytest.raises(ConfigError, match=r"hop_seconds=0"):
        plot_mask(mask, spectrogram, tmp_path / "x.png", hop_seconds=0, frame_seconds=1)
