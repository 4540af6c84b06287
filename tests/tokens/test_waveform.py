"""The learned front-end: its definition, what a token sees, and padding."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.front_end import stack_frames
from spaudio.tokens.waveform_filterbank import WaveformFilterbank
from spaudio.tokens.waveform_front_end import cut


# A second of 1000 samples: frames every 20, windows of 50, filters of 15 samples.
def small(stack: int = 1, window: float = 0.05, **bank: Any) -> TokenConfig:
    waveform = WaveformConfig(**{"num_filters": 3, "kernel": 0.015, "init": "random", **bank})
    return TokenConfig(1000, "waveform", window, hop=0.02, stack=stack, waveform=waveform)


def front_end(config: TokenConfig) -> WaveformFilterbank:
    torch.manual_seed(0)
    return WaveformFilterbank(config)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).standard_normal(samples).astype(np.float32)


def tokens_of(config: TokenConfig, waveform: np.ndarray) -> Tensor:
    """One clip as the dataset returns it, (1, tokens, stack * hop)."""
    return torch.from_numpy(stack_frames(cut(waveform, config.hop_samples), config.stack))[None]


def defined(module: WaveformFilterbank, waveform: np.ndarray, frames: int) -> np.ndarray:
    """The definition, sample by sample."""
    config = module.config
    kernels = module.filters.weight[:, 0].detach().double().numpy()
    pool = np.mean if config.waveform.pooling == "mean" else np.max
    pooled = config.outputs_per_frame * config.stride_samples
    silence = np.pad(waveform.astype(np.float64), 1000)
    rows = []
    for i in range(frames):
        first = i * config.hop_samples - pooled // 2 - config.taps // 2 + 1000
        outputs = [
            np.maximum(kernels @ silence[start : start + config.taps], 0)
            for start in range(first, first + pooled, config.stride_samples)
        ]
        rows.append(np.log(pool(outputs, axis=0) + config.waveform.log_offset))
    return np.array(rows)


@pytest.mark.parametrize(
    "config",
    [
        small(),
        small(stride=1, pooling="max"),
        small(stride=5, kernel=0.022, window=0.049),
        small(window=0.004, kernel=0.003, stride=2),  # gaps between windows
        small(window=0.001, kernel=0.001, stride=4),
    ],
)
def test_frames_are_what_the_definition_says(config: TokenConfig) -> None:
    module = front_end(config)
    for samples in (1, 20, 130):
        wave = noise(samples)
        frames = module.log_frames(tokens_of(config, wave))[0]
        assert frames.shape == (1 + samples // 20, 3)
        np.testing.assert_allclose(frames.detach(), defined(module, wave, len(frames)), atol=1e-5)


@pytest.mark.parametrize("config", [small(), small(3, stride=1, pooling="max")])
def test_a_clip_alone_is_the_clip_in_a_batch(config: TokenConfig) -> None:
    module = front_end(config)
    clips = [tokens_of(config, noise(n))[0] for n in (7, 190, 333)]
    # Padding is not read.
    tokens = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=torch.nan)
    padding = tokens.isnan().all(dim=2)
    together = module(tokens, padding)
    assert together.shape == (3, len(clips[2]), config.features)
    assert (together[padding] == 0).all()
    for found, mask, clip in zip(together, padding, clips, strict=True):
        torch.testing.assert_close(found[~mask], module(clip[None])[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):  # half precision around it changes nothing
        torch.testing.assert_close(module(tokens, padding), together)


def test_normalisation_is_measured_without_the_padding() -> None:
    module = front_end(small(2))
    clips = [tokens_of(small(2), noise(n))[0] for n in (300, 500, 470)]
    tokens = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=torch.nan)
    padding = tokens.isnan().all(dim=2)
    module.fit_normaliser([(tokens[:2], padding[:2]), (tokens[2:], padding[2:])])
    together = module(tokens, padding)
    parts = [found[~mask].reshape(-1, 3) for found, mask in zip(together, padding, strict=True)]
    frames = torch.cat(parts)
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    deviation = frames.std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", [small(), small(1, pooling="max")])
def test_silence_and_its_gradients_are_finite(config: TokenConfig) -> None:
    module = front_end(config)
    tokens = torch.zeros(2, 9, 20)
    tokens[1, 4] = 1
    frames = module(tokens)
    (frames * torch.randn_like(frames)).sum().backward()
    assert frames.isfinite().all()
    gradient = module.filters.weight.grad
    assert gradient is not None
    assert 0 < gradient.abs().sum() < torch.inf


def test_a_filter_hears_its_own_tone() -> None:
    config = TokenConfig(8000, "waveform", f_min=50.0)
    module = WaveformFilterbank(config)
    centres = module.centre_frequencies()
    assert (centres.diff() > 0).all()
    time = np.arange(4000) / 8000
    for i in (5, 20, 35):
        tone = np.sin(2 * np.pi * float(centres[i]) * time).astype(np.float32)
        frames = module.log_frames(tokens_of(config, tone))[0, 20:30].mean(dim=0)
        assert abs(int(frames.argmax()) - i) <= 1


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"2 \* 20 samples\); got \(1, 5, 20\)"):
        front_end(small(2))(torch.zeros(1, 5, 20))
    with pytest.raises(ConfigError, match="at least one"):
        front_end(small()).fit_normaliser([])
