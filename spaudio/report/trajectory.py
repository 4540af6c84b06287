"""Figure of the trajectory of a sequence through the embedding space, before and after a filter.

After Fig. 1B of arXiv 2406.10254, which describes a filter along the tokens as one that shapes the
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
from spaudio.filters import NoFilter, TokenFilter
from spaudio.model.classifier import Classifier
from spaudio.model.language import LanguageModel
from spaudio.report.drawing import save_figure

MAX_LABELS = 60  # more do not fit into a panel


@torch.inference_mode()
def draw_trajectory(
    model: Classifier | LanguageModel,
    tokens: Tensor,
    path: Path,
    *,
    title: str,
    labels: Sequence[str] | None = None,
) -> bool:
    """Draws the embeddings of one sequence before and after the model's first filter.

    Args:
        model: Trained. It is set to evaluation mode.
        tokens: One input sequence: symbols (tokens,) or features (tokens, width).
        path: PNG to write.
        title: Describes the sequence.
        labels: One short text per token.

    Returns:
        Whether the model has a filter and the sequence at least two tokens. If not, nothing is
        written.
    """
    found = [
        (layer, module)
        for layer, module in enumerate(model.encoder.filters)
        if isinstance(module, TokenFilter) and not isinstance(module, NoFilter)
    ]
    if not found or len(tokens) < 2:
        return False
    layer, module = found[0]
    batch = tokens.unsqueeze(0).to(next(model.parameters()).device)
    before, after = record_trajectory(module, lambda: model.eval()(batch))
    title = f"{title}; {module.name} of layer {layer}"
    plot_trajectory(before, after, path, labels=labels, title=title)
    return True


def record_trajectory(filter: nn.Module, run: Callable[[], object]) -> tuple[Tensor, Tensor]:
    """Records the input and the output of a filter while its model runs.

    Args:
        filter: A module of the model, called with tokens (batch, tokens, dim).
        run: Runs the model, for instance on one text.

    Returns:
        Tokens before and after the filter's last call, each (tokens, dim), of the first item of
        the batch.

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
    """Projects two trajectories on the first two principal axes of both together.

    Args:
        before: (tokens, dim).
        after: (tokens, dim).

    Returns:
        Both trajectories, (tokens, 2) each, and the share of the total variance along each axis,
        (2,). The sign of an axis is arbitrary; it is chosen so that the entry of largest magnitude
        is positive.

    Raises:
        ConfigError: If a shape does not fit, or a value is not finite.
    """
    fits = before.dim() == 2 and before.shape == after.shape and min(before.shape) >= 2
    if not fits or not bool(torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise ConfigError(
            "two finite trajectories (tokens, dim) of equal shape are needed, with at least 2 "
            f"tokens and 2 dimensions; got {tuple(before.shape)} and {tuple(after.shape)}"
        )
    both = torch.cat([before, after]).double().cpu()
    both = both - both.mean(dim=0)
    _, spread, axes = torch.linalg.svd(both, full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    placed = both @ (axes * largest.sign())[:2].T
    power = spread.square()
    share = power[:2] / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    first, second = placed.split(len(before))
    return first, second, share


def plot_trajectory(
    before: Tensor,
    after: Tensor,
    path: Path,
    *,
    labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Draws a trajectory before and after a filter, side by side on the same principal axes.

    The color shows the position of a token. The title of each panel has the mean distance between
    successive tokens in all dimensions, relative to the spread (:func:`relative_step`).

    Args:
        before: (tokens, dim).
        after: (tokens, dim).
        path: PNG to write.
        labels: One short text per token, such as its character.
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
    figure.colorbar(panels[1].collections[0], ax=panels, label="token")
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def relative_step(trajectory: Tensor) -> float:
    """Returns the RMS distance between successive tokens over the RMS distance from their mean.

    Args:
        trajectory: (tokens, dim).

    Returns:
        About 1.41 for tokens in random order, near 0 for a smooth trajectory, 0 for a point.
    """
    trajectory = trajectory.double().cpu()
    steps = trajectory.diff(dim=0).square().sum(dim=1).mean()
    spread = (trajectory - trajectory.mean(dim=0)).square().sum(dim=1).mean()
    return float((steps / spread).sqrt()) if spread > 0 else 0.0


def _draw(axes: Axes, points: Tensor, labels: Sequence[str] | None) -> None:
    """Draws one trajectory (tokens, 2) into its panel."""
    x, y = points.T.tolist()
    axes.plot(x, y, color="0.6", linewidth=0.8, zorder=1)
    axes.scatter(x, y, c=range(len(x)), cmap="viridis", s=14, zorder=2)
    for i, label in enumerate((labels or ())[:MAX_LABELS]):
        axes.annotate(label, (x[i], y[i]), xytext=(3, 3), textcoords="offset points", fontsize=7)
