"""Tokens to logits: the transformer with a filter after each layer, pooling and classifier."""
