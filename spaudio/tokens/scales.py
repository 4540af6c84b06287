"""Frequency scales: mel, and the ERB rate of auditory filters."""

import math

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, above it 27 steps per factor of 6.4.
_HZ_PER_MEL = 200 / 3
_KNEE_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def hz_to_mel(hz: npt.ArrayLike) -> Numbers:
    """Converts Hz to Slaney's mel, the scale of the log-mel front-end and of librosa."""
    hz = np.asarray(hz, dtype=np.float64)
    above = np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.asarray(np.minimum(hz, _KNEE_HZ) / _HZ_PER_MEL + above)


def mel_to_hz(mel: npt.ArrayLike) -> Numbers:
    """Converts Slaney's mel to Hz."""
    mel = np.asarray(mel, dtype=np.float64)
    knee = _KNEE_HZ / _HZ_PER_MEL
    above = np.exp(np.maximum(mel - knee, 0) * _LOG_STEP)
    return np.asarray(np.minimum(mel, knee) * _HZ_PER_MEL * above)


def erb(hz: npt.ArrayLike) -> Numbers:
    """Returns the equivalent rectangular bandwidth of an auditory filter, in Hz.

    Glasberg & Moore 1990, "Derivation of auditory filter shapes from notched-noise data".
    """
    return np.asarray(24.7 * (4.37e-3 * np.asarray(hz, dtype=np.float64) + 1))


def hz_to_erb_rate(hz: npt.ArrayLike) -> Numbers:
    """Converts Hz to ERB rate, the number of bandwidths below a frequency (same source)."""
    return np.asarray(np.log(erb(hz) / 24.7) / (24.7 * 4.37e-3))


def erb_rate_to_hz(rate: npt.ArrayLike) -> Numbers:
    """Converts ERB rate to Hz."""
    rate = np.asarray(rate, dtype=np.float64)
    return np.asarray((np.exp(rate * 24.7 * 4.37e-3) - 1) / 4.37e-3)


def mel_edges(bands: int, f_min: float, f_max: float) -> Numbers:
    """Returns the edges and centres in Hz of bands that are equally wide in mel.

    Args:
        bands: Number of bands; each spans from the centre below to the centre above.
        f_min: Lower edge of the lowest band, in Hz.
        f_max: Upper edge of the highest band, in Hz.

    Returns:
        (bands + 2,); band i has its centre at i + 1.
    """
    lower, upper = hz_to_mel([f_min, f_max]).tolist()
    return mel_to_hz(np.linspace(lower, upper, bands + 2))
