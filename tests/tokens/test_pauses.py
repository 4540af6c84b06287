"""Pauses around a sound: found at any level of noise, and cut to what is usual in training."""

import numpy as np
import pytest
import torch

from spaudio.errors import ConfigError
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.front_end import FrontEnd
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.pauses import Pauses, find_pauses, find_sound

RATE = 8000


def word(seconds: float = 0.4) -> np.ndarray:
    """A tone with harmonics that fades in and out within 10 ms."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * 200 * k * time) / k for k in range(1, 9))
    fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    return (0.1 * tone * fade).astype(np.float32)


def with_pauses(before: float, after: float, decibels: float, seed: int = 0) -> np.ndarray:
    """The word between pauses, in white noise that many decibels below it."""
    padded = np.pad(word(), (round(before * RATE), round(after * RATE)))
    level = float(word().std()) * 10 ** (-decibels / 20)
    noise = level * np.random.default_rng(seed).standard_normal(len(padded))
    return (padded + noise).astype(np.float32)


def front_end(trim: bool = True) -> FrontEnd:
    """Fitted on words with pauses of 20 ms before and 50 ms after them."""
    config = TokenConfig(RATE, trim=trim, normalise="clip_level")
    bare = make_front_end(config)
    return make_front_end(config, bare.fit([restored(bare, with_pauses(0.02, 0.05, 60))]))


def restored(one: FrontEnd, wave: np.ndarray) -> np.ndarray:
    return one.restore(one.extract(wave))


@pytest.mark.parametrize("decibels", [60, 30, 20])
def test_pauses_are_found(decibels: float) -> None:
    """To within the window of a frame."""
    bare = make_front_end(TokenConfig(RATE))
    before, after = find_pauses(restored(bare, with_pauses(0.5, 0.3, decibels)))
    assert before * 0.01 == pytest.approx(0.5, abs=0.02)
    assert after * 0.01 == pytest.approx(0.3, abs=0.02)


def test_rounding_chooses_no_frames_of_a_steady_tone() -> None:
    bare = make_front_end(TokenConfig(RATE))
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    for gain in (1, 1.0001, 0.5, 0.3333):
        assert find_pauses(restored(bare, (gain * tone).astype(np.float32))) == (0, 0)
    around = np.pad(tone, RATE // 20)  # pauses that are shorter than a tenth of it
    before, after = find_pauses(restored(bare, around.astype(np.float32)))
    assert (before * 0.01, after * 0.01) == pytest.approx((0.05, 0.05), abs=0.02)


def test_frames_beyond_the_end_are_not_read() -> None:
    bare = make_front_end(TokenConfig(RATE))
    frames = torch.from_numpy(restored(bare, with_pauses(0.2, 0.1, 40)))
    padded = torch.cat([frames, torch.full((30, frames.shape[1]), 9.0)])[None]
    count = torch.tensor([len(frames)])
    assert find_sound(padded, count) == find_sound(frames[None], count)


def test_longer_pauses_than_in_training_are_cut_to_usual_ones() -> None:
    pauses = Pauses.fit([(i, 2 * i) for i in range(101)])
    assert (pauses.longest, pauses.usual) == ((95, 190), (75, 150))
    before, after = torch.tensor([95, 96, 0]), torch.tensor([191, 0, 190])
    frames = torch.full((3, 300, 4), -20.0)
    for clip, one, other in zip(frames, before, after, strict=True):
        clip[one : 300 - other] = 0
    start, stop = pauses.without(frames, torch.full((3,), 300))
    assert (start.tolist(), stop.tolist()) == ([0, 96 - 75, 0], [300 - 191 + 150, 300, 300])


@pytest.mark.parametrize("decibels", [80, 25])
def test_a_word_has_as_many_tokens_with_longer_pauses(decibels: float) -> None:
    """And no fewer with shorter ones."""
    trimmed = front_end()
    tokens = len(trimmed.tokens(restored(trimmed, with_pauses(0.02, 0.05, decibels))))
    for before, after in ((0.5, 0.05), (0.02, 1.0), (0.7, 0.7)):
        wave = with_pauses(before, after, decibels, seed=1)
        assert abs(len(trimmed.tokens(restored(trimmed, wave))) - tokens) <= 2
    whole = restored(trimmed, word())
    assert len(trimmed.tokens(whole)) == len(whole)
    plain = front_end(trim=False)
    assert len(plain.tokens(restored(plain, with_pauses(0.5, 0.5, decibels)))) == 141


def test_other_front_ends_refuse_it() -> None:
    with pytest.raises(ConfigError, match=r"tokens\.trim=true needs log-mel frames"):
        TokenConfig(RATE, "waveform", trim=True)
