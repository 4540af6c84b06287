"""Experiments: from the settings of a recipe to a trained model and a report in a run folder."""
