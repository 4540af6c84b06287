"""The transformer stack: pre-norm layers with a filter slot, bidirectional or causal by a flag."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import NoFilter, TokenFilter, make_filter
from spaudio.model.positions import KINDS, LearnedPositions, Rotary, rotate

PLACES = ("after", "attention")
# Takes keys and values (batch, heads, tokens, head_dim), returns those to attend to.
KeyValues = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the transformer stack.

    Args:
        dim: Width of a token.
        layers: Number of layers.
        heads: Attention heads; must divide ``dim``.
        ff_mult: Width of the feed-forward part, in multiples of ``dim``.
        dropout: After attention, after the feed-forward part, and on the tokens that come in.
        positions: ``"rotary"``, ``"learned"`` or ``"none"``.
        max_tokens: Longest sequence, for learned positions.
        causal: Whether a token may attend only to itself and the past.
        filter_place: ``"after"`` each layer, on the residual stream, or before its
            ``"attention"``, on the normalised tokens that attention reads (as Canon-A does).
        filter_layers: Layers that have a filter, counted from 0; None for all.

    Raises:
        ConfigError: If a value is out of range.
    """

    dim: int = 128
    layers: int = 4
    heads: int = 4
    ff_mult: int = 4
    dropout: float = 0.1
    positions: str = "rotary"
    max_tokens: int = 1024
    causal: bool = False
    filter_place: str = "after"
    filter_layers: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "ff_mult", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be at least 1; got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"model.heads={self.heads} must divide model.dim={self.dim}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout must lie in [0, 1); got {self.dropout}")
        if self.positions not in KINDS:
            raise ConfigError(f"model.positions must be one of {KINDS}; got {self.positions!r}")
        if self.filter_place not in PLACES:
            raise ConfigError(
                f"model.filter_place must be one of {PLACES}; got {self.filter_place!r}"
            )
        if wrong := sorted(set(self.filter_layers or ()) - set(range(self.layers))):
            raise ConfigError(
                f"model.filter_layers counts from 0 to {self.layers - 1}; got {wrong[0]}"
            )

    def has_filter(self, layer: int) -> bool:
        """Returns whether a layer, counted from 0, has a filter."""
        return self.filter_layers is None or layer in self.filter_layers


def make_filters(config: EncoderConfig, options: Mapping[str, Any]) -> list[TokenFilter]:
    """Builds the filters of a stack, one a layer.

    Args:
        config: Shape; says whether they are causal and which layers have one.
        options: ``name`` and options, as :func:`spaudio.filters.make_filter` takes them.

    Raises:
        ConfigError: If an option is unknown or out of range.
    """
    try:
        return [
            make_filter(dim=config.dim, causal=config.causal, **options)
            if config.has_filter(layer)
            else NoFilter(causal=config.causal)
            for layer in range(config.layers)
        ]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"filter: {error}") from error


class SelfAttention(nn.Module):
    """Multi-head self-attention on ``scaled_dot_product_attention``."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.causal = config.causal
        self.dropout = config.dropout
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)

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
                may see a key; None for all (or, if causal, for the past). One query alone is the
                last token, which sees all keys.
            rotation: From :class:`Rotary`, or None.
            extend: Puts the keys and values of earlier tokens before those of ``x``.
        """
        batch, tokens, dim = x.shape
        q, k, v = (
            part.view(batch, tokens, self.heads, dim // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if extend is not None:
            k, v = extend(k, v)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=attend,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and attend is None and tokens > 1,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, dim))
        return out


class Layer(nn.Module):
    """Pre-norm transformer layer: attention, then a GELU feed-forward part, both residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.ff_mult * config.dim),
            nn.GELU(),
            nn.Linear(config.ff_mult * config.dim, config.dim),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        attend: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        prefilter: Callable[[Tensor], Tensor] | None = None,
        extend: KeyValues | None = None,
    ) -> Tensor:
        """Transforms (batch, tokens, dim).

        Args:
            x: Tokens.
            attend: See :class:`SelfAttention`.
            rotation: See :class:`SelfAttention`.
            prefilter: Applied to the normalised tokens before attention reads them.
            extend: See :class:`SelfAttention`.
        """
        read = self.attention_norm(x)
        if prefilter is not None:
            read = prefilter(read)
        x = x + self.dropout(self.attention(read, attend, rotation, extend))
        out: Tensor = x + self.dropout(self.feed_forward(x))
        return out


class Encoder(nn.Module):
    """A stack of layers with a filter after each: layer, filter, layer, filter, ..., norm.

    With ``config.causal`` it is a decoder; the filters that go in must then be causal too.

    Args:
        config: Shape.
        filters: One module a layer (the identity where it has none), called as
            ``filter(x, padding_mask)``; it returns its input plus what it adds, as
            :class:`spaudio.filters.FilterBank` does.

    Raises:
        ConfigError: If the number of filters is not that of the layers.
    """

    def __init__(self, config: EncoderConfig, filters: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(filters) != config.layers:
            raise ConfigError(
                f"a filter is needed for each of the {config.layers} layers; got {len(filters)}"
            )
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.rotary = Rotary(config.dim // config.heads) if config.positions == "rotary" else None
        self.learned = (
            LearnedPositions(config.max_tokens, config.dim)
            if config.positions == "learned"
            else None
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.filters = nn.ModuleList(filters)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Transforms token embeddings.

        Args:
            x: (batch, tokens, dim).
            padding_mask: Boolean (batch, tokens), True where a token is padding. What comes out at
                padding is not specified; what comes out elsewhere does not depend on padding.

        Returns:
            (batch, tokens, dim), normalised.
        """
        filters = [partial(each, padding_mask=padding_mask) for each in self.filters]
        return self.run(x, filters, attend=self._attend(x, padding_mask))

    def run(
        self,
        x: Tensor,
        filters: Sequence[Callable[[Tensor], Tensor]],
        *,
        attend: Tensor | None = None,
        start: int = 0,
        extend: Sequence[KeyValues] | None = None,
    ) -> Tensor:
        """:meth:`forward` with its state given: what it and :class:`EncoderStream` share.

        Args:
            x: (batch, tokens, dim).
            filters: What stands in each layer's filter slot.
            attend: See :class:`SelfAttention`.
            start: Position of the first token.
            extend: See :class:`SelfAttention`; one a layer.
        """
        tokens = x.shape[1]
        if self.learned is not None:
            x = self.learned(x, start)
        x = self.dropout(x)
        rotation = self.rotary(tokens, start) if self.rotary is not None else None
        before = self.config.filter_place == "attention"
        for i, (layer, token_filter) in enumerate(zip(self.layers, filters, strict=True)):
            past = None if extend is None else extend[i]
            x = layer(x, attend, rotation, token_filter if before else None, past)
            if not before:
                x = token_filter(x)
        out: Tensor = self.norm(x)
        return out

    def token_filters(self) -> list[TokenFilter]:
        """Returns the filters that do something, in order of their layers."""
        found = (m for m in self.filters if isinstance(m, TokenFilter))
        return [m for m in found if not isinstance(m, NoFilter)]

    def _attend(self, x: Tensor, padding_mask: Tensor | None) -> Tensor | None:
        """Returns where a query may see a key, or None where one flag says it all."""
        if padding_mask is None:
            return None
        attend = ~padding_mask[:, None, None, :]
        if self.config.causal:
            attend = attend & x.new_ones(x.shape[1], x.shape[1]).bool().tril()
        return attend
