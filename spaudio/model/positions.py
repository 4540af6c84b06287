"""Learned (absolute) positions."""

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError


class LearnedPositions(nn.Module):
    """Adds a learned vector to each position.

    Args:
        max_tokens: Longest sequence.
        dim: Width of a token.
    """

    def __init__(self, max_tokens: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_tokens, dim))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Adds positions, from ``start`` on, to (batch, tokens, dim).

        Raises:
            ConfigError: If the sequence is longer than ``max_tokens``.
        """
        end = start + x.shape[1]
        if end > len(self.weight):
            raise ConfigError(
                f"a sequence of {end} tokens is longer than model.max_tokens={len(self.weight)}; "
                "raise it, stack more frames per token, or use model.positions=rotary"
            )
        return x + self.weight[start:end]
