"""Training with other libraries beside ours: the same clips, a model of the same size."""
