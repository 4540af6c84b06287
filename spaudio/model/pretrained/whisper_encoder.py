"""The encoder of Whisper."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from spaudio.model.pretrained.pretrained_encoder import RATE, Base, Frames, LogMelInput

# Silence around a clip that Whisper reads, in frames of 10 ms. It was trained on clips in 30 s of
# sound or silence; with it, the features of digits by unheard speakers are better.
SILENCE_BEFORE, SILENCE_AFTER = 50, 100
QUIET = 40.0  # dB below the loudest token of a clip, from which on a token is not pooled over


class WhisperBase(Base):
    """The encoder of Whisper, on log-mel frames of the clip and some silence around it.

    Whisper was trained on clips padded to 30 s. The frames here are those of the padded clip, cut
    to its length and ``SILENCE_BEFORE`` and ``SILENCE_AFTER`` frames, and the positions are cut
    with them; the layers then differ from the original in that tokens attend to less silence. Of a
    clip of almost 30 s, which leaves no room for it, the silence is cut.
    """

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        return super().cache_key | {"silence": [SILENCE_BEFORE, SILENCE_AFTER], "quiet": QUIET}

    @property
    @override
    def log_mel(self) -> LogMelInput:
        # A frame is (log10(power) + 4) / 4 in each band, and at least 2 less than the largest.
        most = 2 * int(self.net.config.max_source_positions)
        return LogMelInput(4 * math.log(10), most, SILENCE_BEFORE, SILENCE_AFTER, 2.0)

    @override
    def around(self, padding: Tensor) -> Tensor:
        count = (~padding).sum(dim=1, keepdim=True)
        places = torch.arange(padding.shape[1], device=padding.device)
        # Two frames are a token.
        return (places < SILENCE_BEFORE // 2) | (places >= count - SILENCE_AFTER // 2)

    @override
    def quiet(self, inputs: Tensor, padding: Tensor) -> Tensor:
        # Two frames are a token.
        level = (self.log_mel.nats * inputs).logsumexp(dim=-1).masked_fill(padding, -math.inf)
        second = F.pad(level, (0, 1), value=-math.inf)[:, 1::2]
        loudness = torch.maximum(level[:, ::2], second)
        own = loudness.masked_fill(self.around(padding[:, ::2]), -math.inf)
        return loudness <= own.amax(dim=1, keepdim=True) - QUIET / 10 * math.log(10)

    @property
    @override
    def max_seconds(self) -> float:
        return int(self.net.config.max_source_positions) / 50

    @override
    def _inputs(self, waveform: Frames) -> Frames:
        hop = self.extractor.hop_length
        frames = SILENCE_BEFORE + max(1, -(-len(waveform) // hop)) + SILENCE_AFTER
        before = SILENCE_BEFORE * hop
        after = frames * hop - before - len(waveform) + self.extractor.n_fft
        padded = np.pad(waveform, (before, after))
        found = self.extractor(
            padded, sampling_rate=RATE, padding="longest", truncation=False, return_tensors="np"
        ).input_features[0]
        return np.ascontiguousarray(
            found[:, : min(frames, self.log_mel.most)].T, dtype=np.float32
        )  # fmt: skip

    @override
    def embed(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        outside = padding.unsqueeze(1)
        x = inputs.transpose(1, 2).masked_fill(outside, 0)
        x = F.gelu(self.net.conv1(x)).masked_fill(outside, 0)  # what the second one sees alone
        x = F.gelu(self.net.conv2(x)).transpose(1, 2)
        return x + self.net.embed_positions.weight[: x.shape[1]], padding[:, ::2]

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.layer_norm(tokens)
        return found
