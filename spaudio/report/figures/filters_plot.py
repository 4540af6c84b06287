"""Figure of filters: kernels and their magnitude responses, before and after training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaudio.filters import TokenFilter, centre_frequency
from spaudio.filters.definition import kernel_extent
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.figures.drawing import (
    as_lists,
    draw_image,
    draw_responses,
    make_figure,
    save_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

N_FFT = 256


def filters_of(model: AnyClassifier | LanguageModel) -> dict[str, TokenFilter]:
    """Returns the filters that have kernels, by the name of their layer, such as ``layer 0``."""
    return {
        f"layer {layer}": filter
        for layer, filter in model.token_filters().items()
        if len(filter.taps()) > 0
    }


def plot_filters(
    before: Mapping[str, TokenFilter],
    after: Mapping[str, TokenFilter],
    path: Path,
    *,
    token_seconds: float | None = None,
) -> bool:
    """Draws kernels beside their magnitude responses, one row per layer.

    Each kernel is one line of both images. Each image is sorted by centre frequency, lowest at the
    bottom. Kernels are drawn over the tokens that they weight, relative to the current one.
    Responses are relative to the peak of each kernel.

    Args:
        before: Filters before training, by name of the layer; see :func:`filters_of`.
        after: The same filters after training, drawn to the right of them.
        path: PNG to write.
        token_seconds: Seconds per token. If given, modulation frequencies are in Hz.

    Returns:
        Whether there was a filter. If not, nothing is written.
    """
    if not after:
        return False
    figure = make_figure(11, 0.6 + 2.4 * len(after))
    grid = figure.subplots(len(after), 4, squeeze=False)
    for row, name in zip(grid, after, strict=True):
        for column, filters in ((0, before), (2, after)):
            kernels, response = row[column : column + 2]
            _draw_filter(kernels, response, filters[name], token_seconds)
            kernels.set_ylabel("kernel" if column else f"{name}\nkernel")
            stage = "after" if column else "before"
            kernels.set_title(f"{stage} training: taps", fontsize=9)
            response.set_title("magnitude, dB below the peak", fontsize=9)
    for axes in grid[-1, ::2]:
        axes.set_xlabel("tokens from the current one")
    for axes in grid[-1, 1::2]:
        axes.set_xlabel("cycles/token" if token_seconds is None else "modulation (Hz)")
    save_figure(figure, path)
    return True


def _draw_filter(
    kernel_axes: "Axes", response_axes: "Axes", filter: TokenFilter, token_seconds: float | None
) -> None:
    response = filter.frequency_response(N_FFT)
    centres = centre_frequency(response)
    order = centres.argsort()
    taps, first = aligned_taps(filter)
    limit = float(taps.nan_to_num().abs().max()) or 1.0
    rows = (-0.5, len(taps) - 0.5)
    extent = (first - 0.5, first + taps.shape[1] - 0.5, *rows)
    draw_image(kernel_axes, taps[order], extent, cmap="RdBu_r", vmin=-limit, vmax=limit)
    top = 0.5 if token_seconds is None else 0.5 / token_seconds
    draw_responses(response_axes, response.abs()[order], (0, top, *rows))
    curve = as_lists(centres[order] * 2 * top)
    response_axes.plot(curve, range(len(order)), color="white", linewidth=1)


def aligned_taps(filter: TokenFilter) -> tuple[Tensor, int]:
    """Returns kernels (M, left + 1 + right), NaN outside, and the first position, -left."""
    left, right = filter.extent
    rows = []
    for kernel in filter.taps():
        before, after = kernel_extent(kernel.shape[-1], filter.causal)
        taps, ends = kernel.detach().float().cpu(), (left - before, right - after)
        rows.append(torch.nn.functional.pad(taps, ends, value=torch.nan))
    return torch.cat(rows), -left
