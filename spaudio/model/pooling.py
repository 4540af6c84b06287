"""Pools a sequence of tokens to one vector per clip, ignoring padding."""

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters.precision import without_autocast

POOLINGS = ("mean", "mean_std", "attention")
_LEAST_VARIANCE = 1e-6


class MeanPooling(nn.Module):
    """Mean over the tokens that are not padding."""

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Pools (batch, tokens, dim) to (batch, dim)."""
        if padding_mask is None:
            return x.mean(dim=1)
        kept = (~padding_mask).unsqueeze(-1).to(x.dtype)
        # masked_fill, as a product would keep a NaN or an infinity at padding.
        return x.masked_fill(padding_mask.unsqueeze(-1), 0).sum(dim=1) / kept.sum(dim=1)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the tokens that are not padding (arXiv 1803.10963)."""

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Pools (batch, tokens, dim) to (batch, 2 * dim)."""
        if padding_mask is not None:
            x = x.masked_fill(padding_mask.unsqueeze(-1), 0)
        return statistics(x, padding_mask)


class AttentionPooling(nn.Module):
    """Weighted mean whose weights are a softmax over a learned score of each token.

    Args:
        dim: Width of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        # No bias: the softmax is invariant to it.
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Pools (batch, tokens, dim) to (batch, dim)."""
        score = self.score(x)
        if padding_mask is not None:
            padding = padding_mask.unsqueeze(-1)
            score = score.masked_fill(padding, float("-inf"))
            x = x.masked_fill(padding, 0)
        return (torch.softmax(score, dim=1) * x).sum(dim=1)


def statistics(states: Tensor, padding: Tensor | None = None) -> Tensor:
    """Mean and standard deviation over time.

    Args:
        states: (..., tokens, dim).
        padding: Boolean, broadcastable to (..., tokens), True at padding, where states must be
            finite; None if there is none.

    Returns:
        (..., 2 * dim): means, then standard deviations.
    """
    if padding is None:
        padding = torch.zeros(states.shape[-2], dtype=torch.bool, device=states.device)
    kept = (~padding).to(states.dtype)
    weights = (kept / kept.sum(dim=-1, keepdim=True)).unsqueeze(-2)
    # Products with weights read the states half as often as sums of masked ones. Autocast would
    # round them to half precision.
    with without_autocast(states):
        mean = weights @ states
        variance = (weights @ (states - mean).square()).squeeze(-2)
    # The gradient of a square root is infinite at zero, the variance of a clip of one token.
    spread = (variance + _LEAST_VARIANCE).sqrt()
    return torch.cat([mean.squeeze(-2), spread], dim=-1)


def make_pooling(kind: str, dim: int) -> tuple[nn.Module, int]:
    """Builds the pooling ``"mean"``, ``"mean_std"`` or ``"attention"``; also returns its width.

    Raises:
        ConfigError: If the kind is unknown.
    """
    if kind == "mean":
        return MeanPooling(), dim
    if kind == "mean_std":
        return StatisticsPooling(), 2 * dim
    if kind == "attention":
        return AttentionPooling(dim), dim
    raise ConfigError(f"model.pooling must be one of {', '.join(POOLINGS)}; got {kind!r}")
