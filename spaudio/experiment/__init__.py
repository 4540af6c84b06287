"""Recipes: from a YAML to a report, in one run folder."""
