from __future__ import annotations

import pytest

from spaudio.errors import ConfigError
from spaudio.tokens.front_end import own_settings, read_tokens
from spaudio.tokens.logmel import LogMelConfig
from spaudio.tokens.samples import WaveformConfig

MIXED = {
    "sample_rate": 8000,
    "stack": 2,
    "normalise": "clip",
    "n_mels": 30,
    "floor": 1e-9,
    "num_filters": 20,
}


def test_each_front_end_takes_what_is_its_own() -> None:
    spectrogram = read_tokens({"name": "spectrogram", **MIXED})
    assert spectrogram.front_end == LogMelConfig(8000, n_mels=30, floor=1e-9)
    assert (spectrogram.features, spectrogram.module()) == (60, None)
    waveform = read_tokens({"name": "waveform", **MIXED})
    assert waveform.front_end == WaveformConfig(8000, num_filters=20)
    module = waveform.module()
    assert module is not None
    assert (module.features, waveform.features) == (40, 40)
    assert (module.stack, module.normalise) == (2, "clip")
    assert set(own_settings({"name": "waveform", **MIXED})) == {
        "name", "sample_rate", "stack", "normalise", "num_filters",
    }  # fmt: skip


def test_settings_from_before_there_was_a_choice_are_the_spectrograms() -> None:
    assert read_tokens({"sample_rate": 8000}).front_end == LogMelConfig(8000)


def test_only_samples_shape_the_cached_waveform() -> None:
    base, other = (
        read_tokens({"name": "waveform", "sample_rate": 8000, **more})
        for more in ({}, {"num_filters": 8, "init": "mel", "stack": 2})
    )
    assert base.cached == other.cached


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "cochlea"}, "'cochlea'"),
        ({"name": "waveform", "n_mel": 3}, r"tokens\.n_mel is unknown; waveform has"),
        ({"stack": 0}, "stack must be at least 1"),
        ({"normalise": "speaker"}, "'speaker'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_tokens({"sample_rate": 8000, **settings})
    with pytest.raises(ConfigError, match="sample_rate is missing"):
        read_tokens({"name": "waveform"})
