"""Figure of a learned front-end: its filters by centre frequency, against the mel scale."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spaudio.report.filter_plots import FLOOR_DB, _numbers, save_figure
from spaudio.tokens.scales import mel_edges
from spaudio.tokens.waveform import WaveformFrontEnd


def plot_front_end(
    after: WaveformFrontEnd, path: Path, *, before: WaveformFrontEnd, n_fft: int = 2048
) -> None:
    """Draws where filters listen: responses before and after training, and centre frequencies.

    Each image is sorted by centre frequency (where the response is largest) on its own; responses
    are relative to each filter's peak. The right panel is that of Sainath et al. 2015: a bank like
    the mel scale's follows the dashed line.

    Args:
        after: Trained.
        path: PNG to write.
        before: The same front-end before training.
        n_fft: Number of frequencies around the circle; at least the filters' length.
    """
    config = after.config
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    first, second, centres = figure.subplots(1, 3)
    for axes, title, front_end in (
        (first, f"before training ({config.init})", before),
        (second, "after training", after),
    ):
        _draw_responses(axes, front_end, max(n_fft, config.taps))
        axes.set_title(f"{title}: dB below the peak")
    ranks = range(config.num_filters)
    for label, front_end, style in (("before", before, ":"), ("after", after, "-")):
        hertz = front_end.centre_frequencies().sort().values
        centres.plot(ranks, _numbers(hertz), style, label=label)
    mel = mel_edges(config.num_filters, 0, config.sample_rate / 2)[1:-1]
    centres.plot(ranks, mel.tolist(), "k--", linewidth=1, label="mel scale")
    centres.set(xlabel="filter, by centre frequency", ylabel="centre frequency (Hz)")
    centres.legend()
    save_figure(figure, path)


@torch.no_grad()
def _draw_responses(axes: Axes, front_end: WaveformFrontEnd, n_fft: int) -> None:
    """Draws the magnitude responses of a front-end's filters."""
    kernels: Tensor = front_end.filters.weight[:, 0].float().cpu()
    magnitude = torch.fft.rfft(kernels, n_fft).abs()
    peak = magnitude.amax(dim=1, keepdim=True).clamp_min(torch.finfo(magnitude.dtype).tiny)
    decibels = 20 * (magnitude / peak).clamp_min(10 ** (FLOOR_DB / 20)).log10()
    image = axes.imshow(
        _numbers(decibels[front_end.centre_frequencies().argsort().cpu()].T),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        vmin=FLOOR_DB,
        vmax=0,
        extent=(-0.5, len(kernels) - 0.5, 0, front_end.config.sample_rate / 2),
    )
    axes.set(xlabel="filter, by centre frequency", ylabel="Hz")
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes)
