"""The figure ``path.png`` of a run: one sequence through its first filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from spaudio.filters import NoFilter, TokenFilter
from spaudio.model.classifier import Classifier
from spaudio.model.language import LanguageModel
from spaudio.report.trajectory import plot_trajectory, record_trajectory


@torch.inference_mode()
def draw_path(
    run: Path,
    model: Classifier | LanguageModel,
    tokens: Tensor,
    *,
    title: str,
    labels: Sequence[str] | None = None,
) -> Path | None:
    """Draws the embeddings of one sequence before and after the first layer's filter.

    Args:
        run: The run's folder.
        model: Trained.
        tokens: One sequence of what the model takes: symbols (tokens,) or features (tokens, width).
        title: What the sequence is.
        labels: One short text a token.

    Returns:
        ``path.png`` in the run's folder, or None where the model has no filter, or the
        sequence no second token.
    """
    found = [
        (layer, module)
        for layer, module in enumerate(model.encoder.filters)
        if isinstance(module, TokenFilter) and not isinstance(module, NoFilter)
    ]
    if not found or len(tokens) < 2:
        return None
    layer, module = found[0]
    tokens = tokens.unsqueeze(0).to(next(model.parameters()).device)
    before, after = record_trajectory(module, lambda: model.eval()(tokens))
    path = run / "path.png"
    plot_trajectory(
        before, after, path, labels=labels, title=f"{title}; {module.name} of layer {layer}"
    )
    return path
