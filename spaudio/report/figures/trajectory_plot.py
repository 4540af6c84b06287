"""Figure of the trajectory of a sequence through the embedding space, before and after a filter.

After Fig. 1B of arXiv 2406.10254, which describes a filter along the tokens as one that shapes the
trajectory of the embeddings. The figure there is a sketch; this one is drawn from a trained model.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from spaudio.io.escape import for_figure
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AnyClassifier, outside_clip
from spaudio.report.figures.drawing import make_figure, save_figure

MAX_LABELS = 60  # more do not fit into a panel


@torch.inference_mode()
def plot_trajectory(
    model: AnyClassifier | LanguageModel,
    tokens: Tensor,
    path: Path,
    *,
    title: str,
    labels: Sequence[str] = (),
) -> bool:
    """Draws the embeddings of one sequence before and after the model's first filter.

    Silence that an encoder adds around a clip is left out. Both panels have the same principal
    axes. The color shows the position of a token. The title of each panel gives the mean distance
    between successive tokens in all dimensions, relative to the spread (:func:`relative_step`).

    Args:
        model: Trained. It is set to evaluation mode.
        tokens: One input sequence: symbols (tokens,) or features (tokens, width).
        path: PNG to write.
        title: Describes the sequence.
        labels: One short text per token, such as its character.

    Returns:
        Whether the model has a filter, the sequence at least two tokens, and all embeddings are
        finite. If not, nothing is written.
    """
    filters = model.token_filters()
    if not filters or len(tokens) < 2:
        return False
    layer, first = next(iter(filters.items()))
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        added = outside_clip(model, arguments[0].new_zeros(arguments[0].shape[:2]).bool())
        seen[:] = (value[0, ~added[0]].double().cpu() for value in (arguments[0], output))

    with first.register_forward_hook(keep):
        model.eval()(tokens.unsqueeze(0).to(next(model.parameters()).device))
    if len(seen[0]) < 2 or not all(bool(one.isfinite().all()) for one in seen):
        return False
    points, share = principal_axes(seen)
    figure = make_figure(11, 5.2)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for i, (axes, stage) in enumerate(zip(panels, ("before", "after"), strict=True)):
        x, y = points[i].T.tolist()
        axes.plot(x, y, color="0.6", linewidth=0.8, zorder=1)
        axes.scatter(x, y, c=range(len(x)), cmap="viridis", s=14, zorder=2)
        for at, label in zip(points[i].tolist(), labels[:MAX_LABELS], strict=False):
            axes.annotate(
                for_figure(label), at, xytext=(3, 3), textcoords="offset points", fontsize=7
            )
        step = relative_step(seen[i])
        axes.set_title(f"{stage} the filter; relative step {step:.2f}", fontsize=10)
        axes.set_xlabel(f"first principal axis ({share[0]:.0%} of the variance)")
    panels[0].set_ylabel(f"second principal axis ({share[1]:.0%})")
    figure.colorbar(panels[1].collections[0], ax=panels, label="token")
    figure.suptitle(f"{for_figure(title, 80)}; {first.name} of layer {layer}", fontsize=10)
    save_figure(figure, path)
    return True


def principal_axes(trajectories: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
    """Projects trajectories (tokens, dim) on the two principal axes of all of them together.

    Returns them as (tokens, 2), and the share of the total variance along each axis. The entry of
    largest magnitude of an axis is positive.
    """
    points = torch.cat(list(trajectories))
    points = points - points.mean(dim=0)
    _, spread, axes = torch.linalg.svd(points, full_matrices=False)
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    placed = points @ (axes * largest.sign())[:2].T
    power = spread.square()
    share = power[:2] / power.sum().clamp_min(torch.finfo(power.dtype).tiny)
    return placed.split([len(one) for one in trajectories]), share


def relative_step(trajectory: Tensor) -> float:
    """Returns the RMS distance between successive tokens over the RMS distance from their mean.

    It is about 1.41 for tokens in random order, near 0 for a smooth trajectory, 0 for a point.
    """
    steps = trajectory.diff(dim=0).square().sum(dim=1).mean()
    spread = (trajectory - trajectory.mean(dim=0)).square().sum(dim=1).mean()
    return float((steps / spread).sqrt()) if spread > 0 else 0.0
