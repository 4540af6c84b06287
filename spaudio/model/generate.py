"""Generates symbols with a language model."""

import math

import torch
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.model.language import LanguageModel
from spaudio.model.stream import EncoderStream


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompt: Tensor,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    context: int | None = None,
    cached: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continues a prompt.

    The model sees at most ``context`` symbols; see :func:`window_start`. Each prediction therefore
    equals that of a full pass over a sequence no longer than in training.

    Args:
        model: The language model; runs in evaluation mode.
        prompt: (batch, tokens), at least one symbol each.
        length: Number of symbols to generate.
        temperature: Divisor of the logits; 0 always takes the most probable symbol.
        top_k: Number of most probable symbols to sample from; None for all.
        context: Longest sequence that the model sees; None for its ``max_tokens``.
        cached: Whether to keep keys, values and filter state. If not, each symbol needs a full pass
            over its context.
        generator: Random generator, on the device of the prompt.

    Returns:
        (batch, length), the symbols after the prompt.

    Raises:
        ConfigError: If the prompt is empty or a number is out of range.
    """
    context = model.encoder.config.max_tokens if context is None else context
    _check(model, prompt, length, temperature, top_k, context)
    training = model.training
    model.eval()
    stream = EncoderStream(model.encoder)
    symbols, seen, first = prompt, 0, 0
    try:
        for _ in range(length):
            start = window_start(symbols.shape[1], context)
            if not cached:
                logits = model(symbols[:, start:])
            else:
                if start != first:
                    stream.reset()
                    first = seen = start
                logits = model.head(stream.step(model.embed(symbols[:, seen:]))[:, -1:])
                seen = symbols.shape[1]
            drawn = draw(logits[:, -1], temperature, top_k, generator)
            symbols = torch.cat([symbols, drawn.unsqueeze(1)], dim=1)
    finally:
        model.train(training)
    return symbols[:, prompt.shape[1] :]


def window_start(tokens: int, context: int) -> int:
    """Index of the first symbol that the model sees.

    When the context is full, the window moves by half a context, and the cache is recomputed. A
    window that moves by one symbol could not use a cache: every symbol's position, and everything
    that depends on the first symbol, would change.

    Args:
        tokens: Number of symbols so far.
        context: Longest sequence that the model sees.
    """
    hop = max(1, context // 2)
    return max(0, -(-(tokens - context) // hop)) * hop


def draw(
    logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Draws one symbol per row of logits (batch, symbols); returns (batch,)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    best, which = logits.double().topk(top_k or logits.shape[-1])
    # The maximum is subtracted first, so that low temperatures do not overflow.
    shares = torch.softmax((best - best[:, :1]) / temperature, dim=-1)
    return which.gather(1, torch.multinomial(shares, 1, generator=generator)).squeeze(1)


def _check(
    model: LanguageModel,
    prompt: Tensor,
    length: int,
    temperature: float,
    top_k: int | None,
    context: int,
) -> None:
    """Raises ConfigError if a number is out of range."""
    longest = model.encoder.config.max_tokens if model.encoder.learned is not None else math.inf
    if prompt.shape[1] < 1:
        raise ConfigError("the prompt is empty; give at least one symbol, such as a space")
    if length < 1:
        raise ConfigError(f"length must be at least 1; got {length}")
    if not 0 <= temperature < math.inf:
        raise ConfigError(
            f"temperature must be finite and at least 0 (the most probable symbol); "
            f"got {temperature}"
        )
    if top_k is not None and not 1 <= top_k <= model.symbols:
        raise ConfigError(
            f"top_k must be from 1 to {model.symbols}, the number of symbols; got {top_k}"
        )
    if not 1 <= context <= longest:
        allowed = f"from 1 to model.max_tokens={longest}" if longest < math.inf else "at least 1"
        raise ConfigError(f"context must be {allowed}; got {context}")
