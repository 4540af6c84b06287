"""Augmentation of waveforms with the settings of :mod:`spaudio.tokens.augment`."""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy  # loads its submodules on first use
import soxr
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.tokens.augment import Augment, AugmentConfig, random_spans, tilt_curve
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.noise import draw_noise
from spaudio.tokens.normalise import mean_square
from spaudio.tokens.scales import hz_to_mel
from spaudio.tokens.waveform_front_end import cut


class WaveformAugment(Augment):
    """Augments the samples of one clip, cut into hops.

    Settings have the same units and distributions as for log-mel frames. ``gain`` is a factor,
    ``tilt`` an equalizer over the clip's spectrum. ``time_shift`` and ``time_masks`` fill with
    silence. ``mel_masks`` filters out bands; a band is one of ``bands`` equal parts of the mel
    axis. ``tempo`` resamples, which changes pitch and formants with the duration (Ko et al. 2015,
    "Audio augmentation for speech recognition"). ``warp``, ``mixup_power`` and ``mixstyle`` are
    ignored.

    Args:
        config: The settings.
        tokens: Settings of the front-end.
    """

    ignored = ("warp", "mixup_power", "mixstyle")

    def __init__(self, config: AugmentConfig, tokens: TokenConfig) -> None:
        super().__init__(config, None)
        self._hop = tokens.hop_samples
        self._bands = tokens.bands
        self._rate = tokens.sample_rate

    @override
    def _levels(self, frames: Frames) -> npt.NDArray[np.float32]:
        levels: npt.NDArray[np.float32] = np.log(np.square(frames).mean(axis=1) + np.float32(1e-10))
        return levels

    @override
    def vary(self, frames: Frames, rng: np.random.Generator, length: int = 0) -> Frames:
        """Varies level, spectral tilt, speed, position and noise of a clip.

        Args:
            frames: (frames, hop_samples).
            rng: Source of the variation.
            length: Maximum frames of the result, an excerpt that is not silent; 0 for no limit.
        """
        config = self.config
        frames, tempo, is_whole = self._cut(frames, length, rng)
        wave = frames.reshape(-1)
        if config.gain:
            wave = wave * np.float32(math.exp(rng.normal(0, config.gain) / 2))
        if config.tilt:
            curve = tilt_curve(_mel_axis(len(wave), self._rate), config.tilt, rng)
            wave = _equalise(wave, np.exp(curve / 2))
        if config.tempo:
            wave = soxr.resample(wave, 1.0, tempo, quality="LQ")
        if config.time_shift and is_whole:
            most = config.time_shift * len(wave)
            shift = round(rng.uniform(-most, most))
            wave = np.pad(wave, abs(shift))[abs(shift) - shift :][: len(wave)]
        if config.roll:
            wave = np.roll(wave, round(rng.uniform(0, config.roll) * len(wave)))
        if config.noise:
            level, power = draw_noise(config.noise, _hertz(_fast(len(wave)), self._rate), rng)
            noise = _equalise(rng.standard_normal(len(wave), dtype=np.float32), np.sqrt(power))
            ratio = mean_square(wave) / mean_square(noise)
            wave = wave + noise * np.float32(level * math.sqrt(ratio))
        if len(wave) == frames.size:
            return wave.reshape(frames.shape).astype(np.float32, copy=False)
        varied = cut(wave, self._hop)
        return varied[:length] if length else varied  # resampling may add a part of a hop

    @override
    def mask(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Sets random spans of time to zero, and filters out random bands."""
        config = self.config
        if not (config.time_masks or config.mel_masks):
            return frames
        wave = frames.reshape(-1).copy()
        wave[random_spans(config.time_masks, len(wave), config.time_mask * len(wave), rng)] = 0
        if config.mel_masks:
            bands = _mel_axis(len(wave), self._rate) * self._bands
            hidden = random_spans(config.mel_masks, self._bands, config.mel_mask, rng)
            # The last bin is above all bands.
            wave = _equalise(wave, 1.0 - np.append(hidden, False)[bands.astype(int)])
        return wave.reshape(frames.shape)


def _mel_axis(samples: int, sample_rate: int) -> npt.NDArray[np.float64]:
    """Returns the position of each bin of a clip's spectrum on the mel scale, from 0 to 1."""
    return _axis(_fast(samples), sample_rate)


@lru_cache(maxsize=8)  # excerpts have few lengths; the axes of others would fill the memory
def _axis(size: int, sample_rate: int) -> npt.NDArray[np.float64]:
    return np.asarray(hz_to_mel(_hertz(size, sample_rate)) / hz_to_mel(sample_rate / 2))


def _hertz(size: int, sample_rate: int) -> npt.NDArray[np.float64]:
    """Returns the frequency of each bin of a spectrum of ``size`` samples, in Hz."""
    return np.asarray(np.fft.rfftfreq(size, 1 / sample_rate))


def _equalise(wave: Waveform, gains: npt.NDArray[np.floating]) -> Waveform:
    """Multiplies the spectrum of a waveform by gains."""
    size = _fast(len(wave))
    spectrum = scipy.fft.rfft(wave, size) * gains.astype(np.float32)
    weighed: Waveform = scipy.fft.irfft(spectrum, size)[: len(wave)]
    return weighed


def _fast(samples: int) -> int:
    """Returns the next length with a fast Fourier transform; a prime one is many times slower."""
    return int(scipy.fft.next_fast_len(samples, real=True))
