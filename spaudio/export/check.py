"""How far an exported model is from the original, on clips alone and in a padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spaudio.experiment.predict import Predictor
from spaudio.export.exported import Runner

Waveform = NDArray[np.float32]

_BATCH = 4  # clips; the exported filterbank holds its whole representation


def synthetic_clips(sample_rate: int, seconds: float, seed: int = 0) -> list[Waveform]:
    """Chirps in noise, of many lengths: one sample, one hundredth, ... the whole of ``seconds``."""
    rng = np.random.default_rng(seed)
    clips = []
    for share in (1.0, 0.0, 0.61, 0.01, 0.33, 0.17):
        time = np.arange(max(1, round(share * seconds * sample_rate))) / sample_rate
        top = rng.uniform(0.1, 0.4) * sample_rate
        chirp = np.sin(np.pi * top * time**2 / max(seconds, time[-1]))
        noise = rng.standard_normal(len(time))
        clips.append((rng.uniform(0.05, 0.5) * (chirp + 0.1 * noise)).astype(np.float32))
    return clips


def measure_difference(predictor: Predictor, run: Runner, clips: Sequence[Waveform]) -> float:
    """Runs clips through both, alone and in batches whose padding is not zero.

    Args:
        predictor: The original: the run's own front-end, normalisation and model, clip by clip.
        run: The exported model.
        clips: Waveforms (samples,) at the run's sample rate.

    Returns:
        The largest absolute difference of a probability.
    """
    worst = 0.0
    for start in range(0, len(clips), _BATCH):
        part = clips[start : start + _BATCH]
        original = torch.cat([predictor.probabilities([clip]) for clip in part])
        alone = torch.cat([run(*pad([clip])) for clip in part])
        for found in (alone, run(*pad(part))):
            worst = max(worst, (found - original).abs().max().item())
    return worst


def pad(clips: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
    """Joins waveforms to a batch (batch, samples) and their lengths.

    What stands behind a clip is loud: a model that read it would not pass.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.full((len(clips), int(lengths.max())), 0.7)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return batch, lengths
