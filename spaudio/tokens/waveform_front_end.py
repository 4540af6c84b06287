"""The front-end of ``tokens=waveform``: samples, for the filterbank trained with the model."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.errors import AudioError
from spaudio.tokens.config import Frames
from spaudio.tokens.dc_offset import without_offset
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.normalise import LevelNormaliser

FULL_SCALE = 32768  # of 16-bit samples
_MOST_PEAK = 2.0  # times full scale


class WaveformFrontEnd(FrontEnd):
    """Samples, cut into hops, for the filterbank that is trained with the model.

    They are stored as int16. Peaks of up to twice full scale, as lossy formats have, are clipped;
    higher ones raise AudioError.
    """

    normaliser: LevelNormaliser | None

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

        assert self.normaliser is not None
        normalised: Tensor = self.normaliser(frames, power)
        return normalised


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
