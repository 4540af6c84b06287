"""Pauses at both ends of a clip, which are cut if they are longer than in the training clips.

If the training clips begin and end with the sound, a model decides differently about a clip that
has pauses around it. New speakers and other microphones often bring such clips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from spaudio.tokens.config import Frames
from spaudio.tokens.lengths import beyond_end

RANGE = 40.0  # dB below the loudest frame
QUIET = 0.1  # share of the frames that count as quiet
STEADY = 0.05  # nats of power, 0.2 dB; a smaller range is mostly rounding
_SHARE = 0.2


def level_range(levels: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the level of the loudest frame of each clip, and the 10th percentile of its levels.

    Args:
        levels: (batch, frames).
        outside: Boolean (batch, frames), True at frames that do not belong to the clip.

    Returns:
        Two tensors (batch, 1).
    """
    loudest = levels.masked_fill(outside, -math.inf).amax(dim=1, keepdim=True)
    ordered = levels.masked_fill(outside, math.inf).sort(dim=1).values
    count = (~outside).sum(dim=1, keepdim=True)
    return loudest, ordered.gather(1, ((count - 1) * QUIET).to(torch.int64).clamp(min=0))


def lowest_level(levels: Tensor, outside: Tensor, share: float) -> Tensor:
    """Returns the lowest level at which a frame belongs to the sound of its clip, not to a pause.

    A frame of a pause is 40 dB below the loudest frame of the clip, or in the lowest part of the
    range, in dB, between the loudest frame and the 10th percentile of the frames. So background
    noise is a pause, too. In a steady tone, of which this range is below 0.2 dB, there is no such
    part: rounding would choose its frames.

    Args:
        levels: (batch, frames), in nats of power.
        outside: Boolean (batch, frames), True at frames that do not belong to the clip.
        share: Which part of that range belongs to pauses.

    Returns:
        (batch, 1), in nats of power.
    """
    loudest, quiet = level_range(levels, outside)
    lowest = (quiet + share * (loudest - quiet)).masked_fill(loudest - quiet < STEADY, -math.inf)
    return torch.maximum(loudest - RANGE / 10 * math.log(10), lowest)


def find_sound(frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the first and the last frame of each clip that belong to the sound, not to a pause.

    See :func:`lowest_level`; the lowest fifth of the range belongs to pauses.

    Args:
        frames: Log-mel frames (batch, frames, n_mels), in nats of power.
        count: (batch,), frames of each clip; those beyond are not read.

    Returns:
        Two tensors (batch,), the indices of the first and the last frame.
    """
    most = frames.shape[1]
    beyond = beyond_end(most, count)
    levels = frames.logsumexp(dim=-1)
    heard = ((levels >= lowest_level(levels, beyond, _SHARE)) & ~beyond).to(torch.int64)
    return heard.argmax(dim=1), most - 1 - heard.flip(1).argmax(dim=1)


def find_pauses(frames: Frames) -> tuple[int, int]:
    """Returns how many of the log-mel frames (frames, n_mels) precede and follow the sound."""
    first, last = find_sound(torch.from_numpy(frames)[None], torch.tensor([len(frames)]))
    return int(first), len(frames) - 1 - int(last)


@dataclass(frozen=True)
class Pauses:
    """Pauses of the training clips, in frames at the start and at the end.

    Args:
        longest: 95th percentiles. Longer pauses are cut.
        usual: 75th percentiles, the lengths to which they are cut.
    """

    longest: tuple[int, int]
    usual: tuple[int, int]

    @classmethod
    def fit(cls, found: Sequence[tuple[int, int]]) -> Self:
        """Fits to what :func:`find_pauses` returns for each training clip."""
        longest, usual = np.ceil(np.percentile(found, [95, 75], axis=0)).astype(int).tolist()
        return cls(tuple(longest), tuple(usual))

    def without(self, frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the first frame of each clip that is kept, and the one after the last.

        Args:
            frames: As in :func:`find_sound`.
            count: As there.
        """
        before, last = find_sound(frames, count)
        after = count - 1 - last
        start = torch.where(before > self.longest[0], before - self.usual[0], 0)
        stop = count - torch.where(after > self.longest[1], after - self.usual[1], 0)
        return start, stop
