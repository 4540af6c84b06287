"""A small transformer that predicts, token by token, how far each filter is open."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_RATIO = 4
ROTARY_BASE = 10_000.0


class KeyValueCache:
    """Keys and values of the tokens that a stream has seen, one pair a layer.

    Attributes:
        tokens: Number of tokens seen.
    """

    def __init__(self, layers: int) -> None:
        self.tokens = 0
        self._pairs: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends (batch, heads, tokens, width) to a layer and returns all that it holds."""
        pair = self._pairs[layer]
        if pair is not None:
            keys, values = torch.cat([pair[0], keys], dim=2), torch.cat([pair[1], values], dim=2)
        self._pairs[layer] = (keys, values)
        return keys, values


class MaskPredictor(nn.Module):
    """Tokens to a mask in (0, 1): projection, pre-norm transformer, sigmoid.

    Positions are rotary (arXiv 2104.09864), hence relative: a mask moves with its tokens, and a
    stream needs no longest length.

    Args:
        dim: Embedding dimensions of the tokens.
        num_filters: M, the width of the mask.
        width: Dimensions of the transformer.
        layers: Number of its layers.
        heads: Number of its attention heads.
        causal: Whether a token sees only itself and the past.
        device: Where the parameters live.
        dtype: Their type.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        dim: int,
        num_filters: int,
        *,
        width: int = 64,
        layers: int = 1,
        heads: int = 4,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(dim, num_filters, width, layers, heads) < 1 or width % (2 * heads):
            raise ValueError(
                "dim, num_filters, width, layers and heads must be at least 1, and width a "
                f"multiple of 2 * heads; got dim={dim}, num_filters={num_filters}, width={width}, "
                f"layers={layers}, heads={heads}"
            )
        self.width, self.heads, self.causal = width, heads, causal
        self.embed = nn.Linear(dim, width, device=device, dtype=dtype)
        self.layers = nn.ModuleList(
            MaskLayer(width, heads, device=device, dtype=dtype) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, device=device, dtype=dtype)
        self.open = nn.Linear(width, num_filters, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Resets every part, and starts all filters half open."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        nn.init.zeros_(self.open.bias)

    def forward(
        self, x: Tensor, padding_mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Predicts the mask.

        Args:
            x: Tokens (batch, tokens, dim), zero where they are padding.
            padding_mask: Boolean (batch, tokens), True where a token is padding and not attended.
            cache: What a stream has seen so far; it is extended. Needs a causal predictor.

        Returns:
            (batch, tokens, M), values in (0, 1).
        """
        tokens = x.shape[1]
        start = 0 if cache is None else cache.tokens
        visible = self._visible(tokens, start, padding_mask, x.device)
        rotation = rotary(start, tokens, self.width // self.heads, x)
        h = self.embed(x)
        for index, layer in enumerate(self.layers):
            h = layer(h, visible, rotation, index, cache)
        if cache is not None:
            cache.tokens += tokens
        return torch.sigmoid(self.open(self.norm(h)))

    def flops(self, tokens: int, dim: int) -> int:
        """Floating-point operations over one sequence: matrix products and attention."""
        in_out = dim * self.width + self.width * self.open.out_features
        layer = (4 + 2 * MLP_RATIO) * self.width**2 + 2 * tokens * self.width
        return 2 * tokens * (in_out + len(self.layers) * layer)

    def _visible(
        self, tokens: int, start: int, padding_mask: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """Which keys a query may attend to, broadcastable to (batch, heads, tokens, keys)."""
        if not self.causal and padding_mask is None:
            return None
        queries = torch.arange(start, start + tokens, device=device).unsqueeze(1)
        keys = torch.arange(start + tokens, device=device)
        visible = keys <= queries if self.causal else torch.ones_like(keys <= queries)
        if padding_mask is not None:
            # A padded token sees itself, or a row without any key would yield NaN.
            alone = keys == queries
            visible = visible & ~padding_mask[:, None, None, :] | alone
        return visible


class MaskLayer(nn.Module):
    """A pre-norm transformer layer with rotary attention."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, device=device, dtype=dtype)
        self.qkv = nn.Linear(width, 3 * width, bias=False, device=device, dtype=dtype)
        self.out = nn.Linear(width, width, device=device, dtype=dtype)
        self.norm2 = nn.LayerNorm(width, device=device, dtype=dtype)
        self.up = nn.Linear(width, MLP_RATIO * width, device=device, dtype=dtype)
        self.down = nn.Linear(MLP_RATIO * width, width, device=device, dtype=dtype)

    def forward(
        self,
        h: Tensor,
        visible: Tensor | None,
        rotation: tuple[Tensor, Tensor],
        index: int,
        cache: KeyValueCache | None,
    ) -> Tensor:
        """Attends and transforms; the arguments are what :class:`MaskPredictor` computes once.

        Args:
            h: (batch, tokens, width).
            visible: Which keys a query may attend to, or None for all.
            rotation: Of :func:`rotary`.
            index: Which layer of the cache is this one's.
            cache: Keys and values of a stream, or None.

        Returns:
            (batch, tokens, width).
        """
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(index, k, v)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        update: Tensor = self.down(F.gelu(self.up(self.norm2(h))))
        return h + update


def rotary(start: int, tokens: int, head_width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each (tokens, head_width / 2), of positions from ``start`` on."""
    # Angles in float32 at least: bfloat16 cannot count beyond 256 tokens.
    dtype = torch.promote_types(like.dtype, torch.float32)
    exponent = torch.arange(0, head_width, 2, device=like.device, dtype=dtype) / head_width
    positions = torch.arange(start, start + tokens, device=like.device, dtype=dtype)
    angles = torch.outer(positions, ROTARY_BASE**-exponent)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns pairs of dimensions of (..., tokens, head_width) by the angles of :func:`rotary`."""
    cos, sin = rotation
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)
