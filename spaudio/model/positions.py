"""Position information: rotary (relative), learned (absolute), or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError

KINDS = ("rotary", "learned", "none")


class Rotary(nn.Module):
    """Rotary position embedding (arXiv 2104.09864): rotates pairs of a head's dimensions.

    Args:
        head_dim: Width of a head; even.
        base: Wavelengths run geometrically from 2π to 2π·base tokens.

    Raises:
        ConfigError: If ``head_dim`` is odd.
    """

    inverse_wavelength: Tensor

    def __init__(self, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ConfigError(
                f"rotary positions need an even head width; got dim / heads = {head_dim}"
            )
        exponent = torch.arange(0, head_dim, 2) / head_dim
        self.register_buffer("inverse_wavelength", base**-exponent, persistent=False)

    def forward(self, tokens: int, start: int = 0) -> tuple[Tensor, Tensor]:
        """Returns cosine and sine, each (tokens, head_dim / 2), from position ``start`` on."""
        position = torch.arange(start, start + tokens, device=self.inverse_wavelength.device)
        angle = torch.outer(position.float(), self.inverse_wavelength.float())
        return angle.cos(), angle.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates queries or keys (batch, heads, tokens, head_dim) by their positions."""
    cosine, sine = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class LearnedPositions(nn.Module):
    """Adds a learned vector to each position.

    Args:
        max_tokens: Longest sequence.
        dim: Width.
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
                f"a sequence of {end} tokens is longer than model.max_tokens="
                f"{len(self.weight)}; raise it, stack more frames a token, or use "
                "model.positions=rotary"
            )
        return x + self.weight[start:end]
