"""Floating-point operations of a model, from its shape and its filters."""

from spaudio.model.encoder import Encoder

#: Cost of a training step, in forward passes: for each product of the forward pass, the backward
#: pass has one with the weights and one with the activations (arXiv 2001.08361, section 2.1).
TRAINING = 3


def encoder_flops(encoder: Encoder, tokens: int) -> int:
    """Counts one forward pass over one sequence: matrix products and filters.

    A multiplication and an addition count as two. Norms, activations, softmax and residuals are not
    counted. Causal attention counts only the pairs of tokens that are not masked.

    Args:
        encoder: The stack.
        tokens: Length of the sequence.
    """
    shape = encoder.config
    pairs = tokens * (tokens + 1) // 2 if shape.causal else tokens * tokens
    products = 2 * tokens * (4 + 2 * shape.ff_mult) * shape.dim**2  # q, k, v, out, feed-forward
    attention = 2 * 2 * pairs * shape.dim  # scores, and weighted sum of values
    filters = sum(f.flops(tokens, shape.dim) for f in encoder.token_filters().values())
    return shape.layers * (products + attention) + filters


def step_flops(encoder: Encoder, tokens: int, batch: int, head: int) -> int:
    """Counts one training step.

    Args:
        encoder: The stack.
        tokens: Length of a sequence.
        batch: Number of sequences.
        head: Number of outputs of a linear layer that is applied to each token.
    """
    forward = encoder_flops(encoder, tokens) + 2 * tokens * encoder.config.dim * head
    return TRAINING * batch * forward
