"""The front-end: settings, and that a padded batch gives the tokens of each clip alone."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from spaudio.errors import AudioError, ConfigError
from spaudio.tokens.config import (
    NORMALISATIONS,
    SpectrogramConfig,
    TokenConfig,
    WaveformConfig,
)
from spaudio.tokens.dc_offset import without_offsets
from spaudio.tokens.front_end import stack_frames
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.normalise import BandNormaliser
from spaudio.tokens.waveform_filterbank import WaveformFilterbank

Array = npt.NDArray[np.float32]


def chirp(samples: int) -> Array:
    """A rising tone in noise, at 8 kHz."""
    time = np.arange(samples) / 8000
    noise = np.random.default_rng(samples).standard_normal(samples)
    return (0.3 * np.sin(5000 * time * (1 + time)) + 0.02 * noise).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "normalise", "stack", "trim"),
    [
        ("spectrogram", "global", 1, False),
        ("spectrogram", "clip_level", 3, False),
        ("spectrogram", "clip_level", 4, True),
        ("pcen", "global", 2, True),
        ("waveform", "global", 1, False),
        ("waveform", "clip_level", 2, False),
    ],
)
def test_a_padded_batch_gives_the_tokens_of_each_clip(
    kind: str, normalise: str, stack: int, trim: bool
) -> None:
    learned = kind == "waveform"
    config = TokenConfig(
        8000,
        "waveform" if learned else "spectrogram",
        stack=stack,
        normalise=normalise,
        trim=trim,
        spectrogram=SpectrogramConfig(20, top_db=30, scaling="pcen" if kind == "pcen" else "log"),
    )
    token = config.token_samples
    # Two samples, the edges of a hop and of a token, and louder than full scale.
    lengths = (3000, 1300, 700, 2, 79, 80, 81, token - 1, token, token + 1)
    clips = [chirp(n) for n in lengths] + [5 * chirp(900)]
    clips += [np.pad(chirp(1000), pauses) for pauses in ((900, 700), (0, 1900), (1500, 0))]
    clips.append(0.02 * np.pad(chirp(900), (300, 200)))  # quieter than the clips of the fit
    frames_only = make_front_end(config)
    stored = [frames_only.restore(frames_only.extract(clip)) for clip in clips]
    front_end = make_front_end(config, frames_only.fit(stored[:4]))
    batch = torch.full((len(clips), 3000), 0.7)  # loud padding, which must not be read
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    tokens, padding = front_end(batch, torch.tensor([len(clip) for clip in clips]))
    for frames, found, mask in zip(stored, tokens, padding, strict=True):
        expected = front_end.tokens(frames)
        assert int((~mask).sum()) == len(expected) <= -(-len(frames) // stack)
        assert not found[mask].any()
        # A log-mel frame between two float16 values may be rounded either way.
        np.testing.assert_allclose(found[~mask], expected, atol=1e-5 if learned else 2e-2)
        assert np.abs(found[~mask].numpy() - expected).mean() < 1e-4


@pytest.mark.parametrize("kind", ["spectrogram", "waveform"])
def test_a_dc_offset_has_no_effect(kind: str) -> None:
    """Neither on cached frames nor in a padded batch."""
    bare = make_front_end(TokenConfig(8000, kind))
    clips = [chirp(n) for n in (3000, 1300)]
    frames = [bare.restore(bare.extract(clip)) for clip in clips]
    shifted = [bare.restore(bare.extract(clip + np.float32(0.2))) for clip in clips]
    atol = 0.02 if kind == "spectrogram" else 1.01 / 32768  # a step of float16 or int16
    for found, expected in zip(shifted, frames, strict=True):
        np.testing.assert_allclose(found, expected, atol=atol)
    given = bare.extract(clips[0] + np.float32(0.2), 0.2 + float(clips[0].mean()))
    np.testing.assert_allclose(bare.restore(given), frames[0], atol=atol)
    front_end = make_front_end(TokenConfig(8000, kind), bare.fit(frames))
    batch = torch.full((2, 3000), 0.7)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip) + 0.2
    tokens, padding = front_end(batch, torch.tensor([3000, 1300]))
    for rows, mask, one in zip(tokens, padding, frames, strict=True):
        np.testing.assert_allclose(rows[~mask], front_end.tokens(one), atol=0.02)


def test_rounding_leaves_no_dc_offset() -> None:
    """The rest of one subtraction changed probabilities of an exported Whisper by up to 0.025."""
    lengths = torch.tensor([80_000, 50_000, 1234])
    batch = 0.1 + 1e-4 * torch.randn(3, 80_000, generator=torch.Generator().manual_seed(0))
    centred = without_offsets(batch, lengths)
    assert (centred.double().sum(dim=1) / lengths).abs().max() < 1e-11
    assert centred[1, 50_000:].abs().max() == 0


def test_background_noise_below_the_limit_has_no_effect() -> None:
    """Also with a change of level, which ``clip_level`` removes."""
    tone = np.sin(2 * np.pi * 500 * np.arange(4000) / 8000) * (np.arange(4000) > 2000)
    noise = np.random.default_rng(0).standard_normal(4000)
    clips = [(tone + level * noise).astype(np.float32) for level in (1e-3, 1e-5)]

    def differ(top_db: float) -> float:
        mel = SpectrogramConfig(20, log_offset=1e-12, top_db=top_db)
        config = TokenConfig(8000, normalise="clip_level", spectrogram=mel)
        bare = make_front_end(config)
        quiet, clean = (bare.restore(bare.extract(0.1 * clip)) for clip in clips)
        normaliser = bare.fit([clean])
        front_end = make_front_end(config, normaliser)
        nats = (front_end.tokens(quiet) - front_end.tokens(clean)) * normaliser.std
        return float(np.abs(nats).max())

    assert differ(30) < 0.02
    assert differ(0) > 5


def test_the_cache_keeps_samples_to_the_bit_and_log_mel_frames_as_float16() -> None:
    steps = np.random.default_rng(0).integers(-32767, 32768, 501)
    wave = (np.concatenate([steps, [0], -steps]) / 32768).astype(np.float32)  # without an offset
    samples = make_front_end(TokenConfig(8000, "waveform"))
    frames = samples.restore(samples.extract(wave))
    np.testing.assert_array_equal(frames.reshape(-1), np.pad(wave, (0, 13 * 80 - 1003)))
    spectrogram = make_front_end(TokenConfig(8000))
    stored = spectrogram.extract(wave)
    assert stored.dtype == np.float16
    expected = spectrogram.log_mel(torch.from_numpy(wave))  # type: ignore[operator]
    np.testing.assert_allclose(spectrogram.restore(stored), expected, atol=0.01)


def test_stacking_keeps_the_order_and_fills_with_zeros() -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert stack_frames(frames, 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]


def test_each_front_end_has_its_own_sizes_and_learned_part() -> None:
    spectrogram = TokenConfig(8000, stack=2, spectrogram=SpectrogramConfig(n_mels=30))
    waveform = TokenConfig(8000, "waveform", stack=2, waveform=WaveformConfig(num_filters=20))
    assert (spectrogram.features, waveform.features) == (60, 40)
    assert (spectrogram.learned, waveform.learned) == (False, True)
    assert WaveformFilterbank(waveform).filters.weight.shape == (20, 1, 200)
    # The stride is the hop's largest divisor up to four.
    assert [TokenConfig(rate).stride_samples for rate in (8000, 22050, 44100)] == [4, 4, 3]


def test_the_cache_key_holds_what_changes_the_frames_and_nothing_else() -> None:
    def key(kind: str, **settings: object) -> object:
        return make_front_end(TokenConfig(8000, kind, **settings)).cache_key  # type: ignore[arg-type]

    free = {"stack": 2, "normalise": "clip_level"}
    for later in (SpectrogramConfig(scaling="pcen"), SpectrogramConfig(top_db=40)):
        assert key("spectrogram") == key("spectrogram", spectrogram=later)
    assert key("waveform") == key("waveform", waveform=WaveformConfig(8, init="mel"), **free)
    assert key("waveform") != key("waveform", hop=0.02)
    assert key("spectrogram") == key("spectrogram", waveform=WaveformConfig(8), **free)
    assert make_front_end(TokenConfig(16000, "waveform")).cache_key != key("waveform")
    assert make_front_end(TokenConfig(16000)).cache_key != key("spectrogram")
    for changed in (
        {"f_min": 20.0}, {"f_max": 3000.0}, {"window": 0.03}, {"hop": 0.02},
        {"spectrogram": SpectrogramConfig(30)}, {"spectrogram": SpectrogramConfig(log_offset=1e-3)},
    ):  # fmt: skip
        assert key("spectrogram") != key("spectrogram", **changed)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"front_end": "cochlea"}, "tokens.front_end .*'cochlea'"),
        ({"normalise": "speaker"}, f"tokens.normalise must be one of .*{NORMALISATIONS[1]}"),
        ({"stack": 0}, "tokens.stack"),
        ({"hop": 0.0}, "tokens.hop"),
        ({"hop": float("nan")}, "tokens.hop must be positive and finite; got nan"),
        ({"window": float("inf")}, "tokens.window must be positive and finite; got inf"),
        ({"hop": 1e-5}, "tokens.hop=1e-05 s is less than one sample"),
        ({"window": 1e-5}, "tokens.window=1e-05 s is less than one sample"),
        ({"f_max": 9000.0}, "9000"),
        ({"f_min": 5000.0}, "5000"),
        ({"spectrogram": {"n_mels": -1}}, "tokens.spectrogram.n_mels"),
        ({"spectrogram": {"top_db": -1}}, "top_db must not be negative; got -1"),
        (
            {
                "front_end": "spectrogram",
                "normalise": "clip_level",
                "spectrogram": {"scaling": "pcen"},
            },
            "clip_level needs log-mel frames; with .*scaling=pcen, give",
        ),
        ({"waveform": {"num_filters": 0}}, "tokens.waveform.num_filters"),
        ({"waveform": {"kernel": 1e-5}}, "tokens.waveform.kernel=1e-05 s is less than one"),
        ({"waveform": {"stride": 3}}, "stride must divide the hop of 80 samples; got 3"),
        ({"waveform": {"stride": 0}}, "tokens.waveform.stride"),
        ({"waveform": {"pooling": "sum"}}, "'sum'"),
        ({"waveform": {"init": "bark"}}, "'bark'"),
        ({"waveform": {"log_offset": 0.0}}, "tokens.waveform.log_offset"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], named: str) -> None:
    groups: dict[str, Any] = {"spectrogram": SpectrogramConfig, "waveform": WaveformConfig}

    def make() -> TokenConfig:
        made = {k: groups[k](**v) if k in groups else v for k, v in settings.items()}
        return TokenConfig(**{"sample_rate": 8000, "front_end": "waveform", **made})

    with pytest.raises(ConfigError, match=named):
        make()
    for kind in ("spectrogram", "waveform"):
        with pytest.raises(ConfigError, match="at least one"):
            make_front_end(TokenConfig(8000, kind)).fit([])


def test_what_the_front_end_would_spoil_is_refused() -> None:
    """Bands without a frequency are constant, and samples far beyond full scale are clipped."""
    with pytest.raises(ConfigError, match=r"n_mels=64: 2 of these bands are too narrow .*2,000 Hz"):
        make_front_end(TokenConfig(2000))
    with pytest.raises(AudioError, match=r"reach 1e.03 times full scale"):
        make_front_end(TokenConfig(8000, "waveform")).extract(np.array([0, 1000], np.float32))


@pytest.mark.parametrize(
    ("normalise", "scaling", "known"),
    [("global", "log", True), ("clip_level", "log", True), ("global", "pcen", False)],
)
def test_units_are_known_of_log_mel_frames(normalise: str, scaling: str, known: bool) -> None:
    config = TokenConfig(8000, normalise=normalise, spectrogram=SpectrogramConfig(scaling=scaling))
    one = np.ones(config.bands, np.float32)
    front_end = make_front_end(config, BandNormaliser(normalise, one, 2 * one))
    assert (front_end.nats is not None) == known


def test_frames_of_a_long_clip_are_computed_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour at 48 kHz took six gigabytes; the portions are those of the whole to the bit."""
    front_end = make_front_end(TokenConfig(sample_rate=8000, spectrogram=SpectrogramConfig(40)))
    waves = [chirp(samples) for samples in (2, 80 * 64 - 1, 80 * 64, 80 * 300 + 7)]
    whole = [front_end.extract(wave) for wave in waves]
    monkeypatch.setattr("spaudio.tokens.spectrogram_front_end._PORTION", 64)
    for wave, frames in zip(waves, whole, strict=True):
        np.testing.assert_array_equal(front_end.extract(wave), frames)
