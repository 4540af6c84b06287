"""Encoders of the wav2vec2 family."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from spaudio.audio.decode import Waveform
from spaudio.model.pretrained.pretrained_encoder import RATE, PretrainedEncoder
from spaudio.tokens.config import Frames

MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "sew", "data2vec-audio")


class ConvolutionalEncoder(PretrainedEncoder):
    """An encoder of the wav2vec2 family: convolutions over samples, then a transformer.

    The input is the output of the convolutions over samples, which are never trained. They run on
    each clip alone, since some normalise over time and would mix in padding.
    """

    @property
    @override
    def layers(self) -> nn.ModuleList:
        layers: nn.ModuleList = self.net.encoder.layers
        return layers

    @property
    @override
    def cache_key(self) -> dict[str, Any]:
        # Once, a remainder of less than `squeeze` inputs was left out.
        return super().cache_key | ({"remainder": True} if self.squeeze > 1 else {})

    @property
    def squeeze(self) -> int:
        """Inputs per token: 1, or the squeeze factor of SEW."""
        return int(getattr(self.net.config, "squeeze_factor", 1))

    @property
    @override
    def token_seconds(self) -> float:
        step: int = math.prod(self.net.config.conv_stride)
        return step * self.squeeze / RATE

    @property
    @override
    def max_seconds(self) -> float:
        # WavLM adds a bias for each head and pair of tokens, which takes gigabytes of memory.
        return 60.0 if self.net.config.model_type == "wavlm" else math.inf

    @property
    def _norm_first(self) -> bool:
        """Whether layers begin with their norms, and the encoder ends with one."""
        config = self.net.config  # the other architectures ignore this setting
        has_both = config.model_type in ("wav2vec2", "hubert", "wavlm")
        return has_both and bool(config.do_stable_layer_norm)

    @override
    def _inputs(self, waveform: Waveform) -> Frames:
        field, step = 1, 1
        config = self.net.config
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            field, step = field + (kernel - 1) * step, step * stride
        least = field + (self.squeeze - 1) * step  # for one token
        found = self.extractor(waveform, sampling_rate=RATE, return_tensors="np").input_values[0]
        padded = np.pad(found, (0, max(0, least - len(found)))).astype(np.float32)
        frames = self.net.feature_extractor(torch.from_numpy(padded)[None])[0].T
        return np.ascontiguousarray(frames.numpy())

    @override
    def first_tokens(self, inputs: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        net, encoder = self.net, self.net.encoder
        if hasattr(net, "project_features"):  # SEW
            x = net.layer_norm(inputs)
            x = net.feature_projection(x) if net.project_features else x
        else:
            x = net.feature_projection(inputs)
            x = x[0] if isinstance(x, tuple) else x
        outside = padding.unsqueeze(-1)
        x = x.masked_fill(outside, 0)
        if self.squeeze > 1:
            pooled = encoder.pool(x.transpose(1, 2))
            positions = encoder.pos_conv_embed(x.transpose(1, 2))
            x = (pooled + positions[..., : pooled.shape[2]]).transpose(1, 2)
        else:
            x = x + self._positions(x, outside)
        # A remainder of less than `squeeze` inputs makes no token.
        outside = padding[:, self.squeeze - 1 :: self.squeeze]
        return x if self._norm_first else encoder.layer_norm(x), outside

    def _positions(self, x: Tensor, outside: Tensor) -> Tensor:
        """Embedding of positions, computed from the tokens themselves."""
        positions = self.net.encoder.pos_conv_embed
        if getattr(positions, "batch_norm", None) is not None:  # it shifts the zeros at padding
            x = positions.batch_norm(x.transpose(1, 2)).masked_fill(outside.transpose(1, 2), 0)
            x = positions.activation(positions.padding(positions.conv(x)))
            return x.transpose(1, 2)
        if self.net.config.model_type != "data2vec-audio":
            found: Tensor = positions(x)
            return found
        for layer in positions.layers:  # each would read what the one before wrote at padding
            x = layer(x.masked_fill(outside, 0).transpose(1, 2)).transpose(1, 2)
        return x

    @override
    def _layer_arguments(self, tokens: Tensor, padding: Tensor) -> tuple[Tensor, ...]:
        if self.net.config.model_type != "wavlm":
            return super()._layer_arguments(tokens, padding)
        count = tokens.shape[1]
        first: Any = self.layers[0]
        bias: Tensor = first.attention.compute_bias(count, count)  # shared by all layers
        return ~padding, bias.repeat(len(tokens), 1, 1)

    @override
    def _normalised(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.net.encoder.layer_norm(tokens) if self._norm_first else tokens
        return found
