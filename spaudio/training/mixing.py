"""Mixes the clips of a batch with each other: MixStyle, mixup and cutmix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spaudio.model.pooling import statistics
from spaudio.tokens.batch import Batch

_BETA = 0.3  # both parameters of the Beta distribution of mixup
STYLE_BETA = 0.4  # the same for MixStyle
_LEAST_POWER = 1e-12  # relative to a clip's mean; log-mel frames of 16-bit samples span less
_LEAST_SPREAD = 0.03  # of normalised bands; digital silence must not be amplified to noise


class Mixed(NamedTuple):
    """A mixed batch.

    Args:
        tokens: (batch, tokens, features).
        padding_mask: Boolean (batch, tokens), True where both clips are padding.
        share: (batch,), the share of the original clip in its mixture.
        other: (batch,), index of the clip that it was mixed with.
    """

    tokens: Tensor
    padding_mask: Tensor
    share: Tensor
    other: Tensor


@dataclass(frozen=True)
class Mixing:
    """Mixes the clips of training batches in pairs.

    MixStyle (arXiv 2104.02008; per band as in arXiv 2305.07499) mixes the mean and standard
    deviation over time of each band with those of another clip. This changes the microphone, room
    or voice, but not the class. A clip keeps at least half of its own statistics.

    Mixup (arXiv 1710.09412) adds two clips, weighted by shares that are sampled from a Beta
    distribution for each pair. Where one clip has ended, it counts as zeros: the mean of normalised
    frames, or silence in waveforms. With ``nats``, log-mel frames are added like sounds: by their
    power, after both clips are brought to the same loudness, as in between-class learning (arXiv
    1711.10282); a clip that has ended counts as silence. Frames that a time mask hides, and those
    that fill a clip's last token, are zeros, so they have the mean power of each band. Cutmix
    (arXiv 1905.04899) replaces a span of tokens with the same span of the other clip; the shares of
    the labels count only tokens that are pooled over. Pairs are drawn within the part of a batch
    that a process computes at a time.

    Args:
        mixup: Share of the batches that mixup is applied to.
        cutmix: Share of the batches that cutmix is applied to.
        mixstyle: Share of the batches that MixStyle is applied to, before the other two.
        bands: Bands per frame (a token holds several frames); needed for MixStyle and ``nats``.
        nats: (bands,), nats of power per unit of a normalised log-mel frame, in each band. None
            adds the values themselves, as for samples.
        pooled: Returns which tokens the model pools over, as
            :meth:`spaudio.tokens.front_end.FrontEnd.pooled` does; None counts all but padding.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mixstyle: float = 0.0
    bands: int = 1
    nats: Tensor | None = None
    pooled: Callable[[Tensor, Tensor], Tensor] | None = None

    def restyle(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Applies MixStyle to a padded batch, or returns the batch unchanged.

        The frames that fill a clip's last token count as its own.
        """
        if not self.mixstyle or rng.random() >= self.mixstyle:
            return batch
        clips, tokens, width = batch.tokens.shape
        other = torch.from_numpy(rng.permutation(clips)).to(batch.tokens.device)
        draws = rng.beta(STYLE_BETA, STYLE_BETA, clips)
        share = torch.from_numpy(np.maximum(draws, 1 - draws)).to(batch.tokens)[:, None]
        frames = batch.tokens.view(clips, -1, self.bands)
        padding = batch.padding_mask.repeat_interleave(width // self.bands, dim=1)
        mean, std = statistics(frames, padding).chunk(2, dim=1)
        std = std.clamp_min(_LEAST_SPREAD)
        mean_to, std_to = (share * value + (1 - share) * value[other] for value in (mean, std))
        scale = std_to / std
        frames = frames * scale[:, None] + (mean_to - mean * scale)[:, None]
        frames = frames.masked_fill(padding.unsqueeze(-1), 0)
        return batch._replace(tokens=frames.view(clips, tokens, width))

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Mixed | None:
        """Mixes a padded batch, or returns None to leave it unchanged."""
        if not self.mixup and not self.cutmix:
            return None
        drawn = rng.random()
        if drawn >= self.mixup + self.cutmix:
            return None
        clips = len(batch.labels)
        device = batch.tokens.device
        other = torch.from_numpy(rng.permutation(clips)).to(device)
        if drawn < self.mixup:
            share = torch.from_numpy(rng.beta(_BETA, _BETA, clips)).float().to(device)
            both = batch.padding_mask & batch.padding_mask[other]
            tokens = self._add(batch, share[:, None, None], other)
            if self.nats is not None:  # the sum of two silences is not zero
                tokens = tokens.masked_fill(both.unsqueeze(-1), 0)
            return Mixed(tokens, both, share, other)
        lengths = (~batch.padding_mask).sum(dim=1)
        shorter = torch.minimum(lengths, lengths[other])
        draws = torch.from_numpy(rng.random((2, clips))).float().to(device)
        span = (draws[0] * shorter).long()
        start = (draws[1] * (shorter - span + 1)).long()
        place = torch.arange(batch.tokens.shape[1], device=device)
        inside = (place >= start[:, None]) & (place < (start + span)[:, None])
        tokens = torch.where(inside[..., None], batch.tokens[other], batch.tokens)
        counted = ~batch.padding_mask
        if self.pooled is not None:
            counted = self.pooled(tokens, batch.padding_mask)
        taken = (counted & inside).sum(dim=1) / counted.sum(dim=1).clamp_min(1)
        return Mixed(tokens, batch.padding_mask, 1 - taken, other)

    def _add(self, batch: Batch, share: Tensor, other: Tensor) -> Tensor:
        """Adds each clip, weighted by its share (batch, 1, 1), and another one."""
        if self.nats is None:
            return share * batch.tokens + (1 - share) * batch.tokens[other]
        width = batch.tokens.shape[2]
        nats = self.nats.to(batch.tokens).repeat(width // self.bands)
        values = (batch.tokens * nats).masked_fill(batch.padding_mask.unsqueeze(-1), -torch.inf)
        # Relative to the peak: MixStyle may give a click more power than float32 holds.
        peak = values.amax(dim=(1, 2), keepdim=True)
        power = (values - peak).exp()
        count = (~batch.padding_mask).sum(dim=1) * width
        loudness = (power.sum(dim=(1, 2)) / count)[:, None, None]
        power = power / loudness
        added = share * power + (1 - share) * power[other]
        level = loudness.log() + peak
        level = share * level + (1 - share) * level[other]
        return (added.clamp_min(_LEAST_POWER).log() + level) / nats
