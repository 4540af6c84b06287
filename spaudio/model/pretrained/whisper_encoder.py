"""The encoder of Whisper."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.model.pretrained.pretrained_encoder import RATE, LogMelInput, PretrainedEncoder
from spaudio.tokens import pauses
from spaudio.tokens.config import Frames

# Silence added around a clip, in frames of 10 ms. Whisper was trained on clips in 30 s of sound or
# silence; with some silence, its features of digits by unseen speakers are better.
SILENCE_BEFORE, SILENCE_AFTER = 50, 100
PAUSE = 0.1  # see `pauses.lowest_level`


class WhisperAudioEncoder(PretrainedEncoder):
    """The encoder of Whisper, on log-mel frames of the clip and some silence around it.

    Whisper was trained on clips padded to 30 s. Here the frames of the padded clip are cut to the
    clip with ``SILENCE_BEFORE`` and ``SILENCE_AFTER`` frames around it, and the positions with
    them. The layers then differ from the original in that tokens attend to less silence. A clip of
    28.5 to 30 s has as much silence around it as there is room for.
    """

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        silence = [SILENCE_BEFORE, SILENCE_AFTER, "less if there is no room"]
        quiet = [pauses.RANGE, pauses.QUIET, PAUSE, pauses.STEADY]
        return super().cache_key | {"silence": silence, "quiet": quiet}

    @property
    @override
    def log_mel(self) -> LogMelInput:
        # A frame is (log10(power) + 4) / 4 in each band, at most 2 below the largest value.
        most = 2 * int(self.net.config.max_source_positions)
        return LogMelInput(4 * math.log(10), most, SILENCE_BEFORE, SILENCE_AFTER, 2.0)

    @override
    def around(self, padding: Tensor) -> Tensor:
        count = (~padding).sum(dim=1, keepdim=True)
        places = torch.arange(padding.shape[1], device=padding.device)
        # Two frames make one token.
        silence = (places < SILENCE_BEFORE // 2) | (places >= count - SILENCE_AFTER // 2)
        # The longest inputs may have less silence. It is not pooled over, because it is quiet.
        return silence & (count < self.log_mel.most // 2)

    @override
    def quiet(self, inputs: Tensor, padding: Tensor) -> Tensor:
        # Two frames make one token.
        level = (self.log_mel.nats * inputs).logsumexp(dim=-1).masked_fill(padding, -math.inf)
        second = F.pad(level, (0, 1), value=-math.inf)[:, 1::2]
        loudness = torch.maximum(level[:, ::2], second)
        return loudness < pauses.lowest_level(loudness, self.around(padding[:, ::2]), PAUSE)

    @override
    def pooled_inputs(self, inputs: Tensor, padding: Tensor) -> Tensor:
        unpooled = self.unpooled(padding[:, ::2], self.quiet(inputs, padding))
        return ~(unpooled.repeat_interleave(2, dim=1)[:, : padding.shape[1]] | padding)

    @property
    @override
    def token_seconds(self) -> float:
        return 2 * int(self.extractor.hop_length) / RATE  # two frames make one token

    @property
    @override
    def max_seconds(self) -> float:
        return int(self.net.config.max_source_positions) / 50

    @override
    def _inputs(self, waveform: Waveform) -> Frames:
        hop = self.extractor.hop_length
        own = max(1, -(-len(waveform) // hop))
        room = max(0, self.log_mel.most - own)
        before = min(SILENCE_BEFORE, room // 3)
        frames = before + own + min(SILENCE_AFTER, room - before)
        after = (frames - before) * hop - len(waveform) + self.extractor.n_fft
        padded = np.pad(waveform, (before * hop, after))
        found = self.extractor(
            padded, sampling_rate=RATE, padding="longest", truncation=False, return_tensors="np"
        ).input_features[0]
        return np.ascontiguousarray(found[:, :frames].T, dtype=np.float32)

    @override
    def first_tokens(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        outside = padding.unsqueeze(1)
        x = inputs.transpose(1, 2).masked_fill(outside, 0)
        x = F.gelu(self.net.conv1(x)).masked_fill(outside, 0)  # as conv2 sees a clip alone
        x = F.gelu(self.net.conv2(x)).transpose(1, 2)
        return x + self.net.embed_positions.weight[: x.shape[1]], padding[:, ::2]

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.layer_norm(tokens)
        return found
