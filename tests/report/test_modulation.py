"""Responses of kernels against the modulation spectrum of sound."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from spaudio.filters import FilterBank
from spaudio.report.figures.modulation_plot import (
    compare_responses,
    modulation_grid,
    modulation_spectrum,
    plot_responses,
)

HOP, TOKEN = 0.01, 0.04  # seconds


def tuned(hertz: float) -> FilterBank:
    """A bank whose kernels pass modulations near a frequency."""
    bank = FilterBank(2, 16)
    time = TOKEN * (torch.arange(16) - 7)
    with torch.no_grad():
        bank.kernels[:] = torch.cos(2 * math.pi * hertz * time) * torch.hann_window(16)
    return bank


def test_kernels_are_compared_with_the_modulations_of_the_sound(
    tmp_path: Path, figures: list[Figure]
) -> None:
    rng, hertz = np.random.default_rng(0), modulation_grid(TOKEN)
    assert hertz[-1] == pytest.approx(12.5)
    # Bands whose levels change at 4 Hz; the clips are of different lengths, one is of one frame.
    clips = [
        np.sin(2 * np.pi * (4 * HOP * np.arange(frames)[:, None] + rng.random(3)))
        + 0.3 * rng.normal(size=(frames, 3))
        for frames in (60, 300, 500, 1)
    ]
    spectrum = modulation_spectrum(clips, HOP, hertz)
    assert hertz[spectrum.argmax()] == pytest.approx(4, abs=0.3)
    layers = compare_responses({"layer 0": tuned(12)}, {"layer 0": tuned(4)}, spectrum, TOKEN)
    assert hertz[layers[0].after.argmax()] == pytest.approx(4, abs=0.3)
    assert layers[0].correlation_after > 0.7
    assert layers[0].correlation_before < 0
    assert str(layers[0]).startswith("layer 0: correlation with the modulation spectrum -0.")
    plot_responses(layers, spectrum, TOKEN, tmp_path / "modulation.png")
    assert figures[0].get_figwidth() * 100 == 700
    plot_responses([*layers, *layers, *layers], spectrum, TOKEN, tmp_path / "three.png")
    shown = [panel.get_xlabel() for panel in figures[1].axes if panel.get_visible()]
    assert shown == ["", "modulation (Hz)", "modulation (Hz)"]  # the lowest of each column
    flat = {"layer 0": FilterBank(2, 1)}
    (one,) = compare_responses(flat, flat, spectrum, TOKEN)
    assert math.isnan(one.correlation_after)
