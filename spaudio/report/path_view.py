"""The path of a sequence through a layer's embedding space, before and after its filter.

After Fig. 1B of arXiv 2406.10254, which reads a filter along the tokens as one that shapes the
trajectory of the embeddings. The figure there is a sketch; this one is drawn from a trained model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.report.filter_plots import save_figure

MARKED = 60  # labels that a panel has room for


def record_path(filter: nn.Module, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """What enters and leaves a filter while something runs the model that holds it.

    Args:
        filter: A module of the model, called once with tokens (batch, tokens, dim).
        run: Runs the model, for instance on one text.

    Returns:
        Tokens before and after it, each (tokens, dim), of the first item of the batch.

    Raises:
        ConfigError: If the filter was not called.
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((arguments[0][0].detach().clone(), output[0].detach().clone()))

    hook = filter.register_forward_hook(keep)
    try:
        run()
    finally:
        hook.remove()
    if not seen:
        raise ConfigError(f"the model did not call its {type(filter).__name__}; nothing to draw")
    return seen[-1]


def principal_axes(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Projects two paths on the two axes along which both together spread most.

    Args:
        before: (tokens, dim).
        after: (tokens, dim).

    Returns:
        Both paths, (tokens, 2) each, and the share of the variance of both that each axis holds,
        (2,). The sign of an axis, which is arbitrary, makes its greatest entry positive.

    Raises:
        ConfigError: If a shape does not fit, or a value is not finite.
    """
    fits = before.dim() == 2 and before.shape == after.shape and min(before.shape) >= 2
    if not fits or not bool(torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise ConfigError(
            "a path needs finite (tokens, dim), at least 2 of each, alike before and after; got "
            f"{tuple(before.shape)} and {tuple(after.shape)}"
        )
    both = torch.cat([before, after]).double().cpu()
    both = both - both.mean(dim=0)
    _, spread, axes = torch.linalg.svd(both, full_matrices=False)
    greatest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    placed = both @ (axes * greatest.sign())[:2].T
    power = spread.square()
    share = power[:2] / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    first, second = placed.split(len(before))
    return first, second, share


def plot_path(
    before: Tensor,
    after: Tensor,
    path: Path,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draws a path before and after a filter, side by side on the same two axes.

    Colour runs with the tokens. Above each panel stands how far a token lies from the one before
    it, on average over the path and in all dimensions, relative to how far the tokens lie from
    their mean: less means a smoother path, about 1.4 one without order.

    Args:
        before: (tokens, dim).
        after: (tokens, dim).
        path: PNG to write.
        labels: One short text a token, such as its character.
        title: Of the figure.

    Raises:
        ConfigError: If a shape does not fit, or a value is not finite.
    """
    if labels is not None and len(labels) != len(before):
        raise ConfigError(f"{len(before)} tokens need as many labels; got {len(labels)}")
    first, second, share = principal_axes(before, after)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, points, raw, name in zip(
        panels, (first, second), (before, after), ("before", "after"), strict=True
    ):
        _draw(axes, points, labels)
        axes.set_title(f"{name} the filter; relative step {relative_step(raw):.2f}", fontsize=10)
        axes.set_xlabel(f"first principal axis ({share[0]:.0%} of the variance)")
    panels[0].set_ylabel(f"second principal axis ({share[1]:.0%})")
    points = panels[1].collections[0]
    figure.colorbar(points, ax=panels, label="token")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def relative_step(path: Tensor) -> float:
    """Root mean square distance of successive tokens, relative to that from the path's mean.

    Args:
        path: (tokens, dim).

    Returns:
        About 1.41 for tokens in no order, near 0 for a slow path; 0 where the path is a point.
    """
    path = path.double().cpu()
    steps = path.diff(dim=0).square().sum(dim=1).mean()
    spread = (path - path.mean(dim=0)).square().sum(dim=1).mean()
    return float((steps / spread).sqrt()) if spread > 0 else 0.0


def _draw(axes: Axes, points: Tensor, labels: Sequence[str] | None) -> None:
    """Draws one path (tokens, 2) into its panel."""
    x, y = points.T.tolist()
    axes.plot(x, y, color="0.6", linewidth=0.8, zorder=1)
    axes.scatter(x, y, c=range(len(x)), cmap="viridis", s=14, zorder=2)
    for i, label in enumerate((labels or ())[:MARKED]):
        axes.annotate(label, (x[i], y[i]), xytext=(3, 3), textcoords="offset points", fontsize=7)
