"""Pauses at both ends of a clip, which are cut to the length that is usual in the training clips.

If the training clips begin and end with the sound, a model decides differently about a clip that
has pauses around it. New speakers and other microphones often bring such clips.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spaudio.tokens.config import Frames

_RANGE = 40 / 10 * math.log(10)  # nats of power below the loudest frame: 40 dB
_SHARE = 0.2  # of the range between the quiet frames and the loudest
_QUIET = 0.1  # share of the frames that count as quiet
_USUAL = 75  # percentile of the training clips


def find_sound(frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the first and the last frame of each clip that belong to the sound, not to a pause.

    A frame of a pause is 40 dB below the loudest frame of the clip, or in the lowest fifth of the
    range, in dB, between the loudest frame and the 10th percentile of the frames. So background
    noise is a pause, too.

    Args:
        frames: Log-mel frames (batch, frames, n_mels), in nats of power.
        count: (batch,), frames of each clip; those beyond are not read.

    Returns:
        Two tensors (batch,), the indices of the first and the last frame.
    """
    most = frames.shape[1]
    beyond = torch.arange(most, device=frames.device) >= count.unsqueeze(1)
    level = frames.logsumexp(dim=-1)
    loudest = level.masked_fill(beyond, -math.inf).amax(dim=1, keepdim=True)
    ordered = level.masked_fill(beyond, math.inf).sort(dim=1).values
    number = ((count - 1) * _QUIET).to(torch.int64)
    quiet = ordered.gather(1, number.clamp(min=0).unsqueeze(1))
    limit = torch.maximum(loudest - _RANGE, quiet + _SHARE * (loudest - quiet))
    heard = ((level >= limit) & ~beyond).to(torch.int64)
    return heard.argmax(dim=1), most - 1 - heard.flip(1).argmax(dim=1)


def find_pauses(frames: Frames) -> tuple[int, int]:
    """Returns how many of the log-mel frames (frames, n_mels) precede and follow the sound."""
    first, last = find_sound(torch.from_numpy(frames)[None], torch.tensor([len(frames)]))
    return int(first), len(frames) - 1 - int(last)


def usual_pauses(pauses: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the 75th percentiles of the pauses of the training clips, in frames."""
    before, after = np.percentile(pauses, _USUAL, axis=0)
    return math.ceil(before), math.ceil(after)


def trim(frames: Tensor, count: Tensor, pauses: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cuts longer pauses at both ends of clips.

    Args:
        frames: As in :func:`find_sound`.
        count: As there.
        pauses: Frames that are kept before and after the sound, if there are as many.

    Returns:
        Frames of the same shape, moved to the start, and how many of each clip are left.
    """
    first, last = find_sound(frames, count)
    start = (first - pauses[0]).clamp(min=0)
    stop = torch.minimum(last + 1 + pauses[1], count)
    most = frames.shape[1]
    places = torch.arange(most, device=frames.device) + start.unsqueeze(1)
    places = places.clamp(max=most - 1).unsqueeze(-1).expand(-1, -1, frames.shape[2])
    return frames.gather(1, places), stop - start
