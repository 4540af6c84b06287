"""Pools a sequence of tokens to one vector per clip, without the padding."""

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError


class MeanPooling(nn.Module):
    """Mean over the tokens that are not padding."""

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Pools (batch, tokens, dim) to (batch, dim)."""
        if padding_mask is None:
            return x.mean(dim=1)
        kept = (~padding_mask).unsqueeze(-1).to(x.dtype)
        # masked_fill, as a product would keep a NaN or an infinity at padding.
        return x.masked_fill(padding_mask.unsqueeze(-1), 0).sum(dim=1) / kept.sum(dim=1)


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


def make_pooling(kind: str, dim: int) -> nn.Module:
    """Builds the pooling ``"mean"`` or ``"attention"``.

    Raises:
        ConfigError: If the kind is unknown.
    """
    if kind == "mean":
        return MeanPooling()
    if kind == "attention":
        return AttentionPooling(dim)
    raise ConfigError(f"model.pooling must be 'mean' or 'attention'; got {kind!r}")
