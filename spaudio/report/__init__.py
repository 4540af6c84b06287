"""Logits to report: scores, reference floor, figures, the report of a run, and comparisons."""
