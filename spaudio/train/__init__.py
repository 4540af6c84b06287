"""Training: optimiser and schedule, objective, checkpoints, log, and the loop that joins them."""
