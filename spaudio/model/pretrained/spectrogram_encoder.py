"""The Audio Spectrogram Transformer."""

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.model.pretrained.pretrained_encoder import RATE, LogMelInput, PretrainedEncoder
from spaudio.tokens.config import Frames


class SpectrogramEncoder(PretrainedEncoder):
    """An Audio Spectrogram Transformer, on clips padded to its fixed length, as it was trained."""

    @property
    @override
    def log_mel(self) -> LogMelInput:
        # Nats of power, or zeros, minus a mean and divided by twice a standard deviation.
        most = int(self.extractor.max_length)
        if not self.extractor.do_normalize:
            return LogMelInput(1.0, most, padding=0.0)
        nats = 2 * self.extractor.std
        return LogMelInput(nats, most, padding=-self.extractor.mean / nats)

    @property
    @override
    def tokens_in_time(self) -> bool:
        return False  # two special tokens, then band after band

    @property
    @override
    def token_seconds(self) -> float:
        # In one band; the tokens of the next band follow those of this one.
        return int(self.net.config.time_stride) * 160 / RATE

    @property
    @override
    def max_seconds(self) -> float:
        return (int(self.extractor.max_length) * 160 + 240) / RATE

    @override
    def _inputs(self, waveform: Waveform) -> Frames:
        padded = np.pad(waveform, (0, max(0, 400 - len(waveform))))  # one window
        found = self.extractor(padded, sampling_rate=RATE, return_tensors="np").input_values[0]
        return np.ascontiguousarray(found, dtype=np.float32)

    @override
    def first_tokens(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        x: Tensor = self.net.embeddings(inputs)
        return x, torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.layernorm(tokens)
        return found
