"""The front-end: waveforms to normalised, padded tokens.

The cache stores the result of :meth:`FrontEnd.extract`. Training and prediction turn it into tokens
with :meth:`FrontEnd.restore` and :meth:`FrontEnd.tokens`. Export uses :meth:`FrontEnd.forward`,
which does all of this on a padded batch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spaudio.audio.decode import Waveform
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.dc_offset import without_offsets
from spaudio.tokens.lengths import beyond_end
from spaudio.tokens.normalise import Normaliser


class FrontEnd(nn.Module):
    """Turns waveforms into tokens that a model reads.

    Args:
        config: The settings.
        normaliser: Fitted on the training split; needed for tokens, not for frames.

    Attributes:
        how_to_shorten: How clips get fewer tokens, for error messages.
    """

    how_to_shorten = (
        "cut clips with segments.seconds=... or use longer tokens (tokens.stack, tokens.hop)"
    )

    def __init__(self, config: TokenConfig, normaliser: Normaliser | None = None) -> None:
        super().__init__()
        self.config = config
        self.normaliser = normaliser

    @property
    def cache_key(self) -> dict[str, Any]:
        """The settings that change the result of :meth:`extract`."""
        raise NotImplementedError

    @property
    def nats(self) -> Tensor | None:
        """Nats of power per unit of a normalised log-mel frame, per band; None for other frames."""
        return None

    def pooled(self, tokens: Tensor, padding: Tensor) -> Tensor:
        """Returns which tokens of a batch a model pools over; cutmix weights labels by them.

        Args:
            tokens: (batch, tokens, features).
            padding: Boolean (batch, tokens), True at padding.

        Returns:
            Boolean (batch, tokens).
        """
        return ~padding

    def extract(self, waveform: Waveform, offset: float | None = None) -> npt.NDArray[Any]:
        """Returns the frames (frames, width) of a waveform (samples,), in the type to be cached.

        Args:
            waveform: The waveform of a clip.
            offset: DC offset to be subtracted from all samples; None is the mean of the waveform.

        Raises:
            AudioError: If they could not be kept in this type.
        """
        raise NotImplementedError

    @staticmethod
    def restore(stored: npt.NDArray[Any]) -> Frames:
        """Returns stored frames as float32."""
        # torch converts half precision seven times as fast as NumPy.
        frames: Frames = torch.from_numpy(stored).float().numpy()
        return frames

    def fit(self, training_clips: Iterable[Frames]) -> Normaliser:
        """Returns a normaliser fitted on restored frames of the training split."""
        raise NotImplementedError

    def normalise(self, frames: Frames) -> Frames:
        """Normalises the restored frames (frames, width) of one clip."""
        assert self.normaliser is not None
        return np.asarray(self.normaliser(frames), dtype=np.float32)

    def amplify(self, frames: Frames) -> Frames:
        """Amplifies the restored frames (frames, width) of a clip that is too quiet."""
        return frames

    def heard(self, frames: Frames) -> slice:
        """Returns which of the amplified frames (frames, width) of a clip become tokens."""
        return slice(0, len(frames))

    def tokens(self, frames: Frames) -> Frames:
        """Turns the restored frames (frames, width) of one clip into tokens, except in training.

        Training augments the frames instead of amplifying and trimming them.
        """
        frames = self.amplify(frames)
        return stack_frames(self.normalise(frames[self.heard(frames)]), self.config.stack)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turns a padded batch of waveforms into tokens.

        Every shape follows from the batch and its samples without a branch, as ``torch.export``
        requires.

        Args:
            waveform: (batch, samples), float, mono, at ``config.sample_rate`` Hz, full scale at
                1.0. Samples beyond a clip's length are not read.
            lengths: (batch,), samples of each clip.

        Returns:
            Tokens (batch, tokens, stack * width), zero at padding, and the boolean padding mask
            (batch, tokens).
        """
        hop, stack, token = self.config.hop_samples, self.config.stack, self.config.token_samples
        samples = waveform.shape[1]
        # One more token than needed: torch.export would treat a length that can be 1 as constant.
        tokens = samples // token + 2
        waveform = without_offsets(waveform, lengths)
        count = lengths // hop + 1
        frames = self._amplify(self._frames(waveform, tokens * stack), count)
        frames, count = self._trim(frames, count)
        padding = beyond_end(tokens * stack, count).unsqueeze(-1)
        frames = self._normalise(frames, padding, count.view(-1, 1, 1)).masked_fill(padding, 0)
        return stack_batch(frames, stack), beyond_end(tokens, (count - 1) // stack + 1)

    def _frames(self, waveform: Tensor, frames: int) -> Tensor:
        """Returns (batch, frames, width), rounded as the cache rounds them."""
        raise NotImplementedError

    def _amplify(self, frames: Tensor, count: Tensor) -> Tensor:
        """Does the same as :meth:`amplify` for clips of ``count`` (batch,) frames."""
        return frames

    def _trim(self, frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the frames that :meth:`heard` names to the start; also returns how many."""
        return frames, count

    def _normalise(self, frames: Tensor, padding: Tensor, count: Tensor) -> Tensor:
        """Normalises (batch, frames, width), of which ``count`` (batch, 1, 1) are not padding."""
        raise NotImplementedError


def open_cache(folder: Path, front_end: FrontEnd) -> FrameCache:
    """Opens the cache of what a front-end extracts from clips.

    Args:
        folder: Where caches are kept.
        front_end: The front-end; it need not have a normaliser.
    """
    return FrameCache(
        folder,
        front_end.cache_key,
        front_end.config.sample_rate,
        front_end.extract,
        front_end.restore,
    )


def stack_frames(frames: Frames, stack: int) -> Frames:
    """Joins ``stack`` frames into one token.

    Args:
        frames: (frames, width).
        stack: Frames per token; the last token is filled with zeros.

    Returns:
        (ceil(frames / stack), stack * width).
    """
    if stack == 1:
        return frames
    tokens = -(-len(frames) // stack)
    padded = np.zeros((tokens * stack, frames.shape[1]), dtype=np.float32)
    padded[: len(frames)] = frames
    return padded.reshape(tokens, stack * frames.shape[1])


def stack_batch(frames: Tensor, stack: int) -> Tensor:
    """Joins frames (batch, tokens * stack, width) into tokens (batch, tokens, stack * width)."""
    # Not a reshape: torch.export cannot prove that `stack` divides the number of frames.
    return frames.unfold(1, stack, stack).transpose(2, 3).flatten(2)
