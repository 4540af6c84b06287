"""Figures of filters: kernels beside their responses, and a token-adaptive mask over time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter, centre_frequency
from spaudio.filters.definition import padding
from spaudio.io.atomic import write_atomic

FLOOR_DB = -40.0


def plot_filters(
    after: Mapping[str, TokenFilter],
    path: Path,
    *,
    before: Mapping[str, TokenFilter] | None = None,
    hop_seconds: float | None = None,
    n_fft: int = 256,
) -> None:
    """Draws kernels beside their magnitude responses, a row a layer, low frequencies at the bottom.

    Each kernel is one line of both images, and each image is sorted by centre frequency on its
    own. Kernels are drawn as they weigh tokens, over the token's neighbours; the response of each
    is relative to its peak.

    Args:
        after: Trained filter by name of its layer; those without kernels are left out.
        path: PNG to write.
        before: The same filters before training, drawn to the left of the trained ones.
        hop_seconds: Seconds a token; frequencies are then in Hz of modulation.
        n_fft: Number of frequencies around the circle.

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


def plot_token_mask(
    mask: Tensor,
    spectrogram: Tensor,
    path: Path,
    *,
    hop_seconds: float,
    frame_seconds: float,
    filter: TokenFilter | None = None,
    title: str = "",
) -> None:
    """Draws how far each filter of a token-adaptive bank opens over a clip, under its spectrogram.

    Args:
        mask: (tokens, M), in (0, 1), of the clip without its padding.
        spectrogram: (bands, frames), such as log-mel energies.
        path: PNG to write.
        hop_seconds: Seconds a token.
        frame_seconds: Seconds a frame of the spectrogram.
        filter: The bank, by whose centre frequencies the mask is sorted.
        title: Of the figure, such as the clip's name.

    Raises:
        ConfigError: If a shape or a number of seconds does not fit.
    """
    if mask.dim() != 2 or spectrogram.dim() != 2 or min(hop_seconds, frame_seconds) <= 0:
        raise ConfigError(
            "a mask (tokens, M), a spectrogram (bands, frames) and positive seconds are needed; "
            f"got {tuple(mask.shape)}, {tuple(spectrogram.shape)}, hop_seconds={hop_seconds} and "
            f"frame_seconds={frame_seconds}"
        )
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    bands, frames = spectrogram.shape
    end = frames * frame_seconds
    image = upper.imshow(
        _numbers(spectrogram), origin="lower", aspect="auto", extent=(0, end, 0, bands)
    )
    figure.colorbar(image, ax=upper, label="log energy")
    upper.set_ylabel("band")
    upper.set_title(title)
    if filter is not None:
        mask = mask[:, centre_frequency(filter.frequency_response()).argsort()]
    tokens, filters = mask.shape
    image = lower.imshow(
        _numbers(mask.T),
        origin="lower",
        aspect="auto",
        extent=(0, tokens * hop_seconds, 0, filters),
        vmin=0,
        vmax=1,
        cmap="cividis",
    )
    figure.colorbar(image, ax=lower, label="mask")
    lower.set_ylabel("filter" if filter is None else "filter, by centre frequency")
    lower.set_xlabel("seconds")
    lower.set_xlim(0, max(end, tokens * hop_seconds))
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
    kernel_axes.imshow(
        _numbers(taps[order]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        extent=(first - 0.5, first + taps.shape[1] - 0.5, -0.5, len(taps) - 0.5),
    )
    magnitude = response.abs()
    tiny = torch.finfo(magnitude.dtype).tiny
    peak = magnitude.amax(dim=1, keepdim=True).clamp_min(tiny)
    decibels = 20 * (magnitude / peak).clamp_min(10 ** (FLOOR_DB / 20)).log10()
    top = 0.5 if hop_seconds is None else 0.5 / hop_seconds
    image = response_axes.imshow(
        _numbers(decibels[order]),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        vmin=FLOOR_DB,
        vmax=0,
        extent=(0, top, -0.5, len(taps) - 0.5),
    )
    ranks = range(len(order))
    response_axes.plot(_numbers(centres[order] * 2 * top), ranks, color="white", linewidth=1)
    figure = response_axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=response_axes)


def aligned_taps(filter: TokenFilter) -> tuple[Tensor, int]:
    """All kernels of a filter on one axis of tokens.

    Args:
        filter: The filter.

    Returns:
        (M, left + 1 + right), NaN outside a kernel, and the axis' first token, -left.
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


def _numbers(x: Tensor) -> list[list[float]]:
    """A tensor as what matplotlib draws."""
    numbers: list[list[float]] = x.detach().float().cpu().tolist()
    return numbers


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())
