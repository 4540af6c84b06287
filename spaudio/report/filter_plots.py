"""Figure of filters: kernels and their magnitude responses, before and after training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter, centre_frequency
from spaudio.filters.definition import padding
from spaudio.model.encoder import Encoder
from spaudio.report.drawing import (
    LOWEST_DB,
    add_colorbar,
    as_lists,
    below_peak,
    draw_image,
    save_figure,
)


def filters_of(encoder: Encoder) -> dict[str, TokenFilter]:
    """Returns the filters that have kernels, by the name of their layer, such as ``layer 0``."""
    return {
        f"layer {i}": module
        for i, module in enumerate(encoder.filters)
        if isinstance(module, TokenFilter) and len(module.taps()) > 0
    }


def draw_filters(before: Encoder, after: Encoder, path: Path, *, hop_seconds: float | None) -> bool:
    """Draws the filters of an encoder before and after training.

    Args:
        before: Encoder before training.
        after: The same encoder after training.
        path: PNG to write.
        hop_seconds: Seconds per token, or None if tokens have no duration.

    Returns:
        Whether there was a filter with kernels. If not, nothing is written.
    """
    trained = filters_of(after)
    if trained:
        plot_filters(trained, path, before=filters_of(before), hop_seconds=hop_seconds)
    return bool(trained)


def plot_filters(
    after: Mapping[str, TokenFilter],
    path: Path,
    *,
    before: Mapping[str, TokenFilter] | None = None,
    hop_seconds: float | None = None,
    n_fft: int = 256,
) -> None:
    """Draws kernels beside their magnitude responses, one row per layer.

    Each kernel is one line of both images. Each image is sorted by centre frequency, lowest at the
    bottom. Kernels are drawn over the neighbors of a token that they weight. Responses are relative
    to the peak of each kernel.

    Args:
        after: Trained filters by name of the layer. Filters without kernels are left out.
        path: PNG to write.
        before: The same filters before training, drawn to the left of the trained ones.
        hop_seconds: Seconds per token. If given, frequencies are in Hz of modulation.
        n_fft: Length of the FFT.

    Raises:
        ConfigError: If no filter has kernels, or ``before`` lacks a filter.
    """
    names = [name for name, filter in after.items() if len(filter.taps())]
    if not names:
        raise ConfigError("no filter has kernels to draw; train with another filter than 'none'")
    missing = [name for name in names if before is not None and name not in before]
    if missing:
        raise ConfigError(
            f"the filters before training lack {missing}; they have {list(before or {})}"
        )
    stages = [("before training", before), ("after training", after)]
    shown = [(title, filters) for title, filters in stages if filters is not None]
    figure = Figure(figsize=(5.5 * len(shown), 0.6 + 2.4 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2 * len(shown), squeeze=False)
    for row, name in enumerate(names):
        for column, (title, filters) in enumerate(shown):
            kernels, response = grid[row, 2 * column], grid[row, 2 * column + 1]
            _draw_filter(kernels, response, filters[name], hop_seconds, n_fft)
            kernels.set_ylabel(f"{name}\nkernel" if column == 0 else "kernel")
            kernels.set_title(f"{title}: taps", fontsize=9)
            response.set_title("magnitude, dB below the peak", fontsize=9)
    for axes in grid[-1, ::2]:
        axes.set_xlabel("tokens from the current one")
    for axes in grid[-1, 1::2]:
        axes.set_xlabel("cycles/token" if hop_seconds is None else "modulation (Hz)")
    save_figure(figure, path)


def _draw_filter(
    kernel_axes: Axes,
    response_axes: Axes,
    filter: TokenFilter,
    hop_seconds: float | None,
    n_fft: int,
) -> None:
    """Draws one filter into two axes."""
    response = filter.frequency_response(n_fft)
    centres = centre_frequency(response)
    order = centres.argsort()
    taps, first = aligned_taps(filter)
    limit = float(taps.nan_to_num().abs().max()) or 1.0
    rows = (-0.5, len(taps) - 0.5)
    draw_image(
        kernel_axes,
        taps[order],
        (first - 0.5, first + taps.shape[1] - 0.5, *rows),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    top = 0.5 if hop_seconds is None else 0.5 / hop_seconds
    decibels = below_peak(response.abs())[order]
    image = draw_image(response_axes, decibels, (0, top, *rows), vmin=LOWEST_DB, vmax=0)
    ranks = range(len(order))
    response_axes.plot(as_lists(centres[order] * 2 * top), ranks, color="white", linewidth=1)
    add_colorbar(response_axes, image)


def aligned_taps(filter: TokenFilter) -> tuple[Tensor, int]:
    """Returns all kernels of a filter on one axis of tokens.

    Args:
        filter: The filter.

    Returns:
        (M, left + 1 + right), NaN outside a kernel, and the first token of the axis, -left.
    """
    left, right = filter.extent
    rows = []
    for kernel in filter.taps():
        before, after = padding(kernel.shape[-1], filter.causal)
        row = torch.nn.functional.pad(
            kernel.detach().float().cpu(), (left - before, right - after), value=torch.nan
        )
        rows.append(row)
    return torch.cat(rows), -left
