"""Shared parts of figures: tensors as images, responses in decibels, PNG files."""

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spaudio.errors import some
from spaudio.io.atomic import write_atomic
from spaudio.io.messages import warn
from spaudio.tokens.scales import hz_to_mel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

MEL_BANDS = 64  # most of a drawn spectrogram
LOWEST_DB = -40.0  # responses below are drawn in the same color
_GLYPH = re.compile(r"Glyph (\d+) ")  # of matplotlib's warning, one for each character
_told: set[str] = set()  # characters that the user knows the font lacks


def draw_image(
    axes: "Axes", values: Tensor, extent: tuple[float, float, float, float], **style: Any
) -> "AxesImage":
    """Draws a matrix (rows, columns) as an image, first row at the bottom.

    ``extent`` is left, right, bottom and top; ``style`` are further arguments of ``Axes.imshow``.
    """
    options: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", **style}
    return axes.imshow(as_lists(values), origin="lower", extent=extent, **options)


def draw_responses(
    axes: "Axes",
    magnitude: Tensor,
    extent: tuple[float, float, float, float],
    *,
    transpose: bool = False,
) -> None:
    """Draws magnitudes (filters, frequencies) as decibels relative to each filter's peak."""
    decibels = below_peak(magnitude)
    decibels = decibels.T if transpose else decibels
    image = draw_image(axes, decibels, extent, vmin=LOWEST_DB, vmax=0)
    axes.figure.colorbar(image, ax=axes)


def below_peak(magnitude: Tensor) -> Tensor:
    """Converts magnitudes (filters, frequencies) to decibels relative to each filter's peak."""
    tiny = torch.finfo(magnitude.dtype).tiny
    peak = magnitude.amax(dim=1, keepdim=True).clamp_min(tiny)
    return 20 * (magnitude / peak).clamp_min(10 ** (LOWEST_DB / 20)).log10()


def mel_bands(top: float, width: float) -> int:
    """Returns the number of mel bands with which a spectrogram is drawn.

    Args:
        top: Highest frequency, in Hz.
        width: Width of the bins of the spectrogram's transform, in Hz. No band is narrower, as it
            could be empty.
    """
    return max(1, min(MEL_BANDS, int(hz_to_mel(top) / hz_to_mel(width)) - 1))


def as_lists(values: Tensor) -> Any:
    """Converts a tensor to lists for matplotlib; NumPy has no bfloat16."""
    return values.detach().float().cpu().tolist()


def make_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure with constrained layout; sizes are in inches."""
    from matplotlib.figure import Figure  # loads slowly, and prediction draws nothing

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path, dpi: int = 110) -> None:
    """Writes a figure atomically, in the format of the path's suffix.

    Warns once about the characters that the font lacks, not for each character or figure.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=dpi)
    lacking: dict[str, None] = {}  # in their order
    for one in caught:
        if glyph := _GLYPH.match(str(one.message)):
            lacking[chr(int(glyph[1]))] = None
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if new := [character for character in lacking if character not in _told]:
        _told.update(new)
        warn(
            f"warning: the font of the figures lacks characters of some names ({some(new)}), which "
            "are drawn as boxes; name a font that has them in a file matplotlibrc in the current "
            "folder, as in font.family: DejaVu Sans, Noto Sans CJK JP"
        )
    write_atomic(path, buffer.getvalue())
