"""Clips that are quieter than the training clips are amplified to the level of the quietest ones.

The offset of the logarithm is the same for all clips, so less of a quiet clip stands out from it.
Without amplification, even a model that subtracts the level of each clip would depend on the level
of clips that are quieter than in training. Steady background noise is not amplified: it would sound
like a noisy word.

Like the cutting of pauses, this is applied in validation, test and prediction, but not in training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spaudio.tokens.lengths import beyond_end
from spaudio.tokens.logmel import power_of
from spaudio.tokens.pauses import level_range

PERCENTILE = 5
#: Largest gain, in dB. More would make the rounding of cached frames matter.
MOST = 40.0
#: The levels of steady sounds have a smaller range than this, in dB. White and pink noise have 2 to
#: 7 dB, 95 % of the clips of Free Spoken Digits at least 14 dB.
STEADY = 10.0


def quietest(levels: Sequence[float]) -> float:
    """Returns the level to which quieter clips are amplified: the 5th percentile of ``levels``."""
    return float(np.percentile(levels, PERCENTILE))


def level(frames: Tensor, log_offset: float) -> Tensor:
    """Returns the power of the loudest frame of a clip, and at least ``log_offset``.

    Args:
        frames: Log-mel frames (frames, n_mels).
        log_offset: What was added to the power of each band.
    """
    return power_of(frames, log_offset).sum(dim=-1).amax().clamp(min=log_offset)


def amplify(frames: Tensor, count: Tensor, lowest: float, log_offset: float) -> Tensor:
    """Amplifies clips whose level is below ``lowest`` to it, unless they are steady.

    Args:
        frames: Log-mel frames (batch, frames, n_mels).
        count: (batch,), frames of each clip; those beyond are not read.
        lowest: From :func:`quietest`.
        log_offset: As in :func:`level`.

    Returns:
        The frames of louder recordings, by at most 40 dB.
    """
    power = power_of(frames, log_offset)
    loudest, quiet = level_range(power.sum(dim=-1), beyond_end(frames.shape[1], count))
    gain = (lowest / loudest.clamp(min=log_offset)).clamp(min=1.0, max=10 ** (MOST / 10))
    gain = gain.masked_fill(loudest < 10 ** (STEADY / 10) * quiet, 1).unsqueeze(-1)
    return torch.where(gain > 1, (power * gain + log_offset).log(), frames)
