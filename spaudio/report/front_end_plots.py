"""Figure of a learned front-end: its filters by centre frequency, against the mel scale."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spaudio.report.drawing import (
    LOWEST_DB,
    add_colorbar,
    as_lists,
    below_peak,
    draw_image,
    save_figure,
)
from spaudio.tokens.scales import mel_edges
from spaudio.tokens.waveform import WaveformFrontEnd


def plot_front_end(
    after: WaveformFrontEnd, path: Path, *, before: WaveformFrontEnd, n_fft: int = 2048
) -> None:
    """Draws magnitude responses before and after training, and the centre frequencies.

    Each image is sorted by centre frequency (that of the largest response). Responses are relative
    to the peak of each filter. The right panel follows Sainath et al. 2015: the dashed line is a
    bank spaced on the mel scale.

    Args:
        after: Trained.
        path: PNG to write.
        before: The same front-end before training.
        n_fft: Length of the FFT; at least that of the filters is used.
    """
    config, bank = after.config, after.config.waveform
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    first, second, centres = figure.subplots(1, 3)
    for axes, title, front_end in (
        (first, f"before training ({bank.init})", before),
        (second, "after training", after),
    ):
        _draw_responses(axes, front_end, max(n_fft, config.taps))
        axes.set_title(f"{title}: dB below the peak")
    ranks = range(bank.num_filters)
    for label, front_end, style in (("before", before, ":"), ("after", after, "-")):
        hertz = front_end.centre_frequencies().sort().values
        centres.plot(ranks, as_lists(hertz), style, label=label)
    mel = mel_edges(bank.num_filters, 0, config.sample_rate / 2)[1:-1]
    centres.plot(ranks, mel.tolist(), "k--", linewidth=1, label="mel scale")
    centres.set(xlabel="filter, by centre frequency", ylabel="centre frequency (Hz)")
    centres.legend()
    save_figure(figure, path)


@torch.no_grad()
def _draw_responses(axes: Axes, front_end: WaveformFrontEnd, n_fft: int) -> None:
    """Draws the magnitude responses of a front-end's filters."""
    kernels: Tensor = front_end.filters.weight[:, 0].float().cpu()
    decibels = below_peak(torch.fft.rfft(kernels, n_fft).abs())
    order = front_end.centre_frequencies().argsort().cpu()
    extent = (-0.5, len(kernels) - 0.5, 0.0, front_end.config.sample_rate / 2)
    image = draw_image(axes, decibels[order].T, extent, vmin=LOWEST_DB, vmax=0)
    axes.set(xlabel="filter, by centre frequency", ylabel="Hz")
    add_colorbar(axes, image)
