"""The log-mel frames of Whisper as a module that can be exported."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.model.pretrained.whisper_encoder import SILENCE_AFTER, SILENCE_BEFORE
from spaudio.tokens.dc_offset import without_offsets
from spaudio.tokens.lengths import beyond_end

SILENCE = SILENCE_BEFORE + SILENCE_AFTER  # frames
FLOOR = 1e-10  # of the mel power
RANGE = 8.0  # decades below the loudest value of a clip, at which its frames are clipped


class WhisperFrames(nn.Module):
    """Waveforms to the log-mel frames that Whisper reads, with silence around each clip.

    The frames are those of
    :class:`spaudio.model.pretrained.whisper_encoder.WhisperAudioEncoder` within float tolerance.

    Args:
        extractor: The feature extractor of the model.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.n_fft, self.hop = int(extractor.n_fft), int(extractor.hop_length)
        filters = torch.from_numpy(extractor.mel_filters).float()  # (frequencies, bands)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms a padded batch.

        Args:
            waveform: (batch, samples), float, mono, at 16 kHz, full scale at 1.0. Samples beyond a
                clip's length are not read.
            lengths: (batch,), samples of each clip.

        Returns:
            Frames (batch, frames, bands), zero at padding, and the boolean padding mask (batch,
            frames). The number of frames is even.
        """
        samples = waveform.shape[1]
        # Two more than needed: torch.export would treat a length that can be 2 as constant.
        frames = 2 * (samples // (2 * self.hop) + 2) + SILENCE
        waveform = without_offsets(waveform, lengths)
        # Zeros after the clip, as many as its last window and the centred padding read.
        before = SILENCE_BEFORE * self.hop
        waveform = F.pad(waveform, (before, frames * self.hop - before - samples + self.n_fft))
        spectrum = torch.stft(
            waveform, self.n_fft, self.hop, window=self.window, center=True, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        power = torch.view_as_real(spectrum).square().sum(dim=-1)[:, :, :frames]
        found = (power.transpose(1, 2) @ self.filters).clamp_min(FLOOR).log10()
        count = (lengths + self.hop - 1) // self.hop
        padding = beyond_end(frames, count.clamp_min(1) + SILENCE)
        # Silence after the clip is never the loudest.
        top = found.flatten(1).amax(dim=1).view(-1, 1, 1)
        found = (torch.maximum(found, top - RANGE) + 4) / 4
        return found.masked_fill(padding.unsqueeze(-1), 0), padding
