"""Training: optimizer and schedule, objective, checkpoints, log, and the training loop."""
