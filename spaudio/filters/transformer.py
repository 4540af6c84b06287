"""A pre-norm transformer layer, shared by the encoder and the mask of the adaptive filter."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.filters.dropout import Dropout, drop
from spaudio.filters.linear import Linear
from spaudio.filters.tracing import is_readable

ROTARY_BASE = 10_000.0
ROWS = 64  # numbers of rows are multiples of it: matrix products are prepared anew for each number
SHORT = 512  # tokens up to which attention without a fused kernel is faster in half precision

#: Maps new keys and values (batch, heads, tokens, head_dim) to all keys and values to attend to.
KeyValues = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class KeyValueCache:
    """Keys and values of the tokens that a stream has seen, one pair for each of ``layers``.

    Attributes:
        tokens: Number of tokens seen.
    """

    def __init__(self, layers: int) -> None:
        self.tokens = 0
        self._pairs: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends (batch, heads, tokens, head_dim) to a layer and returns all that it holds."""
        pair = self._pairs[layer]
        if pair is not None:
            keys, values = torch.cat([pair[0], keys], dim=2), torch.cat([pair[1], values], dim=2)
        self._pairs[layer] = (keys, values)
        return keys, values


def rotary(
    tokens: int,
    head_dim: int,
    start: int = 0,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Angles of rotary positions (arXiv 2104.09864), whose wavelengths are 2π to 2π·10,000 tokens.

    Args:
        tokens: Number of tokens.
        head_dim: Width of a head; even.
        start: Position of the first token.
        device: Where the result lives.
        dtype: At least float32: bfloat16 cannot count beyond 256 tokens.

    Returns:
        Cosine and signed sine of :func:`rotate`, each (tokens, 1, head_dim).
    """
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=dtype) / head_dim
    positions = torch.arange(start, start + tokens, device=device, dtype=dtype)
    angles = torch.outer(positions, ROTARY_BASE**-exponent).unsqueeze(1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates queries and keys (batch, tokens, heads, head_dim) by the angles of :func:`rotary`.

    Each value in the first half of a head is rotated together with its counterpart in the second.
    """
    cosine, sine = (part.to(x.dtype) for part in rotation)
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cosine, torch.cat((second, first), dim=-1), sine)


def causal_mask(tokens: int, start: int = 0, *, device: torch.device) -> Tensor:
    """Boolean (tokens, start + tokens), True where a causal query may attend to a key.

    There are ``start`` keys before the first query.
    """
    queries = torch.arange(start, start + tokens, device=device).unsqueeze(1)
    return torch.arange(start + tokens, device=device) <= queries


def rows_without_padding(padding_mask: Tensor | None) -> Tensor | None:
    """Chooses the tokens that a feed-forward part computes in training on a CPU.

    Args:
        padding_mask: Boolean (batch, tokens), True where a token is padding.

    Returns:
        Indices of rows of (batch * tokens, dim): all that are not padding, and as much padding as
        rounds their number up to a multiple of ``ROWS``. None, for all rows, if there is little
        padding, on other devices, which would have to wait for the number, and where a model is
        traced.
    """
    if padding_mask is None or not is_readable(padding_mask):
        return None
    is_padding = padding_mask.flatten()
    total, padding = len(is_padding), int(is_padding.sum())
    count = -(-(total - padding) // ROWS) * ROWS
    if not 0 < 16 * count <= 15 * total:
        return None
    return is_padding.to(torch.uint8).argsort(stable=True)[:count]


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention.

    Args:
        dim: Width of a token.
        heads: Number of attention heads; must divide ``dim``.
        causal: Whether a token attends only to itself and the past if no mask is given.
        dropout: Dropout of the attention weights.
        bias: Whether queries, keys and values have a bias.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        causal: bool = False,
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = dropout
        self.qkv = Linear(dim, 3 * dim, bias=bias, device=device, dtype=dtype)
        self.out = Linear(dim, dim, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        attend: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        extend: KeyValues | None = None,
    ) -> Tensor:
        """Mixes tokens (batch, tokens, dim).

        Args:
            x: Normalised tokens.
            attend: Boolean, broadcastable to (batch, heads, tokens, keys), True where a query
                may attend to a key; None for all keys or, if causal, the past ones. A single
                query is the last token, which may attend to all keys.
            rotation: From :func:`rotary`, or None.
            extend: Prepends the keys and values of earlier tokens, or None.
        """
        batch, tokens, dim = x.shape
        qk, v = self.qkv(x).split((2 * dim, dim), dim=-1)
        qk = qk.view(batch, tokens, 2 * self.heads, dim // self.heads)
        if rotation is not None:
            qk = rotate(qk, rotation)
        v = v.view(batch, tokens, self.heads, dim // self.heads)
        q, k, v = (part.transpose(1, 2) for part in (*qk.chunk(2, dim=2), v))
        if extend is not None:
            k, v = extend(k, v)
        causal = self.causal and attend is None and tokens > 1
        dropout = self.dropout if self.training else 0.0
        mixed = attention(q, k, v, attend, dropout=dropout, causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return out


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attend: Tensor | None = None,
    *,
    dropout: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention, by the faster of two implementations.

    Args:
        q: Queries (batch, heads, tokens, width).
        k: Keys (batch, heads, keys, width).
        v: Values (batch, heads, keys, width).
        attend: See :meth:`SelfAttention.forward`.
        dropout: Dropout of the attention weights.
        causal: Whether a query attends to past keys only; ``attend`` is then None. The last query
            belongs to the last key, so that there may be keys of earlier tokens.
        scale: Scale of the scores; None is one over the square root of the width.

    Returns:
        (batch, heads, tokens, width).
    """
    earlier = k.shape[2] - q.shape[2]
    if causal and earlier:  # torch's own causal mask begins at the first key
        attend, causal = causal_mask(q.shape[2], earlier, device=q.device), False
    # On CPUs, the fused kernel's backward pass is slow in half precision and has no dropout.
    half = q.dtype in (torch.bfloat16, torch.float16)
    if q.device.type != "cpu" or not (half or dropout) or k.shape[2] > SHORT:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=attend, dropout_p=dropout, is_causal=causal, scale=scale
        )
    if causal:
        attend = causal_mask(q.shape[2], device=q.device)
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    if attend is not None:
        # Not -inf: the row of a padded token, which may attend to no key, would be NaN, and so
        # would all gradients. Half of the lowest number leaves room for the scores.
        lowest = torch.finfo(q.dtype).min / 2
        closed = torch.zeros_like(attend, dtype=q.dtype).masked_fill(~attend, lowest)
        scores = scores + closed
    # Rows of any length are faster in float32, in which the sum is computed anyway.
    weights = scores.softmax(dim=-1, dtype=torch.float32 if half else None).to(q.dtype)
    if dropout:
        weights = drop(weights, dropout)
    return weights @ v


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: attention, then a GELU feed-forward part, both residual.

    Args:
        dim: Width of a token.
        heads: Number of attention heads; must divide ``dim``.
        ff_mult: Width of the feed-forward part, in multiples of ``dim``.
        dropout: Dropout of the attention weights and of the output of each part.
        options: ``causal`` and ``bias`` of :class:`SelfAttention`.
        device: Device of the parameters.
        dtype: Data type of the parameters.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        ff_mult: int,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.attention_norm = nn.LayerNorm(dim, **factory)
        self.attention = SelfAttention(dim, heads, dropout=dropout, **options, **factory)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim, **factory),
            Linear(dim, ff_mult * dim, **factory),
            nn.GELU(),
            Linear(ff_mult * dim, dim, **factory),
        )
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        attend: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        prefilter: Callable[[Tensor], Tensor] | None = None,
        extend: KeyValues | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Transforms (batch, tokens, dim); for the other arguments see :class:`SelfAttention`.

        ``prefilter``, if any, is applied to the normalised tokens before attention reads them. The
        feed-forward part is computed for ``rows`` of (batch * tokens, dim) alone, if given.
        """
        read = self.attention_norm(x)
        if prefilter is not None:
            read = prefilter(read)
        x = x + self.dropout(self.attention(read, attend, rotation, extend))
        if rows is None:
            out: Tensor = x + self.dropout(self.feed_forward(x))
            return out
        flat = x.flatten(0, 1)
        added = self.dropout(self.feed_forward(flat.index_select(0, rows)))
        return flat.index_add(0, rows, added.to(flat.dtype)).view_as(x)
