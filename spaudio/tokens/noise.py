"""Random background noise: its level and colour, and noise in log-mel frames."""

import numpy as np
import numpy.typing as npt
import torch

from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.logmel import LogMel
from spaudio.tokens.scales import mel_edges

#: Levels are drawn from this range below the largest one, in dB.
RANGE = 40.0
_LOWEST_HZ = 50.0  # below it, the power of noise does not rise further
_SECONDS = 30  # of noise that is transformed once; clips get parts of it


def draw_noise(
    largest: float, hz: npt.NDArray[np.floating], rng: np.random.Generator
) -> tuple[float, npt.NDArray[np.float64]]:
    """Draws level and colour of a noise.

    Args:
        largest: Largest level, as a fraction of the clip's root mean square.
        hz: (frequencies,), in Hz.
        rng: Source of both.

    Returns:
        The level, uniform in dB, and the power at each frequency, which falls with an exponent of
        the frequency between 0 (white noise) and 2 (brown noise).
    """
    below, exponent = rng.uniform(0, (RANGE, 2))
    return largest * 10 ** (-below / 20), np.maximum(hz, _LOWEST_HZ) ** -exponent


class BandNoise:
    """Adds noise to log-mel frames, as if it had been added to the samples.

    Powers are added. The product of sound and noise, whose mean is zero, is left out.

    Args:
        config: Settings of the frames.
    """

    def __init__(self, config: TokenConfig) -> None:
        rng = np.random.default_rng(0)
        white = rng.standard_normal(_SECONDS * config.sample_rate, dtype=np.float32)
        with torch.inference_mode():
            power = LogMel(config)(torch.from_numpy(white)).exp()
        self._white: Frames = (power / power.mean(dim=0)).numpy()
        edges = mel_edges(config.spectrogram.n_mels, config.f_min, config.top)
        self._centres, self._widths = edges[1:-1], (edges[2:] - edges[:-2]) / 2
        self._offset = config.spectrogram.log_offset

    def __call__(self, frames: Frames, largest: float, rng: np.random.Generator) -> Frames:
        """Adds noise of random level and colour.

        Args:
            frames: (frames, n_mels), before the normalisation.
            largest: As in :func:`draw_noise`.
            rng: Source of the noise.
        """
        level, colour = draw_noise(largest, self._centres, rng)
        power = np.exp(frames)
        # Bands hold power per Hz (area normalisation).
        own = np.maximum(power.mean(axis=0) - self._offset, 0) @ self._widths
        colour *= level**2 * own / (colour @ self._widths)
        start = int(rng.integers(len(self._white)))
        white = self._white.take(np.arange(start, start + len(frames)), axis=0, mode="wrap")
        noisy: Frames = np.log(power + white * colour.astype(np.float32))
        return noisy
