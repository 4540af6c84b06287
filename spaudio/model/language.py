"""Maps symbols to logits of the next symbol: embedding, causal encoder, output head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter
from spaudio.model.encoder import Encoder, EncoderConfig, make_filters


class LanguageModel(nn.Module):
    """Predicts the next symbol at each symbol of a sequence.

    The weights of embedding and output head are not tied: for 27 symbols they are less than one per
    cent of the parameters.

    Args:
        symbols: Size of the alphabet.
        encoder: Shape of the transformer; must be causal.
        filter_options: ``name`` and options of the filters, as arguments of
            :func:`spaudio.filters.make_filter`.

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
        self.embed = nn.Embedding(symbols, encoder.dim)
        # The scale of learned positions: larger embeddings would dominate the sum of both.
        nn.init.normal_(self.embed.weight, std=0.02)
        self.encoder = Encoder(encoder, make_filters(encoder, filter_options))
        self.head = nn.Linear(encoder.dim, symbols)

    def forward(self, symbols: Tensor) -> Tensor:
        """Predicts the next symbols.

        Args:
            symbols: (batch, tokens), integers below ``symbols``.

        Returns:
            Logits (batch, tokens, symbols) of the token after each token.
        """
        logits: Tensor = self.head(self.encoder(self.embed(symbols)))
        return logits

    def token_filters(self) -> dict[int, TokenFilter]:
        """Returns the filters by layer, from 0."""
        return self.encoder.token_filters()
