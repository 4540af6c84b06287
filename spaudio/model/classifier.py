"""Tokens to class logits: projection, encoder, pooling, head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spaudio.model.encoder import Encoder, EncoderConfig, make_filters
from spaudio.model.pooling import make_pooling


class Classifier(nn.Module):
    """Classifies clips that come as padded batches of tokens.

    Args:
        features: Width of an incoming token (stacked frames: stack * n_mels).
        classes: Number of classes.
        encoder: Shape of the transformer.
        filter_options: ``name`` and options of the filter that stands after each layer, as
            :func:`spaudio.filters.make_filter` takes them.
        pooling: ``"mean"`` or ``"attention"``.

    Raises:
        ConfigError: If a setting is unknown or out of range.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        encoder: EncoderConfig,
        filter_options: Mapping[str, Any],
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.features = features
        self.classes = classes
        self.filter_options = dict(filter_options)
        self.pooling_kind = pooling
        self.project = nn.Linear(features, encoder.dim)
        self.encoder = Encoder(encoder, make_filters(encoder, filter_options))
        self.pooling = make_pooling(pooling, encoder.dim)
        self.head = nn.Sequential(nn.Dropout(encoder.dropout), nn.Linear(encoder.dim, classes))

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Classifies.

        Args:
            tokens: (batch, tokens, features).
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            Logits (batch, classes).
        """
        x = self.encoder(self.project(tokens), padding_mask)
        logits: Tensor = self.head(self.pooling(x, padding_mask))
        return logits


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts parameters: of the whole model, and of its filters alone."""
    filters = [m.filters for m in model.modules() if isinstance(m, Encoder)]
    return (
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for module in filters for p in module.parameters()),
    )
