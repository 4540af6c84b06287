"""Per-channel energy normalisation (PCEN) of log-mel frames."""

import math

import torch
from torch import Tensor, nn

from spaudio.tokens.config import TokenConfig
from spaudio.tokens.logmel import power_of

_FORGOTTEN = 1e-12  # weight below which the smoother drops a past energy


class Pcen(nn.Module):
    """Divides the energy of each band by its recent mean, and compresses it.

    ``(energy / (eps + smooth) ** gain + bias) ** power - bias ** power``, where ``smooth`` is a
    first-order recursive mean (Wang et al. 2017, arXiv 1607.05666). It removes steady noise and
    level but keeps onsets. The five parameters are fixed, not trained. Equal to ``librosa.pcen``
    with a smoother that starts at the energy of the first frame.

    It is causal: a frame depends only on itself and earlier frames of its clip, so padding after
    the clip changes nothing. The smoother is a constant number of shifted sums, without a loop over
    frames, as ``torch.export`` requires.

    Args:
        config: The settings; those of ``spectrogram.pcen`` are read.
    """

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.config = config.spectrogram.pcen
        self.log_offset = config.spectrogram.log_offset
        frames = self.config.time_constant / config.frame_seconds
        # The smoother falls to one half at the frequency of the time constant, as in librosa.
        self.smoothing = 2 / (1 + math.sqrt(1 + 4 * frames**2))
        window = math.log(_FORGOTTEN) / math.log1p(-self.smoothing)
        self.doublings = max(1, math.ceil(math.log2(window)))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Normalises log-mel frames.

        Args:
            log_mel: (..., frames, n_mels), as :class:`spaudio.tokens.logmel.LogMel` returns it.

        Returns:
            (..., frames, n_mels), not negative; zero for silence.
        """
        c = self.config
        energy = power_of(log_mel, self.log_offset)
        scaled = energy / (c.eps + self.smooth(energy)) ** c.gain
        found: Tensor = (scaled + c.bias) ** c.power - c.bias**c.power
        return found

    def smooth(self, energy: Tensor) -> Tensor:
        """Returns the recursive mean of (..., frames, n_mels) along the frames.

        ``smooth[0] = energy[0]``, then ``smooth[t] = (1 - s) smooth[t - 1] + s energy[t]``. Each
        step doubles the number of frames that a sum covers.
        """
        mean = torch.cat([energy[..., :1, :], self.smoothing * energy[..., 1:, :]], dim=-2)
        place = torch.arange(energy.shape[-2], device=energy.device)
        for shift in (1 << i for i in range(self.doublings)):
            before = mean.index_select(-2, (place - shift).clamp(min=0))
            weight = (place >= shift) * (1 - self.smoothing) ** shift
            mean = mean + weight.unsqueeze(-1) * before
        return mean
