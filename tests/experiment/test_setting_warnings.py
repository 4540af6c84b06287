"""What is allowed but probably not meant is warned of, before training."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from spaudio.audio.manifest import Clip
from spaudio.experiment.compose import compose
from spaudio.experiment.settings import AudioSettings, TextSettings
from spaudio.experiment.tasks.setting_warnings import (
    long_kernels,
    overruled,
    overruled_audio,
    quiet_recordings,
    slow_clips,
    unshifted_excerpts,
    untrained_positions,
)
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.tokens.make_front_end import make_front_end
from tests import RECIPES
from tests.fixtures.own_sounds import RECORDINGS


def audio(*given: str) -> AudioSettings:
    settings = compose(RECIPES / "folder", ["source=x", *given])
    assert isinstance(settings, AudioSettings)
    return settings


def warnings_of(*given: str, unused: tuple[str, ...] = ()) -> list[str]:
    """Warnings about settings of a recipe whose data are 10 batches."""
    data: Any = SimpleNamespace(
        held_out=True,
        prepared=SimpleNamespace(unused=unused),
        train=SimpleNamespace(augment=SimpleNamespace(ignored=())),
        front_end=SimpleNamespace(nats=None),
    )
    return list(overruled_audio(audio(*given), data, 10))


def test_clips_without_the_upper_bands() -> None:
    def clips(*rates: int) -> list[Clip]:
        return [Clip(f"{i}.wav", "a", "train", "g", 1.0, rate) for i, rate in enumerate(rates)]

    [said] = slow_clips(audio(), clips(8000, 44100, 11025))
    for part in ("2 of 3 clips", "lowest rate 8000 Hz", "may tell them apart",
                 ". Give tokens.f_max=4000, or give tokens.sample_rate=8000"):  # fmt: skip
        assert part in said
    [said] = slow_clips(audio(), clips(8000, 8000))
    assert "tell them apart" not in said
    assert not list(slow_clips(audio("tokens.f_max=4000"), clips(8000, 44100)))
    [said] = slow_clips(audio("model=pretrained", "model.source=a/b"), clips(8000))
    assert "tokens.f_max" not in said
    # One clip among many is named, and no value is suggested that the front-end refuses.
    [said] = slow_clips(audio(), clips(44100, 1000, 44100))
    assert said.endswith("so a model may tell them apart by this. Leave out 1.wav")
    whole = Clip("b.wav", "b", "train", "g", 1.0, 1000)  # the only clip of a class
    [said] = slow_clips(audio(), [*clips(44100, 44100), whole])
    assert said.endswith("so a model may tell them apart by this")


@pytest.mark.parametrize(("given", "epochs"), [("epochs=3", 250), ("max_epochs=30", 150)])
def test_epochs_that_are_prolonged(given: str, epochs: int) -> None:
    [said] = warnings_of(f"trainer.{given}")
    assert f"trainer.min_steps=4000 prolongs trainer.{given} to {epochs} epochs" in said


def test_epochs_that_are_limited() -> None:
    [said] = warnings_of("trainer.min_steps=8000")
    for part in ("trainer.max_epochs=250 ends the run after 250 epochs", "2,500 steps, fewer than",
                 "give trainer.max_epochs=800"):  # fmt: skip
        assert part in said
    [said] = warnings_of("trainer.max_epochs=10", "trainer.epochs=200")
    assert "trainer.max_epochs=10 limits only the epochs that trainer.min_steps adds" in said


def test_clips_that_have_none_to_be_mixed_with() -> None:
    [said] = warnings_of("trainer.batch_size=8", "trainer.accumulate=8")
    assert "augment.mixup, augment.cutmix, augment.mixstyle have no effect" in said
    assert not warnings_of("trainer.batch_size=9", "trainer.accumulate=8")
    adapted = ("model=pretrained", "model.source=a/b", "trainer.batch_size=8")
    said = warnings_of(*adapted, "trainer.accumulate=8", "adapt=lora")
    assert any("augment.mixup, augment.cutmix have no effect" in one for one in said)
    assert not any("have no effect" in one for one in warnings_of(*adapted, "trainer.accumulate=8"))


def test_excerpts_are_not_shifted() -> None:
    given = audio("augment.time_shift=0.2")
    shortest = given.augment.crop / (1 - given.augment.tempo)
    assert [*unshifted_excerpts(given, shortest + 0.01)]
    assert not [*unshifted_excerpts(given, shortest - 0.01)]
    assert not [*unshifted_excerpts(audio(), 99)]
    whole = ("model=pretrained", "model.source=a/b", "adapt=full", "augment.crop=0.1")
    assert not [*unshifted_excerpts(audio(*whole, "augment.time_shift=0.2"), 99)]


def test_settings_of_a_split_that_the_data_have() -> None:
    [said] = warnings_of("test_fraction=0.5", unused=("test_fraction", "split_seed"))
    assert said == "the data are split already, so test_fraction has no effect"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["tokens.stem=none", "tokens.stem_channels=[8,8]"], "tokens.stem_channels .* a stem"),
        (["tokens=waveform", "tokens.spectrogram.n_mels=80"], "n_mels .* with tokens=waveform"),
        (["filter=none", "model.filter_layers=[0]"], "model.filter_layers .* with filter=none"),
        (["pretrain.steps=500"], "pretrain.steps has no effect without pretrain=masked"),
        (["model.max_tokens=50"], "max_tokens has no effect without model.positions=learned"),
        (["tokens.spectrogram.pcen.gain=0.9"], "pcen.gain has .* without .*scaling=pcen"),
        (
            ["augment=sounds", "tokens=spectrogram", "tokens.spectrogram.scaling=pcen"],
            "mixup_power=true has no effect: it needs",
        ),
        (
            ["tokens=waveform", "tokens.waveform.init=random", "tokens.f_min=60"],
            "f_min has no effect with tokens.waveform.init=random",
        ),
        (
            ["tokens=waveform", "tokens.waveform.init=random", "tokens.f_max=3000"],
            "f_max has no effect with tokens.waveform.init=random",
        ),
        (["augment.time_masks=0", "augment.time_mask=0.1"], "time_mask .* without .*time_masks"),
        (["augment.mel_masks=0", "augment.mel_mask=4"], "mel_mask .* without .*mel_masks"),
        (["augment=none", "augment.time_masks=2"], "time_masks .* without augment.time_mask$"),
        (["augment=none", "augment.mel_masks=2"], "mel_masks .* without augment.mel_mask$"),
        (["augment.mixup=0", "augment.mixup_power=true"], "mixup_power .* without augment.mixup$"),
        (["cluster_options.timeout_min=5"], "timeout_min has no effect without cluster=slurm"),
    ],
)
def test_settings_that_another_one_overrules(given: list[str], said: str) -> None:
    [warning] = warnings_of(*given)
    assert re.search(said, warning)


def test_settings_of_a_text() -> None:
    given = ["trainer.max_epochs=5", "model.filter_place=attention"]
    settings = compose(RECIPES / "text8", given)
    assert isinstance(settings, TextSettings)
    assert list(overruled(settings, 10)) == [
        "trainer.max_epochs has no effect with trainer.min_steps=0",
        "model.filter_place has no effect with filter=none",
    ]


def test_kernels_longer_than_all_clips() -> None:
    for kernel_size, causal in ((9, True), (17, False), (16, False)):  # each reaches 8 tokens
        shape = EncoderConfig(dim=8, layers=1, heads=2, causal=causal)
        options = {"name": "bank", "num_filters": 2, "kernel_size": kernel_size}
        model = Classifier(3, 2, shape, options)
        [said] = long_kernels(model, 8)
        assert "filter=bank reach 8 tokens" in said
        assert "training sees at most 8 at a time" in said
        assert "augment.crop" not in said
        [said] = long_kernels(model, 8, crop=1.0)
        assert "longer excerpts (augment.crop)" in said
        assert not list(long_kernels(model, 9))
    assert not list(long_kernels(Classifier(3, 2, shape, {"name": "none"}), 1))


def test_positions_that_excerpts_do_not_reach() -> None:
    settings = audio("model.positions=learned", "augment.crop=2")
    [said] = untrained_positions(settings, 20, 25, 0.1)
    assert "at most 2.0 s at a time, but clips or segments last up to 2.5 s" in said
    assert "augment.crop=0 (now 2)" in said
    [said] = untrained_positions(audio("model.positions=learned", "augment.crop=0"), 20, 25, 0.1)
    assert said.endswith("Give model.positions=rotary")
    assert not list(untrained_positions(settings, 20, 20, 0.1))
    assert not list(untrained_positions(audio("augment.crop=2"), 20, 25, 0.1))


class Recorded(list[np.ndarray]):
    """Stands for a dataset: the frames of its items."""

    frames = list.__getitem__


def test_recordings_so_quiet_that_most_of_them_is_lost() -> None:
    waves = [soundfile.read(path)[0] for path in sorted(RECORDINGS.glob("*_theo_*.flac"))[::6]]

    def said(decibels: float, *given: str) -> list[str]:
        settings = audio("tokens.sample_rate=8000", *given)
        front_end = make_front_end(settings.tokens)
        quieter = [(wave * 10 ** (decibels / 20)).astype(np.float32) for wave in waves]
        frames = [front_end.restore(front_end.extract(wave)) for wave in quieter]
        train: Any = Recorded(frames)
        return list(quiet_recordings(settings, train))

    assert not said(0)
    [warning] = said(-40)
    assert "give tokens.spectrogram.log_offset=1e-10" in warning
    assert not said(-40, "tokens.spectrogram.log_offset=1e-10")
    assert not said(-40, "tokens=spectrogram", "tokens.spectrogram.scaling=pcen")
    assert not said(-20, "tokens=waveform")
    [warning] = said(-60, "tokens=waveform")
    assert re.search(r"square of [0-9]\.\d steps of 16-bit samples", warning)
