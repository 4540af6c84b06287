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
    """Draws a matrix (rows, columns) as an image, first row at the bottom.

    ``extent`` is left, right, bottom and top; ``style`` are further arguments of ``Axes.imshow``.
    """
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", **style}
    return axes.imshow(as_lists(values), origin="lower", extent=extent, **options)


def draw_responses(
    axes: Axes,
    magnitude: Tensor,
    extent: tuple[float, float, float, float],
    *,
    transpose: bool = False,
) -> None:
    """Draws magnitudes (filters, frequencies) as decibels relative to each filter's peak."""
    tiny = torch.finfo(magnitude.dtype).tiny
    peak = magnitude.amax(dim=1, keepdim=True).clamp_min(tiny)
    decibels = 20 * (magnitude / peak).clamp_min(10 ** (LOWEST_DB / 20)).log10()
    decibels = decibels.T if transpose else decibels
    image = draw_image(axes, decibels, extent, vmin=LOWEST_DB, vmax=0)
    axes.figure.colorbar(image, ax=axes)


def as_lists(values: Tensor) -> Any:
    """Converts a tensor to what matplotlib takes; NumPy has no bfloat16."""
    return values.detach().float().cpu().tolist()


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Writes a PNG atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomic(path, buffer.getvalue())
