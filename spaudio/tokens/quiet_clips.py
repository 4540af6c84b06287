"""Clips that are quieter than the training clips are amplified to the level of the quietest ones.

The offset of the logarithm is the same for all clips, so less of a quiet clip stands out from it.
A model that subtracts the level of each clip therefore still depended on it, at levels that are
lower than in training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

PERCENTILE = 5
MOST = 1e4  # 40 dB; beyond, the rounding of the cached frames would be amplified to audible noise
_LEAST = 1e-10  # the level of silence


def level(frames: Tensor, log_offset: float, padding: Tensor | None = None) -> Tensor:
    """Returns the power of the loudest frame of each clip.

    Args:
        frames: Log-mel frames (..., frames, n_mels).
        log_offset: What was added to the power.
        padding: Boolean (..., frames, 1), True at padding.

    Returns:
        (..., 1, 1), at least 1e-10.
    """
    power = _power(frames, log_offset).sum(dim=-1, keepdim=True)
    heard = power if padding is None else power.masked_fill(padding, 0)
    return heard.amax(dim=-2, keepdim=True).clamp(min=_LEAST)


def quietest(levels: Sequence[float]) -> float:
    """Returns the level to which quieter clips are amplified: the 5th percentile of ``levels``."""
    return float(np.percentile(levels, PERCENTILE))


def amplify(
    frames: Tensor, lowest: float, log_offset: float, padding: Tensor | None = None
) -> Tensor:
    """Amplifies clips that are quieter than ``lowest`` to it, by at most 40 dB.

    Args:
        frames: As in :func:`level`; a louder recording would have the result.
        lowest: A level.
        log_offset: As in :func:`level`.
        padding: As there.
    """
    gain = (lowest / level(frames, log_offset, padding)).clamp(min=1, max=MOST)
    return torch.where(gain > 1, (_power(frames, log_offset) * gain + log_offset).log(), frames)


def _power(frames: Tensor, log_offset: float) -> Tensor:
    return (frames.exp() - log_offset).clamp(min=0)
