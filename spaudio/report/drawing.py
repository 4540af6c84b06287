"""Shared parts of figures: tensors as images, responses in decibels, PNG files, failures."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from torch import Tensor

from spaudio.io.atomic import write_atomic
from spaudio.report.escape import for_markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LOWEST_DB = -40.0  # responses below are drawn in the same color


class Figures:
    """Draws the figures of a report. A failure is named in the report and stops nothing.

    Args:
        folder: Folder of the report.

    Attributes:
        failed: Reason why a figure could not be drawn, by its name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.failed: dict[str, str] = {}

    def draw(self, name: str, draw: Callable[[Path], object]) -> None:
        """Calls ``draw`` with the path of ``<name>.png``, and records a failure."""
        self.attempt(f"{name}.png", draw)

    def attempt(self, name: str, draw: Callable[[Path], object]) -> None:
        """Calls ``draw`` with the path of a file, and records a failure."""
        path = self.folder / name
        try:
            path.unlink(missing_ok=True)  # from an earlier report
            draw(path)
        except Exception as error:  # matplotlib raises anything
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            self.failed[name] = said
            warnings.warn(f"{path} could not be drawn ({said})", stacklevel=2)

    def links(self, *names: str) -> list[str]:
        """Returns Markdown: a link to each existing figure, and a line for each failure."""
        drawn = [name for name in names if (self.folder / f"{name}.png").is_file()]
        return [
            *(f"![{for_markdown(name)}]({quote(name)}.png)" for name in drawn),
            *(
                f"- {for_markdown(name)} could not be drawn ({for_markdown(reason)})"
                for name, reason in self.failed.items()
            ),
        ]


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


def as_lists(values: Tensor) -> Any:
    """Converts a tensor to lists for matplotlib; NumPy has no bfloat16."""
    return values.detach().float().cpu().tolist()


def make_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure with constrained layout; sizes are in inches."""
    from matplotlib.figure import Figure  # loads slowly, and prediction draws nothing

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path, dpi: int = 110) -> None:
    """Writes a figure atomically, in the format of the path's suffix.

    Warns once about all characters that the font lacks, not about each.
    """
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=dpi)
    others = [one for one in caught if not str(one.message).startswith("Glyph")]
    for one in others:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if len(others) < len(caught):
        warnings.warn(
            "the font of the figures lacks characters of some names; they are drawn as boxes",
            stacklevel=2,
        )
    write_atomic(path, buffer.getvalue())
