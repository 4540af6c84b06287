"""Shared parts of figures: tensors as images, responses in decibels, PNG files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

from spaudio.io.atomic import write_atomic

LOWEST_DB = -40.0  # responses below are drawn in the same color


def draw_image(
    axes: Axes, values: Tensor, extent: tuple[float, float, float, float], **style: Any
) -> AxesImage:
    """Draws a matrix as an image, first row at the bottom.

    Args:
        axes: Where to draw it.
        values: (rows, columns), of any device and floating-point type.
        extent: Left, right, bottom and top in the units of the axes.
        style: Further arguments of ``Axes.imshow``.
    """
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", **style}
    return axes.imshow(as_lists(values), origin="lower", extent=extent, **options)


def as_lists(values: Tensor) -> Any:
    """Converts a tensor to what matplotlib takes; NumPy has no bfloat16."""
    return values.detach().float().cpu().tolist()


def add_colorbar(axes: Axes, image: AxesImage) -> None:
    """Draws the color scale of an image beside its axes."""
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(image, ax=axes)


def below_peak(magnitude: Tensor) -> Tensor:
    """Converts magnitudes (filters, frequencies) to decibels relative to each filter's peak."""
    tiny = torch.finfo(magnitude.dtype).tiny
    peak = magnitude.amax(dim=1, keepdim=True).clamp_min(tiny)
    return 20 * (magnitude / peak).clamp_min(10 ** (LOWEST_DB / 20)).log10()


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a PNG atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomic(path, buffer.getvalue())
