"""Text to windows of symbols: the corpus on disk, and the windows that a model reads."""
