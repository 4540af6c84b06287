"""Initial filters of the waveform front-end: noise, gammatone or mel."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.tokens.scales import erb, erb_rate_to_hz, hz_to_erb_rate, mel_edges

INITS = ("random", "gammatone", "mel")
Kernels = npt.NDArray[np.float64]


def initial_kernels(
    init: str, filters: int, taps: int, sample_rate: int, f_min: float, f_max: float
) -> Tensor:
    """Returns the initial kernels of a bank in order of frequency, each of unit energy.

    With unit energy, white noise keeps its level in each filter, and taps are large compared with
    the steps of a learning rate of about 1e-3.

    Args:
        init: ``"random"`` (white Gaussian taps, drawn from torch's generator), ``"gammatone"``
            (spaced in ERB rate) or ``"mel"`` (triangles spaced in mel).
        filters: Number of filters.
        taps: Length of each.
        sample_rate: In Hz.
        f_min: Lower edge of the lowest band, in Hz.
        f_max: Upper edge of the highest band, in Hz.

    Returns:
        (filters, taps), float32, as a convolution without flipping (``conv1d``) takes them.

    Raises:
        ConfigError: If a mel triangle is too narrow for kernels of this length.
    """
    if init == "random":
        kernels = torch.randn(filters, taps)
    elif init == "gammatone":
        kernels = torch.from_numpy(gammatone(filters, taps, sample_rate, f_min, f_max))
    else:
        kernels = torch.from_numpy(mel_triangles(filters, taps, sample_rate, f_min, f_max))
    energy = kernels.square().sum(dim=1, keepdim=True)
    return (kernels / energy.sqrt()).float()


def gammatone(filters: int, taps: int, sample_rate: int, f_min: float, f_max: float) -> Kernels:
    """Returns impulse responses of fourth-order gammatone filters, reversed in time.

    t^3 exp(-2 pi b t) cos(2 pi f t) with b = 1.019 ERB(f) (Patterson et al. 1992, "Complex sounds
    and auditory images"), cut off after ``taps`` samples; the centres are equally spaced in ERB
    rate strictly between the edges. Low filters ring longer than 25 ms; truncation widens their
    bandwidth.
    """
    lower, upper = hz_to_erb_rate([f_min, f_max]).tolist()
    edges = erb_rate_to_hz(np.linspace(lower, upper, filters + 2))
    centres = edges[1:-1, None]
    time = np.arange(1, taps + 1) / sample_rate
    envelope = time**3 * np.exp(-2 * np.pi * 1.019 * erb(centres) * time)
    response: Kernels = envelope * np.cos(2 * np.pi * centres * time)
    return response[:, ::-1].copy()


def mel_triangles(filters: int, taps: int, sample_rate: int, f_min: float, f_max: float) -> Kernels:
    """Returns symmetric kernels whose power responses approximate mel triangles.

    A kernel is the middle ``taps`` samples of the inverse Fourier transform of a triangle's square
    root, which minimizes the squared error of the zero-phase response.

    Raises:
        ConfigError: If a triangle is so narrow that it holds no frequency of that transform.
    """
    edges = mel_edges(filters, f_min, f_max)[:, None]
    size = 1 << (8 * taps).bit_length()
    hz = np.fft.rfftfreq(size, 1 / sample_rate)
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    response = np.sqrt(np.maximum(np.minimum(rising, falling), 0))
    if (missed := ~response.any(axis=1)).any():
        first = int(missed.argmax())
        raise ConfigError(
            f"tokens.waveform.init=mel: a filter from {edges[first, 0]:.1f} to "
            f"{edges[first + 2, 0]:.1f} Hz is too narrow for kernels of {taps} taps; lengthen "
            "tokens.waveform.kernel, or lower tokens.waveform.num_filters"
        )
    kernels: Kernels = np.fft.irfft(response, size, axis=1)
    return np.roll(kernels, taps // 2, axis=1)[:, :taps]
