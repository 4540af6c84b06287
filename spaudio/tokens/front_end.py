"""The front-end: waveforms to normalised, padded tokens.

The cache stores the result of :meth:`FrontEnd.extract`. Training and prediction turn it into tokens
with :meth:`FrontEnd.restore` and :meth:`FrontEnd.tokens`. Export uses :meth:`FrontEnd.forward`,
which does all of this on a padded batch.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from spaudio.audio.decode import Waveform, check_rate
from spaudio.errors import AudioError, ConfigError
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.dc_offset import without_offset, without_offsets
from spaudio.tokens.logmel import LogMel
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser, Normaliser
from spaudio.tokens.pauses import Pauses, find_pauses
from spaudio.tokens.pcen import Pcen

FULL_SCALE = 32768  # of 16-bit samples
_MOST_PEAK = 2.0  # times full scale
_PORTION = 4096  # frames that are computed at a time


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

    def heard(self, frames: Frames) -> slice:
        """Returns which of the restored frames (frames, width) of a clip become tokens."""
        return slice(0, len(frames))

    def tokens(self, frames: Frames) -> Frames:
        """Normalises and stacks the restored frames (frames, width) of one clip."""
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
        frames, count = self._trim(self._frames(waveform, tokens * stack), lengths // hop + 1)
        padding = _beyond(tokens * stack, count).unsqueeze(-1)
        frames = self._normalise(frames, padding, count.view(-1, 1, 1)).masked_fill(padding, 0)
        return stack_batch(frames, stack), _beyond(tokens, (count - 1) // stack + 1)

    def _frames(self, waveform: Tensor, frames: int) -> Tensor:
        """Returns (batch, frames, width), rounded as the cache rounds them."""
        raise NotImplementedError

    def _trim(self, frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Moves the frames that :meth:`heard` names to the start; also returns how many."""
        return frames, count

    def _normalise(self, frames: Tensor, padding: Tensor, count: Tensor) -> Tensor:
        """Normalises (batch, frames, width), of which ``count`` (batch, 1, 1) are not padding."""
        raise NotImplementedError


class SpectrogramFrontEnd(FrontEnd):
    """Log-mel frames, with or without per-channel energy normalisation.

    Log-mel frames are cached and augmented. PCEN and ``top_db`` are part of the normalisation, so
    that they concern one segment or excerpt, as in prediction. Frames are stored as float16. Their
    values lie within about ±20, where a float16 step of at most 0.016 is far below the standard
    deviation of any band.
    """

    def __init__(self, config: TokenConfig, normaliser: BandNormaliser | None = None) -> None:
        super().__init__(config, normaliser)
        check_rate(config.sample_rate, "tokens.sample_rate")
        self.log_mel = LogMel(config)
        if self.log_mel.empty:  # such bands are constant, and augmentation would fill them
            raise ConfigError(
                f"tokens.spectrogram.n_mels={config.spectrogram.n_mels}: {self.log_mel.empty} of "
                f"these bands are too narrow for a window of {config.window:g} s at "
                f"{config.sample_rate:,} Hz; lower it, or lengthen tokens.window"
            )
        self.pcen = Pcen(config) if config.spectrogram.scaling == "pcen" else None
        # In nats of power, as log-mel frames.
        self._range = config.spectrogram.top_db / 10 * math.log(10)
        if normaliser is not None:
            self.register_buffer("mean", torch.from_numpy(normaliser.mean))
            self.register_buffer("std", torch.from_numpy(normaliser.std))

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        c = self.config
        return {"rate": c.sample_rate, "window": c.window, "hop": c.hop, "f_min": c.f_min,
                "f_max": c.f_max, "n_mels": c.spectrogram.n_mels,
                "log_offset": c.spectrogram.log_offset, "dc_offset": False}  # fmt: skip

    @property
    @override
    def nats(self) -> Tensor | None:
        found = self.normaliser
        if self.pcen is not None or not isinstance(found, BandNormaliser):
            return None
        return torch.from_numpy(found.std)

    @torch.inference_mode()
    @override
    def extract(self, waveform: Waveform, offset: float | None = None) -> npt.NDArray[np.float16]:
        # In portions: the spectrum of an hour at 48 kHz would take six gigabytes.
        hop, waveform = self.config.hop_samples, without_offset(waveform, offset)
        edge = max(1, -(-self.config.frame_reach // hop))  # hops before and after a frame's own
        count, parts = 1 + len(waveform) // hop, []
        for first in range(0, count, _PORTION):
            last, begin = min(first + _PORTION, count), max(0, first - edge)
            piece = torch.from_numpy(waveform[begin * hop : (last + edge) * hop])
            parts.append(self.log_mel(piece)[first - begin : last - begin].half())
        frames: npt.NDArray[np.float16] = torch.cat(parts).numpy()
        return frames

    @override
    def fit(self, training_clips: Iterable[Frames]) -> BandNormaliser:
        pauses = []

        def scaled() -> Iterator[Frames]:
            for frames in training_clips:
                if self.config.trim:
                    pauses.append(find_pauses(frames))
                yield self._scale_clip(frames)

        found = BandNormaliser.fit(self.config.normalise, scaled())
        return replace(found, pauses=Pauses.fit(pauses)) if self.config.trim else found

    @override
    def heard(self, frames: Frames) -> slice:
        if self._pauses is None:
            return super().heard(frames)
        one, count = torch.from_numpy(frames)[None], torch.tensor([len(frames)])
        start, stop = self._pauses.without(one, count)
        return slice(int(start), int(stop))

    @override
    def _trim(self, frames: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        if self._pauses is None:
            return frames, count
        start, stop = self._pauses.without(frames, count)
        most = frames.shape[1]
        places = torch.arange(most, device=frames.device) + start.unsqueeze(1)
        places = places.clamp(max=most - 1).unsqueeze(-1).expand(-1, -1, frames.shape[2])
        return frames.gather(1, places), stop - start

    @property
    def _pauses(self) -> Pauses | None:
        found = self.normaliser
        return found.pauses if isinstance(found, BandNormaliser) else None

    @override
    def normalise(self, frames: Frames) -> Frames:
        return super().normalise(self._scale_clip(frames))

    @torch.inference_mode()
    def _scale_clip(self, frames: Frames) -> Frames:
        scaled: Frames = self._scale(torch.from_numpy(frames)).numpy()
        return scaled

    def _scale(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """Applies PCEN or ``top_db`` to frames (..., frames, n_mels)."""
        if self.pcen is not None:
            scaled: Tensor = self.pcen(frames)
            return scaled
        if not self._range:
            return frames
        heard = frames if padding is None else frames.masked_fill(padding, -math.inf)
        return torch.maximum(frames, heard.amax(dim=(-2, -1), keepdim=True) - self._range)

    @override
    def _frames(self, waveform: Tensor, frames: int) -> Tensor:
        missing = (frames - 1) * self.config.hop_samples - waveform.shape[1]
        found: Tensor = self.log_mel(F.pad(waveform, (0, missing)))
        return found.to(torch.float16).float()

    @override
    def _normalise(self, frames: Tensor, padding: Tensor, count: Tensor) -> Tensor:
        def average(values: Tensor) -> Tensor:
            return values.masked_fill(padding, 0).sum(dim=1, keepdim=True) / count

        normaliser = BandNormaliser(self.config.normalise, self.mean, self.std)
        normalised: Tensor = normaliser(self._scale(frames, padding), average)
        return normalised


class SampleFrontEnd(FrontEnd):
    """Samples, cut into hops, for a front-end that is trained with the model.

    They are stored as int16. Peaks of up to twice full scale, as lossy formats have, are clipped;
    higher ones raise AudioError.
    """

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        c = self.config
        return {"rate": c.sample_rate, "hop": c.hop, "samples": True, "dc_offset": False}

    @override
    def extract(self, waveform: Waveform, offset: float | None = None) -> npt.NDArray[np.int16]:
        if (peak := np.abs(waveform).max(initial=0)) > _MOST_PEAK:
            raise AudioError(
                f"its samples reach {peak:.3g} times full scale, which tokens=waveform would clip; "
                "export it with a full scale of 1.0, or use tokens=spectrogram"
            )
        samples = cut(without_offset(waveform, offset), self.config.hop_samples)
        steps = (samples * FULL_SCALE).round()
        return steps.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)

    @staticmethod
    @override
    def restore(stored: npt.NDArray[Any]) -> Frames:
        return np.asarray(stored, dtype=np.float32) / np.float32(FULL_SCALE)

    @override
    def fit(self, training_clips: Iterable[Frames]) -> LevelNormaliser:
        return LevelNormaliser.fit(self.config.normalise, training_clips)

    @override
    def _frames(self, waveform: Tensor, frames: int) -> Tensor:
        hop = self.config.hop_samples
        waveform = F.pad(waveform, (0, frames * hop - waveform.shape[1]))
        steps = (waveform * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1)
        return (steps / FULL_SCALE).unfold(1, hop, hop)

    @override
    def _normalise(self, frames: Tensor, padding: Tensor, count: Tensor) -> Tensor:
        def power(values: Tensor) -> Tensor:
            total = values.square().sum(dim=(1, 2), keepdim=True)
            return total / (count * self.config.hop_samples)

        assert isinstance(self.normaliser, LevelNormaliser)
        normalised: Tensor = self.normaliser(frames, power)
        return normalised


def make_front_end(config: TokenConfig, normaliser: Normaliser | None = None) -> FrontEnd:
    """Builds the front-end named by ``config.front_end``.

    Args:
        config: The settings.
        normaliser: Normaliser of the matching class; None if only frames are needed.
    """
    if config.learned:
        return SampleFrontEnd(config, normaliser)
    assert not isinstance(normaliser, LevelNormaliser)
    return SpectrogramFrontEnd(config, normaliser)


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


def cut(waveform: Waveform, hop_samples: int) -> Frames:
    """Cuts a waveform (samples,) into hops without overlap.

    Returns:
        (frames, hop_samples), where frames = 1 + samples // hop_samples as for log-mel frames; the
        last one is filled with zeros.
    """
    frames = 1 + len(waveform) // hop_samples
    padded = np.zeros(frames * hop_samples, dtype=np.float32)
    padded[: len(waveform)] = waveform
    return padded.reshape(frames, hop_samples)


def _beyond(size: int, lengths: Tensor) -> Tensor:
    """Returns a boolean (batch, size), True from each length on."""
    return torch.arange(size, device=lengths.device) >= lengths.unsqueeze(1)
