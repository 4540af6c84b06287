from collections import Counter
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from spaudio.audio.decode import Waveform
from spaudio.audio.manifest import Clip
from spaudio.report import floor
from spaudio.report.floor import (
    FloorFeatures,
    _choose,
    _single_label_floor,
    measure_floor,
    summarise,
)
from spaudio.tokens.config import SpectrogramConfig, TokenConfig
from spaudio.tokens.front_end import open_cache
from spaudio.tokens.spectrogram_front_end import SpectrogramFrontEnd


@pytest.mark.parametrize("length", [9, 43])
def test_summary_equals_librosas_mfcc_and_delta(length: int) -> None:
    frames = np.random.default_rng(length).normal(-5, 3, size=(length, 40)).astype(np.float32)
    found = summarise(frames)
    mfcc = librosa.feature.mfcc(S=frames.T, n_mfcc=20)
    delta = librosa.feature.delta(mfcc, width=9)
    assert found.shape == (2 * 40 + 20 + 8 * 20,)
    np.testing.assert_allclose(found[:40], frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[40:80], frames.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found[80:100], delta.std(axis=1), rtol=1e-4, atol=1e-5)
    first = mfcc[:, : int(length / 8)].mean(axis=1)
    np.testing.assert_allclose(found[100:120], first, rtol=1e-4, atol=1e-4)


def test_the_shortest_clips_have_a_finite_summary() -> None:
    for length in range(1, 9):
        assert np.isfinite(summarise(np.ones((length, 40), dtype=np.float32))).all()


@pytest.mark.parametrize(
    ("rate", "bands"), [(1000, 20), (1300, 20), (1301, 40), (8000, 40), (16000, 64)]
)
def test_bands_follow_the_sample_rate(tmp_path: Path, rate: int, bands: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(2000)), rate)
    features = FloorFeatures(tmp_path / "features", rate)
    features.fill([tmp_path / "a.wav"])
    assert features.frames(tmp_path / "a.wav").shape == (1, 2 * bands + 20 + 160)


def test_the_frames_of_a_store_of_the_same_settings_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    extract = SpectrogramFrontEnd.extract

    def count(
        front_end: SpectrogramFrontEnd, waveform: Waveform, offset: float | None = None
    ) -> npt.NDArray[np.float16]:
        calls.append(len(waveform))
        return extract(front_end, waveform, offset)

    monkeypatch.setattr(SpectrogramFrontEnd, "extract", count)
    rng = np.random.default_rng(0)
    waveforms = {str(n): rng.standard_normal(n).astype(np.float32) for n in (900, 700)}
    alone = FloorFeatures(tmp_path, 8000)
    summaries = [alone.compute(wave, name).frames for name, wave in waveforms.items()]
    for bands, expected in ((40, 2), (41, 4)):
        spectrogram = SpectrogramConfig(n_mels=bands)
        front_end = SpectrogramFrontEnd(TokenConfig(sample_rate=8000, spectrogram=spectrogram))
        cache = open_cache(tmp_path, front_end)
        after = FloorFeatures(tmp_path, 8000, cache)
        calls.clear()
        for (name, wave), summary in zip(waveforms.items(), summaries, strict=True):
            cache.compute(wave, name)
            np.testing.assert_array_equal(after.compute(wave, name).frames, summary)
        assert len(calls) == expected
        cache.compute(waveforms["900"], "900")  # the frames of another clip than the next one
        found = after.compute(waveforms["700"], "700").frames
        np.testing.assert_array_equal(found, summaries[1])


def make_clips(folder: Path, number: int, tested: int) -> list[Clip]:
    """Clips with a low tone, a high one or both; the last ``tested`` are for the test."""
    rng = np.random.default_rng(0)
    time = np.arange(2400) / 8000
    clips = []
    for i in range(number):
        names = [["low"], ["high"], ["low", "high"]][i % 3]
        wave = sum(np.sin(2 * np.pi * {"low": 300, "high": 2500}[name] * time) for name in names)
        soundfile.write(folder / f"{i}.wav", 0.1 * wave + 0.01 * rng.normal(size=2400), 8000)
        split = "test" if i >= number - tested else "train"
        clips.append(Clip(f"{i}.wav", ",".join(names), split, "g", 0.3, 8000))
    return clips


def test_the_floor_is_scored_on_the_test_split_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(tmp_path, 45, 12)
    features = FloorFeatures(tmp_path / "features", 8000)
    classes = ("high", "low", "low,high")
    found = measure_floor(clips, classes, tmp_path, features)
    assert found["svm"] == 1.0
    assert found["majority"] == pytest.approx(1 / 3)
    assert "trained_on" not in found
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.svm.SVC", None)  # must not be fitted again
        assert measure_floor(clips, classes, tmp_path, features) == found
    [kept] = features.folder.glob("floor-*.jsonl")
    kept.write_bytes(kept.read_bytes().replace(b'"svm": 1.0', b'"svm": 2.0'))
    with pytest.warns(UserWarning, match="is damaged"):
        assert measure_floor(clips, classes, tmp_path, features)["svm"] == 1.0


def test_the_floor_knows_nothing_of_the_test_labels(tmp_path: Path) -> None:
    swapped = {"low": "high", "high": "low", "low,high": "high"}
    clips = [
        replace(clip, label=swapped[clip.label]) if clip.split == "test" else clip
        for clip in make_clips(tmp_path, 46, 12)
    ]
    clips = [clip for clip in clips if clip.split == "train" or clip.label == "high"]
    assert Counter(clip.label for clip in clips if clip.split == "train")["low"] == 12
    features, classes = FloorFeatures(tmp_path, 8000), ("high", "low", "low,high")
    found = measure_floor(clips, classes, tmp_path, features)
    assert (found["svm"], found["majority"]) == (0, 0)  # most of the training clips are low


def test_kept_scores_belong_to_labels_splits_samples_and_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []

    def fit(*given: np.ndarray) -> tuple[float, float]:
        fitted.append(len(given[0]))
        return 0.5, 0.5

    monkeypatch.setattr(floor, "_single_label_floor", fit)
    monkeypatch.setattr(floor, "_multi_label_floor", fit)
    clips = make_clips(tmp_path, 6, 2)
    features = FloorFeatures(tmp_path / "features", 8000)

    def measured(clips: list[Clip], multi_label: bool = False) -> int:
        """The number of fits so far, after the same measurement twice."""
        for _ in range(2):
            classes = ("high", "low", "low,high")
            measure_floor(clips, classes, tmp_path, features, multi_label=multi_label)
        return len(fitted)

    assert measured(clips) == 1
    assert measured([replace(clips[0], label="high"), *clips[1:]]) == 2
    swapped = [replace(clips[0], split="test"), *clips[1:5], replace(clips[5], split="train")]
    assert measured(swapped) == 3
    assert measured(clips, multi_label=True) == 4
    assert measured(clips[::-1]) == 4  # of the same clips in another order they stay
    wave, rate = soundfile.read(tmp_path / "0.wav")
    soundfile.write(tmp_path / "0.wav", 0.5 * wave, rate)
    assert measured(clips) == 5


def test_of_a_large_set_the_floor_learns_from_a_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = make_clips(tmp_path, 30, 6)
    monkeypatch.setattr("spaudio.report.floor.LARGEST", 10)
    features = FloorFeatures(tmp_path / "features", 8000)
    found = measure_floor(clips, ("high", "low", "low,high"), tmp_path, features)
    assert found["trained_on"] == 10
    # Nothing is computed for the clips that are left out.
    assert sum(features.lacks(f, f.stat()) for f in tmp_path.glob("*.wav")) == 14
    # The majority class is that of all training clips: here "low", but "high" among those in use.
    used = [clip.path for clip in _choose(clips) if clip.split != "test"]
    high = set(used[:6])
    clips = [replace(clip, label="high" if clip.path in high else "low") for clip in clips]
    assert measure_floor(clips, ("high", "low"), tmp_path, features)["majority"] == 1.0


def test_the_floor_learns_from_the_validation_split_too(tmp_path: Path) -> None:
    clips = [
        replace(clip, split="valid") if (clip.split, clip.label) == ("train", "low") else clip
        for clip in make_clips(tmp_path, 45, 12)
    ]
    features = FloorFeatures(tmp_path / "features", 8000)
    found = measure_floor(clips, ("high", "low", "low,high"), tmp_path, features)
    assert found["svm"] == 1.0  # "low" is in no training clip
    assert "trained_on" not in found


def test_the_floor_scales_its_features() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    loud_noise, quiet_signal = 1e4 * rng.standard_normal(200), y + 0.1 * rng.standard_normal(200)
    x = np.stack([loud_noise, quiet_signal], axis=1)
    assert _single_label_floor(x[:100], y[:100], x[100:], y[100:]) > 0.9


def test_the_floor_of_several_labels_is_a_mean_average_precision(tmp_path: Path) -> None:
    clips = make_clips(tmp_path, 60, 15)
    features = FloorFeatures(tmp_path / "features", 8000)
    found = measure_floor(clips, ("high", "low"), tmp_path, features, multi_label=True)
    assert found["majority"] == pytest.approx(2 / 3)  # the share of clips that have the class
    assert found["svm"] > 0.99
    swap = {"low": "high", "high": "low"}
    wrong = [
        replace(c, label=swap.get(c.label, c.label)) if c.split == "test" else c for c in clips
    ]
    found = measure_floor(wrong, ("high", "low"), tmp_path, features, multi_label=True)
    assert found["svm"] < 0.8
