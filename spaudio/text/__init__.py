"""Text: the corpus on disk, and the windows of it that a model reads."""
