"""Runs a causal encoder on tokens as they arrive."""

from functools import partial
from typing import Any

from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.filters import FilterStream
from spaudio.filters.transformer import KeyValueCache
from spaudio.model.encoder import Encoder


class EncoderStream:
    """Runs a causal encoder on tokens as they arrive; results equal those of the whole sequence.

    They are equal up to rounding, to 1e-5 in float32 and 1e-12 in float64, since products of
    different shapes sum in a different order. The stream keeps each layer's keys and values, which
    grow with its length, and each filter's state.

    A stream has no window. With rotary positions, or none, its length is limited by memory only;
    with learned positions by ``max_tokens``. To shorten the context, call :meth:`reset` and
    step the last tokens again, as :func:`spaudio.model.generate.generate` does. Dropping the
    oldest keys instead would match no full pass, and breaks models that were trained on whole
    contexts (arXiv 2309.17453).

    Args:
        encoder: A causal encoder, in evaluation mode.

    Raises:
        ConfigError: If the encoder or one of its filters is not causal, or dropout is active.
    """

    def __init__(self, encoder: Encoder) -> None:
        if not encoder.config.causal:
            raise ConfigError(
                "an encoder with model.causal=false depends on future tokens; stream one made with "
                "model.causal=true"
            )
        if encoder.training and (encoder.config.dropout or encoder.config.drop_path):
            raise ConfigError(
                "the encoder is in training mode, in which dropout changes each step; call eval() "
                "first"
            )
        self._filters = [_stream(each) for each in encoder.filters]
        self.encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Starts a new sequence."""
        self._batch: int | None = None
        self._cache = KeyValueCache(len(self.encoder.layers))
        for each in self._filters:
            each.reset()

    @property
    def tokens(self) -> int:
        """Number of tokens since the start of the sequence."""
        return self._cache.tokens

    def step(self, x: Tensor) -> Tensor:
        """Transforms the next tokens.

        Args:
            x: (batch, tokens, dim), one token or more.

        Returns:
            (batch, tokens, dim), the output of :meth:`Encoder.forward` for these tokens.

        Raises:
            ConfigError: If the sequence gets longer than the learned positions.
            ValueError: If the batch differs from that of the earlier tokens.
        """
        batch, tokens, _ = x.shape
        if self._batch not in (None, batch):
            raise ValueError(
                f"tokens of shape {tuple(x.shape)} do not continue a stream of batch "
                f"{self._batch}; call reset() to start another"
            )
        start = self.tokens
        extend = [partial(self._cache.extend, layer) for layer in range(len(self.encoder.layers))]
        filters = [each.step for each in self._filters]
        y = self.encoder.run(x, filters, start=start, extend=extend)
        self._batch, self._cache.tokens = batch, start + tokens
        return y


def _stream(filter: Any) -> FilterStream:
    """Makes the stream of a layer's filter."""
    try:
        return FilterStream(filter)
    except ValueError as error:
        raise ConfigError(str(error)) from error
