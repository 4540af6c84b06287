"""Tokens to class logits: learned front-end (optional), projection, encoder, pooling, head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter
from spaudio.filters.dropout import Dropout
from spaudio.model.encoder import Encoder, EncoderConfig, make_filters
from spaudio.model.pooling import make_pooling
from spaudio.model.stem import ConvStem
from spaudio.tokens.waveform_filterbank import WaveformFilterbank


class Classifier(nn.Module):
    """Classifies clips, given as padded batches of tokens.

    Args:
        features: Width of a token, stack * bands; with a front-end, that of the tokens it makes.
        classes: Number of classes.
        encoder: Shape of the transformer.
        filter_options: ``name`` and options of the filters, as arguments of
            :func:`spaudio.filters.make_filter`.
        pooling: ``"mean"``, ``"mean_std"`` or ``"attention"``.
        front_end: Learned front-end, from samples to ``features``; None if inputs are features.
        stem: Convolutions between the frames of tokens and their projection, or None.

    Raises:
        ConfigError: If a setting is unknown or out of range, or ``features`` is not the width of
            the front-end's tokens.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        encoder: EncoderConfig,
        filter_options: Mapping[str, Any],
        pooling: str = "mean_std",
        front_end: WaveformFilterbank | None = None,
        stem: ConvStem | None = None,
    ) -> None:
        super().__init__()
        if front_end is not None and front_end.config.features != features:
            raise ConfigError(
                f"the front-end makes tokens of {front_end.config.features} features; "
                f"got {features}"
            )
        self.features = features
        self.classes = classes
        self.front_end = front_end
        self.stem = stem
        self.project = nn.Linear(features if stem is None else stem.features, encoder.dim)
        self.encoder = Encoder(encoder, make_filters(encoder, filter_options))
        self.pooling, width = make_pooling(pooling, encoder.dim)
        self.head = nn.Sequential(Dropout(encoder.dropout), nn.Linear(width, classes))

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Computes class logits.

        Args:
            tokens: (batch, tokens, features), or samples if there is a front-end.
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            Logits (batch, classes).
        """
        return self.classify(self.embed(tokens, padding_mask))

    def embed(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Returns the input of the head, (batch, width); arguments as for :meth:`forward`."""
        if self.front_end is not None:
            tokens = self.front_end(tokens, padding_mask)
        if self.stem is not None:
            tokens = self.stem(tokens, padding_mask)
        x = self.encoder(self.project(tokens), padding_mask)
        pooled: Tensor = self.pooling(x, padding_mask)
        return pooled

    def classify(self, embeddings: Tensor) -> Tensor:
        """Returns the logits (batch, classes) of what :meth:`embed` returns."""
        logits: Tensor = self.head(embeddings)
        return logits

    def token_filters(self) -> dict[int, TokenFilter]:
        """Returns the filters by layer, from 0."""
        return self.encoder.token_filters()


def count_parameters(model: nn.Module) -> int:
    """Counts the parameters of a model or of a part of it."""
    return sum(p.numel() for p in model.parameters())
