"""Symbols to the logits of the next symbol: embedding, causal encoder, output head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.model.encoder import Encoder, EncoderConfig, make_filters


class LanguageModel(nn.Module):
    """Predicts, at each symbol of a sequence, the one that follows it.

    Embedding and output head have weights of their own (they are not tied): of an alphabet of 27
    they are less than one per cent of the parameters.

    Args:
        symbols: Size of the alphabet.
        encoder: Shape of the transformer; must be causal.
        filter_options: ``name`` and options of the filter that stands after each layer, as
            :func:`spaudio.filters.make_filter` takes them.

    Raises:
        ConfigError: If a setting is unknown or out of range, or the encoder is not causal.
    """

    def __init__(
        self, symbols: int, encoder: EncoderConfig, filter_options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if not encoder.causal:
            raise ConfigError("a language model needs model.causal=true; got false")
        self.symbols = symbols
        self.filter_options = dict(filter_options)
        self.embed = nn.Embedding(symbols, encoder.dim)
        # As wide as learned positions: wider embeddings would drown what is added to them.
        nn.init.normal_(self.embed.weight, std=0.02)
        # Aside, so that all else starts from the same values whatever the filter.
        with torch.random.fork_rng(devices=[]):
            filters = make_filters(encoder, filter_options)
        self.encoder = Encoder(encoder, filters)
        self.head = nn.Linear(encoder.dim, symbols)

    def forward(self, symbols: Tensor) -> Tensor:
        """Predicts.

        Args:
            symbols: (batch, tokens), integers below ``symbols``.

        Returns:
            Logits (batch, tokens, symbols); those at a token are of the token after it.
        """
        logits: Tensor = self.head(self.encoder(self.embed(symbols)))
        return logits
