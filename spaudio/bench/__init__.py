"""Benchmarks of filters, training steps, generation and exported models on this machine."""
