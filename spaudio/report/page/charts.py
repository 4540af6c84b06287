"""SVG charts of the page: lines, and matrices as pictures with axes.

Colors come from the page's style sheet, so that they follow its light and dark schemes.
Matplotlib's SVG needs style attributes, which the page's content-security policy forbids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

LARGE, SMALL = (460, 270), (260, 190)  # width and height, roughly in pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 30, 44
_TICK = 4
_NAME, _LETTER = 21, 7.5  # start of a name in the legend, and width of a letter at most


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: For the legend; empty for none.
        points: (x, y) in order.
        color: Index of a color in the style sheet, from 0.
        notes: Tooltips of dots at the points; no dots without them.
        dashed: Draw dashes, for more lines than colors.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color: int = 0
    notes: Sequence[str] = ()
    dashed: bool = False

    @property
    def style(self) -> str:
        """Classes in the style sheet."""
        return f"line c{self.color}{' dashed' * self.dashed}"


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x: str,
    y: str,
    xlim: tuple[float, float] | None = None,
    ylim: tuple[float, float] | None = None,
    diagonal: bool = False,
    size: tuple[int, int] = LARGE,
) -> Markup:
    """Draws lines.

    Args:
        lines: Lines, at least one of which has a point.
        title: What the chart shows, for screen readers.
        x: Label of the x axis.
        y: Label of the y axis.
        xlim: Limits; None fits the points.
        ylim: Limits; None fits the points.
        diagonal: Draw the line y = x.
        size: `LARGE` or `SMALL`.
    """
    xs, ys = ([point[i] for line in lines for point in line.points] for i in (0, 1))
    frame = _Frame(_limits(xs, xlim), _limits(ys, ylim), size)
    parts = [frame.axes(x, y)]
    if diagonal:
        ends = (max(frame.x[0], frame.y[0]), min(frame.x[1], frame.y[1]))
        parts.append(_path([frame.place(v, v) for v in ends], "diagonal"))
    for line in lines:
        placed = [frame.place(*point) for point in line.points]
        parts.append(_path(placed, line.style))
        parts += [
            Markup(
                '<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>'
            ).format(line.color, *at, note)
            for at, note in zip(placed, line.notes, strict=False)
        ]
    named = [line for line in lines if line.name]
    step = (size[0] - _LEFT - _RIGHT) / max(1, len(named))
    if any(_NAME + _LETTER * len(line.name) > step for line in named):
        return frame.drawing(parts, title) + _legend(named)
    for i, line in enumerate(named):
        left = _LEFT + i * step
        parts.append(_path([(left, 12), (left + 16, 12)], line.style))
        parts.append(_text(left + _NAME, 16, line.name))
    return frame.drawing(parts, title)


def _legend(lines: Sequence[Line]) -> Markup:
    """Names that are too long for one row of the chart."""
    swatch = Markup('<svg viewBox="0 0 24 4" aria-hidden="true">{}</svg>')
    return Markup('<ul class="legend">{}</ul>').format(
        Markup("").join(
            Markup("<li>{}{}</li>").format(swatch.format(_path([(0, 2), (24, 2)], x.style)), x.name)
            for x in lines
        )
    )


def heat_map(
    picture: str,
    *,
    title: str,
    x: str,
    y: str,
    xlim: tuple[float, float],
    ylim: tuple[float, float],
    size: tuple[int, int] = LARGE,
) -> Markup:
    """Puts axes around a picture.

    Args:
        picture: Data URL, with the first row at the top.
        title: What it shows.
        x: Label of the x axis.
        y: Label of the y axis.
        xlim: Values at the picture's left and right edge.
        ylim: Values at its lower and upper edge.
        size: `LARGE` or `SMALL`.
    """
    frame = _Frame(xlim, ylim, size)
    image = Markup(
        '<image class="pixels" href="{}" x="{}" y="{}" width="{}" height="{}" '
        'preserveAspectRatio="none"/>'
    ).format(picture, _LEFT, _TOP, *frame.extent)
    return frame.drawing([_text(_LEFT, 18, title, "title"), image, frame.axes(x, y)], title)


@dataclass(frozen=True)
class _Frame:
    """The area of a chart; maps values to positions."""

    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[int, int]

    @property
    def extent(self) -> tuple[int, int]:
        return self.size[0] - _LEFT - _RIGHT, self.size[1] - _TOP - _BOTTOM

    def drawing(self, parts: Sequence[Markup], title: str) -> Markup:
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            *self.size, title, Markup("").join(parts)
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        width, height = self.extent
        return _LEFT + across * width, _TOP + (1 - up) * height

    def axes(self, x: str, y: str) -> Markup:
        parts, (width, height) = [], self.size
        for value in _ticks(self.x):
            at, base = self.place(value, self.y[0])
            parts.append(_path([(at, base), (at, base + _TICK)], "axis"))
            parts.append(_text(at, base + 17, f"{value:g}", "middle"))
        for value in _ticks(self.y):
            left, at = self.place(self.x[0], value)
            parts.append(_path([(left, at), (width - _RIGHT, at)], "grid"))
            parts.append(_text(left - 7, at + 4, f"{value:g}", "end"))
        corner = (self.place(*corner) for corner in ((self.x[0], self.y[1]), (self.x[0], self.y[0]),
                                                     (self.x[1], self.y[0])))  # fmt: skip
        parts.append(_path(list(corner), "axis"))
        parts.append(_text((_LEFT + width - _RIGHT) / 2, height - 6, x, "middle"))
        middle = (_TOP + height - _BOTTOM) / 2
        turned = Markup(
            '<text class="middle" transform="translate(13 {:.1f}) rotate(-90)">{}</text>'
        )
        parts.append(turned.format(middle, y))
        return Markup("").join(parts)


def _path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    if not points:
        return Markup("")
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, steps)


def _text(x: float, y: float, text: str, kind: str = "") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(kind, x, y, text)


def _ticks(limits: tuple[float, float]) -> list[float]:
    low, high = sorted(limits)
    margin = 1e-6 * (high - low)
    return [v for v in _rounded(low, high) if low - margin <= v <= high + margin]


def _rounded(low: float, high: float) -> list[float]:
    """Returns about five round numbers that span a range."""
    from matplotlib.ticker import MaxNLocator  # loads slowly

    found = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in found]


def _limits(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    if given is not None:
        return given
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    outer = [(a, b) for a, b in pairwise(_rounded(low, high)) if a <= low < b or a < high <= b]
    return min([low, *(a for a, _ in outer)]), max([high, *(b for _, b in outer)])
