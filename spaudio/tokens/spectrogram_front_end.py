"""The front-end of log-mel frames."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from spaudio.audio.decode import Waveform, check_rate
from spaudio.errors import ConfigError
from spaudio.tokens import quiet_clips
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.dc_offset import without_offset
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.logmel import LogMel
from spaudio.tokens.normalise import BandNormaliser
from spaudio.tokens.pauses import Pauses, find_pauses
from spaudio.tokens.pcen import Pcen

_PORTION = 4096  # frames that are computed at a time


class SpectrogramFrontEnd(FrontEnd):
    """Log-mel frames, with or without per-channel energy normalisation.

    Log-mel frames are cached and augmented. PCEN and ``top_db`` are part of the normalisation, so
    that they concern one segment or excerpt, as in prediction. Frames are stored as float16. Their
    values lie within about ±20, where a float16 step of at most 0.016 is far below the standard
    deviation of any band.
    """

    normaliser: BandNormaliser | None

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
        self._offset = config.spectrogram.log_offset
        self._range = config.spectrogram.top_db / 10 * math.log(10)  # nats, as log-mel frames
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
        if self.pcen is not None or self.normaliser is None:
            return None
        return torch.from_numpy(self.normaliser.std)

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
        pauses, levels = [], []
        by_clip = self.config.normalise == "clip_level"

        def scaled() -> Iterator[Frames]:
            for frames in training_clips:
                if self.config.trim:
                    pauses.append(find_pauses(frames))
                if by_clip:
                    levels.append(quiet_clips.level(torch.from_numpy(frames), self._offset).item())
                yield self._scale_clip(frames)

        found = BandNormaliser.fit(self.config.normalise, scaled())
        if self.config.trim:
            found = replace(found, pauses=Pauses.fit(pauses))
        if by_clip:
            found = replace(found, quietest=quiet_clips.quietest(levels))
        return found

    @override
    def amplify(self, frames: Frames) -> Frames:
        one, count = torch.from_numpy(frames)[None], torch.tensor([len(frames)])
        amplified: Frames = self._amplify(one, count)[0].numpy()
        return amplified

    @override
    def _amplify(self, frames: Tensor, count: Tensor) -> Tensor:
        found = self.normaliser
        if found is None or found.quietest is None:
            return frames
        return quiet_clips.amplify(frames, count, found.quietest, self._offset)

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
        return self.normaliser.pauses if self.normaliser else None

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
