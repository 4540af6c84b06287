"""Waveform to tokens: log-mel frames, their cache, normalisation, augmentation and batches."""
