"""The transformer stack: pre-norm layers with a filter slot, bidirectional or causal by a flag."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import NoFilter, TokenFilter, make_filter
from spaudio.filters.dropout import Dropout
from spaudio.filters.tracing import is_readable
from spaudio.filters.transformer import (
    KeyValues,
    TransformerLayer,
    causal_mask,
    rotary,
    rows_without_padding,
)
from spaudio.model.positions import LearnedPositions

PLACES = ("after", "attention")
POSITIONS = ("rotary", "learned", "none")


@dataclass
class EncoderConfig:
    """Shape of the transformer stack.

    Args:
        dim: Width of a token.
        layers: Number of layers.
        heads: Attention heads; must divide ``dim``.
        ff_mult: Width of the feed-forward part, in multiples of ``dim``.
        dropout: Dropout probability, in [0, 1), of the input tokens, of the attention weights, and
            of the outputs of attention and the feed-forward part.
        drop_path: Probability, in [0, 1), with which a clip skips the last layer in training
            (stochastic depth, arXiv 1603.09382); it grows linearly over the layers.
        positions: ``"rotary"``, ``"learned"`` or ``"none"``.
        max_tokens: Longest sequence, for learned positions.
        causal: Whether a token may attend only to itself and the past.
        filter_place: ``"after"`` puts filters after each layer, on the residual stream;
            ``"attention"`` before each attention, on the normalised tokens that it reads (Canon-A).
        filter_layers: Layers that have a filter, counted from 0; None for all.

    Raises:
        ConfigError: If a value is out of range.
    """

    dim: int = 128
    layers: int = 4
    heads: int = 4
    ff_mult: int = 4
    dropout: float = 0.1
    drop_path: float = 0.0
    positions: str = "rotary"
    max_tokens: int = 1024
    causal: bool = False
    filter_place: str = "after"
    filter_layers: list[int] | None = None

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "heads", "ff_mult", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must be at least 1; got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ConfigError(f"model.heads={self.heads} must divide model.dim={self.dim}")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"model.{name} must lie in [0, 1); got {getattr(self, name)}")
        if self.positions not in POSITIONS:
            raise ConfigError(f"model.positions must be one of {POSITIONS}; got {self.positions!r}")
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ConfigError(
                "model.positions=rotary needs an even head width; got model.dim / model.heads = "
                f"{self.dim // self.heads}"
            )
        if self.filter_place not in PLACES:
            raise ConfigError(
                f"model.filter_place must be one of {PLACES}; got {self.filter_place!r}"
            )
        if self.filter_layers == []:
            raise ConfigError(
                "model.filter_layers is empty; give filter=none for no filter, or null for a "
                "filter in each layer"
            )
        if wrong := sorted(set(self.filter_layers or ()) - set(range(self.layers))):
            raise ConfigError(
                f"model.filter_layers counts from 0 to {self.layers - 1}; got {wrong[0]}"
            )

    def has_filter(self, layer: int) -> bool:
        """Returns whether a layer, counted from 0, has a filter."""
        return self.filter_layers is None or layer in self.filter_layers


def make_filters(config: EncoderConfig, options: Mapping[str, Any]) -> list[TokenFilter]:
    """Builds the filters of a stack, one per layer.

    They draw nothing from the generator of the caller, so that all other parameters of a model have
    the same initial values for every filter.

    Args:
        config: Shape of the stack.
        options: ``name`` and options, as :func:`spaudio.filters.make_filter` takes them.

    Raises:
        ConfigError: If an option is unknown or out of range.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            return [
                make_filter(dim=config.dim, causal=config.causal, **options)
                if config.has_filter(layer)
                else NoFilter(causal=config.causal)
                for layer in range(config.layers)
            ]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"filter: {error}") from error


def check_filter(config: EncoderConfig, options: Mapping[str, Any]) -> None:
    """Checks the options of a filter by building one without memory; arguments as `make_filters`.

    Raises:
        ConfigError: If an option is unknown or out of range.
    """
    # Sizes that no tensor can have are refused when the whole model is built.
    with torch.device("meta"), suppress(RuntimeError, OverflowError):
        make_filters(replace(config, layers=1, filter_layers=None), options)


class Encoder(nn.Module):
    """A stack of layers with filters, by default one after each: layer, filter, ..., norm.

    ``config.filter_place`` and ``config.filter_layers`` decide where the filters are. With
    ``config.causal`` it is a decoder, and the filters must be causal too.

    Args:
        config: Shape of the stack.
        filters: One module per layer (the identity where a layer has none), called as
            ``filter(x, padding_mask)``. Each includes the residual, as
            :class:`spaudio.filters.FilterBank` does.

    Raises:
        ConfigError: If there is not one filter per layer, or the stack is causal and a filter sees
            the future.
    """

    def __init__(self, config: EncoderConfig, filters: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(filters) != config.layers:
            raise ConfigError(
                f"a filter is needed for each of the {config.layers} layers; got {len(filters)}"
            )
        for each in filters:
            if config.causal and isinstance(each, TokenFilter) and each.receptive_field[1] > 0:
                raise ConfigError(
                    f"filter {each.name!r} sees future tokens, which model.causal=true forbids; "
                    "make it with causal=True"
                )
        self.config = config
        self.dropout = Dropout(config.dropout)
        self.learned = (
            LearnedPositions(config.max_tokens, config.dim)
            if config.positions == "learned"
            else None
        )
        self.layers = nn.ModuleList(
            TransformerLayer(
                config.dim,
                config.heads,
                ff_mult=config.ff_mult,
                causal=config.causal,
                dropout=config.dropout,
            )
            for _ in range(config.layers)
        )
        self.filters = nn.ModuleList(filters)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Transforms token embeddings.

        Args:
            x: (batch, tokens, dim).
            padding_mask: Boolean (batch, tokens), True where a token is padding. The output at
                padding is unspecified; elsewhere it does not depend on padding.

        Returns:
            (batch, tokens, dim), normalised.
        """
        filters = [partial(each, padding_mask=padding_mask) for each in self.filters]
        rows = rows_without_padding(padding_mask) if self.training else None
        return self.run(x, filters, attend=self._attend(x, padding_mask), rows=rows)

    def run(
        self,
        x: Tensor,
        filters: Sequence[Callable[[Tensor], Tensor]],
        *,
        attend: Tensor | None = None,
        start: int = 0,
        extend: Sequence[KeyValues] | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Runs the stack with explicit state, for :meth:`forward` and :class:`EncoderStream`.

        Args:
            x: (batch, tokens, dim).
            filters: The filter of each layer.
            attend: See :class:`spaudio.filters.transformer.SelfAttention`.
            start: Position of the first token.
            extend: See :class:`spaudio.filters.transformer.SelfAttention`; one per layer.
            rows: See :class:`spaudio.filters.transformer.TransformerLayer`.

        Returns:
            (batch, tokens, dim), normalised.
        """
        if self.learned is not None:
            x = self.learned(x, start)
        x = self.dropout(x)
        rotation = None
        if self.config.positions == "rotary":
            head_dim = self.config.dim // self.config.heads
            rotation = rotary(x.shape[1], head_dim, start, device=x.device)
        before = self.config.filter_place == "attention"
        for i, (layer, token_filter) in enumerate(zip(self.layers, filters, strict=True)):
            past = None if extend is None else extend[i]
            y = layer(x, attend, rotation, token_filter if before else None, past, rows)
            rate = self.config.drop_path * (i + 1) / len(self.layers)
            x = _skip(x, y, rate) if rate and self.training else y
            if not before:
                x = token_filter(x)
        out: Tensor = self.norm(x)
        return out

    def token_filters(self) -> dict[int, TokenFilter]:
        """Returns all filters except :class:`spaudio.filters.NoFilter`, by layer, from 0."""
        return {
            layer: found
            for layer, found in enumerate(self.filters)
            if isinstance(found, TokenFilter) and not isinstance(found, NoFilter)
        }

    def _attend(self, x: Tensor, padding_mask: Tensor | None) -> Tensor | None:
        """Returns where a query may attend to a key; None without padding."""
        if padding_mask is None:
            return None
        if self.config.causal and _is_at_the_end(padding_mask):
            return None  # no token attends to later ones, and a mask has tokens x tokens values
        attend = ~padding_mask[:, None, None, :]
        if self.config.causal:
            attend = attend & causal_mask(x.shape[1], device=x.device)
        return attend


def _is_at_the_end(padding_mask: Tensor) -> bool:
    """Whether padding comes after all other tokens; False if that cannot be told at once."""
    return is_readable(padding_mask) and not (padding_mask[:, :-1] & ~padding_mask[:, 1:]).any()


def _skip(x: Tensor, y: Tensor, rate: float) -> Tensor:
    """Replaces ``y`` by ``x`` in a fraction of the clips; scales the others to keep the mean."""
    kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= rate
    return x + (y - x) * (kept / (1 - rate)).to(x.dtype)
