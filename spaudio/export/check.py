"""Comparison of an exported model with the original, on single clips and padded batches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spaudio.audio.decode import Waveform
from spaudio.export.exported import Runner
from spaudio.inference.predict import Predictor

_BATCH = 4  # clips; the exported filterbank keeps all its outputs in memory


def synthetic_clips(sample_rate: int, seconds: float, seed: int = 0) -> list[Waveform]:
    """Returns chirps in noise, from one sample to ``seconds`` long, one with a DC offset."""
    rng = np.random.default_rng(seed)
    clips = []
    for share, offset in ((1.0, 0), (0.0, 0), (0.61, 0.1), (0.01, 0), (0.33, 0), (0.17, 0)):
        time = np.arange(max(1, round(share * seconds * sample_rate))) / sample_rate
        top = rng.uniform(0.1, 0.4) * sample_rate
        chirp = np.sin(np.pi * top * time**2 / max(seconds, time[-1]))
        noise = rng.standard_normal(len(time))
        sound = rng.uniform(0.05, 0.5) * (chirp + 0.1 * noise)
        clips.append((sound + offset).astype(np.float32))
    return clips


def measure_difference(predictor: Predictor, run: Runner, clips: Sequence[Waveform]) -> float:
    """Compares the outputs of two models for single clips and for batches with non-zero padding.

    Args:
        predictor: The original model, which runs clip by clip.
        run: The exported model.
        clips: Waveforms (samples,) at the run's sample rate.

    Returns:
        The largest absolute difference between probabilities.
    """
    found = []
    for start in range(0, len(clips), _BATCH):
        part = clips[start : start + _BATCH]
        original = torch.cat([predictor.probabilities([clip]) for clip in part])
        alone = torch.cat([run(*pad([clip])) for clip in part])
        found += [(one - original).abs().max() for one in (alone, run(*pad(part)))]
    return torch.stack(found).max().item()  # NaN if one is, which no tolerance allows


def pad(clips: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
    """Pads waveforms to a batch (batch, samples) and returns it with their lengths.

    The padding is loud, so that a model that reads it fails the check.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    samples = [torch.from_numpy(clip) for clip in clips]
    return pad_sequence(samples, batch_first=True, padding_value=0.7), lengths
