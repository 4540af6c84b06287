"""Use of finished runs: prediction, events, live sound, explanations, text, models to publish."""
