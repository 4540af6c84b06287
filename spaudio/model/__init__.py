"""Models from tokens to logits: transformer with filters, pooling, classifier, language model."""
