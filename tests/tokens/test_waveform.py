"""The learned front-end: its definition, what a token sees, and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.front_end import cut, stack_frames
from spaudio.tokens.waveform import WaveformFrontEnd


# A second of 1000 samples: frames every 20, windows of 50, filters of 15 samples.
def small(
    stack: int = 1, normalise: str = "global", window: float = 0.05, **bank: Any
) -> TokenConfig:
    waveform = WaveformConfig(**{"num_filters": 3, "kernel": 0.015, "init": "random", **bank})
    return TokenConfig(
        1000, "waveform", window, hop=0.02, stack=stack, normalise=normalise, waveform=waveform
    )


CONFIGS = [
    small(),
    small(stride=1, pooling="max"),
    small(stride=5, kernel=0.022, window=0.049),
    small(window=0.004, kernel=0.003, stride=2),  # gaps between windows
    small(window=0.001, kernel=0.001, stride=4),
]


def front_end(config: TokenConfig) -> WaveformFrontEnd:
    torch.manual_seed(0)
    return WaveformFrontEnd(config)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def tokens_of(config: TokenConfig, waveform: np.ndarray) -> Tensor:
    """One clip as the data set returns it, (1, tokens, stack * hop)."""
    return torch.from_numpy(stack_frames(cut(waveform, config.hop_samples), config.stack))[None]


def defined(module: WaveformFrontEnd, waveform: np.ndarray, frames: int) -> np.ndarray:
    """The definition, sample by sample."""
    config = module.config
    kernels = module.filters.weight[:, 0].detach().double().numpy()
    taps, pooled = config.taps, config.pooled * config.stride_samples

    def sample(n: int) -> float:
        return float(waveform[n]) if 0 <= n < len(waveform) else 0.0

    rows = []
    for i in range(frames):
        first = i * config.hop_samples - pooled // 2
        outputs = []
        for centre in range(first, first + pooled, config.stride_samples):
            heard = np.array([sample(centre - taps // 2 + k) for k in range(taps)])
            outputs.append(np.maximum(kernels @ heard, 0))
        value = (
            np.mean(outputs, axis=0)
            if config.waveform.pooling == "mean"
            else np.max(outputs, axis=0)
        )
        rows.append(np.log(value + config.waveform.log_offset))
    return np.array(rows)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("samples", [1, 20, 130])
def test_frames_are_what_the_definition_says(config: TokenConfig, samples: int) -> None:
    module, wave = front_end(config), noise(samples)
    frames = module.log_frames(tokens_of(config, wave))[0]
    assert frames.shape == (1 + samples // 20, 3)
    np.testing.assert_allclose(frames.detach(), defined(module, wave, len(frames)), atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_token_sees_its_window_and_half_a_kernel_on_either_side(config: TokenConfig) -> None:
    module = front_end(config)
    with torch.no_grad():
        module.filters.weight.abs_()  # so that no output of positive samples is rectified away
    tokens = tokens_of(config, np.abs(noise(300)) + 0.1).requires_grad_()
    frames = module.log_frames(tokens)
    (gradient,) = torch.autograd.grad(frames[0, 7].sum(), tokens)
    seen = gradient.flatten().nonzero().flatten()
    pooled, stride = config.pooled * config.stride_samples, config.stride_samples
    assert seen.min() >= 140 - pooled // 2 - config.taps // 2
    assert seen.max() < 140 - pooled // 2 + pooled - stride - config.taps // 2 + config.taps
    if config.waveform.pooling == "mean" and stride <= config.taps:
        assert seen.min() == 140 - pooled // 2 - config.taps // 2
        assert (
            seen.max() == 140 - pooled // 2 + pooled - stride - config.taps // 2 + config.taps - 1
        )


@pytest.mark.parametrize(
    "config",
    [small(), small(3, "clip", stride=1, pooling="max"), small(3, "clip_std", pooling="max")],
)
def test_a_clip_alone_is_the_clip_in_a_batch(config: TokenConfig) -> None:
    module = front_end(config)
    clips = [tokens_of(config, noise(n, seed=n)) for n in (7, 190, 333)]
    longest = max(clip.shape[1] for clip in clips)
    tokens = torch.full((3, longest, config.token_samples), torch.nan)  # padding is not read
    padding = torch.ones(3, longest, dtype=torch.bool)
    for i, clip in enumerate(clips):
        tokens[i, : clip.shape[1]] = clip[0]
        padding[i, : clip.shape[1]] = False
    together = module(tokens, padding)
    assert together.shape == (3, longest, config.features)
    assert (together[padding] == 0).all()
    for i, clip in enumerate(clips):
        torch.testing.assert_close(together[i, : clip.shape[1]], module(clip)[0])


def test_normalisation_is_measured_without_the_padding() -> None:
    clips = [tokens_of(small(2), noise(n, seed=n))[0] for n in (300, 500, 470)]
    tokens = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    lengths = torch.tensor([len(clip) for clip in clips])
    padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
    for mode in ("global", "clip"):
        module = front_end(small(2, mode))
        module.fit_normaliser([(tokens[:2], padding[:2]), (tokens[2:], padding[2:])])
        frames = module(tokens, padding)[~padding].reshape(-1, 3)
        torch.testing.assert_close(frames.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
        deviation = frames.std(dim=0, correction=0)
        torch.testing.assert_close(deviation, torch.ones(3), atol=1e-3, rtol=0)
    for mode in ("clip", "clip_std"):  # removes what is constant over a clip
        for clip in clips:
            frames = front_end(small(2, mode))(clip[None]).reshape(-1, 3)
            torch.testing.assert_close(frames.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
            if mode == "clip_std":
                deviation = frames.std(dim=0, correction=0)
                torch.testing.assert_close(deviation, torch.ones(3), atol=1e-3, rtol=0)
    with pytest.raises(ConfigError, match="at least one"):
        front_end(small()).fit_normaliser([])


@pytest.mark.parametrize(
    ("pooling", "normalise"), [("mean", "global"), ("max", "clip"), ("mean", "clip_std")]
)
def test_silence_and_its_gradients_are_finite(pooling: str, normalise: str) -> None:
    module = front_end(small(1, normalise, pooling=pooling))
    tokens = torch.zeros(2, 9, 20)
    tokens[1, 4] = 1
    frames = module(tokens)
    (frames * torch.randn_like(frames)).sum().backward()
    assert frames.isfinite().all()
    gradient = module.filters.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_a_filter_hears_its_own_tone() -> None:
    config = TokenConfig(8000, "waveform", f_min=50.0)
    module = WaveformFrontEnd(config)
    centres = module.centre_frequencies()
    assert (centres.diff() > 0).all()
    time = np.arange(4000) / 8000
    for i in (5, 20, 35):
        tone = np.sin(2 * np.pi * float(centres[i]) * time).astype(np.float32)
        frames = module.log_frames(tokens_of(config, tone))[0, 20:30].mean(dim=0)
        assert abs(int(frames.argmax()) - i) <= 1


def test_the_stride_is_the_hops_largest_divisor_up_to_four() -> None:
    strides = {r: TokenConfig(r).stride_samples for r in (8000, 16000, 22050, 44100)}
    assert strides == {8000: 4, 16000: 4, 22050: 4, 44100: 3}


def test_half_precision_around_it_changes_nothing() -> None:
    module, tokens = front_end(small()), tokens_of(small(), noise(200))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(tokens)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, module(tokens))


def test_bad_tokens_are_named() -> None:
    with pytest.raises(ConfigError, match=r"2 \* 20 samples\); got \(1, 5, 20\)"):
        front_end(small(2))(torch.zeros(1, 5, 20))
