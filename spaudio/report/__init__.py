"""Logits to report: scores, classical floor, figures, the report of a run, and comparisons."""
