"""The DC offset of a clip: a constant that many recorders add to all samples.

It is inaudible, but would lift the lowest bands, and a model of clips without it would fail.
"""

import numpy as np
from torch import Tensor

from spaudio.audio.decode import Waveform
from spaudio.tokens.lengths import beyond_end


def without_offset(waveform: Waveform, offset: float | None = None) -> Waveform:
    """Subtracts the DC offset of a waveform (samples,).

    Args:
        waveform: The waveform of a clip.
        offset: The offset; None is the mean of the waveform.
    """
    if offset is None:
        offset = float(waveform.mean(dtype=np.float64)) if len(waveform) else 0.0
    centred: Waveform = waveform - np.float32(offset)
    return centred


def without_offsets(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Subtracts the mean of each clip of a padded batch.

    Args:
        waveforms: (batch, samples).
        lengths: (batch,), samples of each clip; those beyond are not read.

    Returns:
        (batch, samples), zero beyond the length of each clip.
    """
    beyond = beyond_end(waveforms.shape[1], lengths)
    centred = waveforms.masked_fill(beyond, 0)
    # The second pass subtracts what the rounding of a large sum in single precision has left.
    for _ in range(2):
        offset = centred.sum(dim=1) / lengths.clamp(min=1)
        centred = (centred - offset.unsqueeze(1)).masked_fill(beyond, 0)
    return centred
