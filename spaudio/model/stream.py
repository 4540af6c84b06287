"""A causal encoder on tokens that arrive in pieces, with keys, values and filter state kept."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.filters import FilterStream, TokenFilter
from spaudio.filters.transformer import KeyValueCache, causal_mask
from spaudio.model.encoder import Encoder


class EncoderStream:
    """Runs a causal encoder on tokens as they arrive; the same values as on the whole sequence.

    The same up to rounding, as products of other shapes add in another order: the tests hold
    float32 logits to 1e-5 and float64 to 1e-12, in pieces of any size. It keeps each layer's keys
    and values, which grow with the stream, and each filter's state.

    A stream has no window: with rotary positions, or none, it goes on for as long as there is
    memory, as the whole sequence would; learned ones end at ``max_tokens``. To forget, call
    :meth:`reset` and step the last tokens again, as :func:`spaudio.model.generate.generate` does.
    Keys are never dropped from the cache alone: a model trained on whole contexts fails without
    the first keys (arXiv 2309.17453), and no full pass would return what comes out.

    Args:
        encoder: A causal encoder, in evaluation mode.

    Raises:
        ConfigError: If the encoder or one of its filters is not causal.
    """

    def __init__(self, encoder: Encoder) -> None:
        if not encoder.config.causal:
            raise ConfigError(
                "an encoder with model.causal=false depends on tokens still to come; stream one "
                "made with model.causal=true"
            )
        self._filters = [_stream(each) for each in encoder.filters]
        self.encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Begins a new sequence."""
        self._batch: int | None = None
        self._cache = KeyValueCache(len(self.encoder.layers))
        for each in self._filters:
            each.reset()

    @property
    def tokens(self) -> int:
        """Tokens seen since the sequence began."""
        return self._cache.tokens

    def step(self, x: Tensor) -> Tensor:
        """Transforms the next tokens.

        Args:
            x: (batch, tokens, dim), one token or more.

        Returns:
            (batch, tokens, dim), as :meth:`Encoder.forward` returns for these tokens.

        Raises:
            ConfigError: If the sequence gets longer than learned positions reach.
            ValueError: If the batch differs from the tokens before; :meth:`reset` begins anew.
        """
        batch, tokens, _ = x.shape
        if self._batch not in (None, batch):
            raise ValueError(
                f"tokens of shape {tuple(x.shape)} do not continue a stream of batch "
                f"{self._batch}; call reset() to begin another"
            )
        start, attend = self.tokens, None
        if start and tokens > 1:
            attend = causal_mask(tokens, start, x.device)
        extend = [partial(self._cache.extend, layer) for layer in range(len(self.encoder.layers))]
        y = self.encoder.run(
            x, [each.step for each in self._filters], attend=attend, start=start, extend=extend
        )
        self._batch, self._cache.tokens = batch, start + tokens
        return y


def _stream(module: nn.Module) -> FilterStream:
    """The stream of what stands in a layer's filter slot."""
    if not isinstance(module, TokenFilter):
        raise ConfigError(
            f"{type(module).__name__} in a filter slot cannot be streamed; use a TokenFilter"
        )
    try:
        return FilterStream(module)
    except ValueError as error:
        raise ConfigError(str(error)) from error
