"""Floating-point operations of a model, counted from its shape and its filters."""

from __future__ import annotations

from spaudio.model.encoder import Encoder

#: A backward pass multiplies by the weights once, and by the activations once, for each product of
#: the forward pass: the usual reckoning (arXiv 2001.08361, section 2.1).
TRAINING = 3


def encoder_flops(encoder: Encoder, tokens: int) -> int:
    """Counts one forward pass over one sequence: matrix products and filters.

    A multiplication and an addition count as two. Norms, activations, softmax and residuals are
    left out. Attention counts the pairs of tokens that may see each other: half of them, where it
    is causal.

    Args:
        encoder: The stack.
        tokens: Length of the sequence.
    """
    shape = encoder.config
    pairs = tokens * (tokens + 1) // 2 if shape.causal else tokens * tokens
    products = 2 * tokens * (4 + 2 * shape.ff_mult) * shape.dim**2  # q, k, v, out, feed-forward
    attention = 2 * 2 * pairs * shape.dim  # scores, and the mean that they weigh
    filters = sum(f.flops(tokens, shape.dim) for f in encoder.token_filters())
    return shape.layers * (products + attention) + filters


def step_flops(encoder: Encoder, tokens: int, batch: int, head: int = 0) -> int:
    """Counts one step of training.

    Args:
        encoder: The stack.
        tokens: Length of a sequence.
        batch: Sequences.
        head: Outputs of a linear layer that is applied to each token.
    """
    forward = encoder_flops(encoder, tokens) + 2 * tokens * encoder.config.dim * head
    return TRAINING * batch * forward
