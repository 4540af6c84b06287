"""The head of a pretrained encoder: standardised, pooled hidden states and a linear layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spaudio.model.pooling import statistics


class Head(nn.Module):
    """Standardises, combines and pools hidden states over time, then applies a linear layer.

    Args:
        states: Number of hidden states that are read.
        dim: Width of a state.
        classes: Number of classes.
        pooling: ``"mean_std"`` or ``"attention"``.
        combine: ``"concat"`` or ``"sum"``.
    """

    def __init__(
        self,
        states: int,
        dim: int,
        classes: int,
        pooling: str = "mean_std",
        combine: str = "concat",
    ) -> None:
        super().__init__()
        width = 2 * dim if pooling == "mean_std" else dim
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(states, width))
        self.register_buffer("std", torch.ones(states, width))
        self.mix = nn.Parameter(torch.zeros(states)) if combine == "sum" else None
        if self.mix is None:
            width, dim = states * width, states * dim
        self.score = None if pooling == "mean_std" else nn.Parameter(torch.zeros(dim))
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    @torch.no_grad()
    def standardise(self, found: Tensor) -> None:
        """Sets mean and standard deviation from statistics (clips, states, 2 * dim)."""
        if self.score is None:
            mean, std = found.mean(dim=0), found.std(dim=0, correction=0)
        else:  # of tokens, from those of clips
            means, spreads = found.chunk(2, dim=-1)
            mean = means.mean(dim=0)
            std = ((means - mean).square() + spreads.square()).mean(dim=0).sqrt()
        self.mean.copy_(mean)
        # States are cached as float16; a spread as small as its rounding does not count.
        self.std.copy_(torch.maximum(std, 2e-3 * mean.abs()).clamp_min(1e-4))

    def forward(self, found: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classifies statistics (batch, states, 2 * dim); returns logits (batch, classes)."""
        logits: Tensor = self.linear(self.mixed(found))
        return logits

    def mixed(self, found: Tensor) -> Tensor:
        """Combines statistics (batch, states, 2 * dim); returns (batch, width)."""
        return self.combined(self.standardised(found))

    def standardised(self, found: Tensor) -> Tensor:
        """Standardises statistics (batch, states, 2 * dim)."""
        width = self.mean.shape[-1]  # untrained attention pooling is a mean
        return (found[..., :width] - self.mean) / self.std

    def combined(self, x: Tensor) -> Tensor:
        """Combines standardised states (..., states, width) to (..., width of the linear layer)."""
        if self.mix is None:
            return x.flatten(-2)
        weights = self.mix.softmax(dim=0).unsqueeze(-1)
        mixed: Tensor = (x * weights).sum(dim=-2)
        return mixed

    def pool(self, states: Sequence[Tensor], padding: Tensor) -> Tensor:
        """Pools hidden states, each (batch, tokens, dim); returns (batch, width)."""
        if self.score is None:
            return self.mixed(torch.stack([statistics(s, padding) for s in states], dim=1))
        stacked = torch.stack(list(states), dim=2)
        mixed = self.combined((stacked - self.mean) / self.std)
        score = (mixed @ self.score).masked_fill(padding, float("-inf"))
        mixed = mixed.masked_fill(padding.unsqueeze(-1), 0)
        return (score.softmax(dim=1).unsqueeze(-1) * mixed).sum(dim=1)
