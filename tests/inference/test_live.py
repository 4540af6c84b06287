"""Answers over a sound as it arrives: those of the whole sound, in any blocks."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from spaudio.audio.decode import load_audio
from spaudio.errors import AudioError, ConfigError
from spaudio.inference.live import StateStream, WindowStream, open_stream
from spaudio.inference.predict import Predictor
from spaudio.model.classifier import Classifier
from tests import RECIPES
from tests.fixtures.tiny_run import make_untrained_run

RATE = 8000
DIGITS = RECIPES / "fsdd" / "recordings"


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    """Three spoken digits, about 1 s."""
    names = ("0_george_0", "7_jackson_3", "3_theo_5")
    return np.concatenate([load_audio(DIGITS / f"{name}.flac", RATE) for name in names])


@pytest.fixture(scope="module")
def centred(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(make_untrained_run(tmp_path_factory.mktemp("runs"), "filter=bank"))


def causal(folder: Path, *overrides: str) -> Predictor:
    settings = ("model.causal=true", "filter=bank", "tokens=spectrogram", *overrides)
    return Predictor(make_untrained_run(folder, *settings))


def blocks(sound: np.ndarray, size: int) -> list[np.ndarray]:
    return np.split(sound, range(size, len(sound), size))


def test_learned_positions_that_a_state_would_exceed_give_windows(
    tmp_path: Path, sound: np.ndarray
) -> None:
    """A context is at most one window, rounded up to whole tokens."""
    positions = ["model.positions=learned", "model.max_tokens=20", "tokens.stack=4"]
    predictor = causal(tmp_path, *positions)
    most = predictor.most_seconds
    for window in (0.4, 0.5, most):
        stream = open_stream(predictor, window=window, hop=0.25)
        assert isinstance(stream, StateStream)
        assert len(list(stream([sound]))) > 2
    assert most > 0.5
    longest = Predictor(predictor.run, window=most)
    assert longest.probabilities([sound[: longest.windows.samples]]).shape[0] == 1
    assert list(WindowStream(predictor, most, 0.2)([sound]))
    with pytest.raises(ConfigError, match=f"window=9 s; this model takes at most {most:g} s"):
        Predictor(predictor.run, window=9)
    with pytest.raises(ConfigError, match=f"window=9 s; this model takes at most {most:g} s"):
        open_stream(predictor, window=9)


def test_windows_are_those_of_the_predictor(centred: Predictor, sound: np.ndarray) -> None:
    stream = open_stream(centred, window=0.5, hop=0.125)
    assert isinstance(stream, WindowStream)
    assert stream.how == (
        "overlapping windows of 0.5 s, one every 0.125 s (model.causal=false: not incrementally)"
    )
    heard = list(stream(blocks(sound, 333)))
    assert [one.start for one in heard[:3]] == [0, 0.125, 0.25]
    assert heard[-1].end == len(sound) / RATE
    for one in heard:
        part = sound[round(one.start * RATE) : round(one.end * RATE)]
        expected = centred.probabilities([part])[0].numpy()
        np.testing.assert_allclose(one.probabilities, expected, atol=1e-5)
    many = list(WindowStream(centred, 0.5, 0.125, batch=7)([sound]))
    assert [one.start for one in many] == [one.start for one in heard]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("tokens.stem=none", "tokens.stack=3", "model.pooling=attention"),
        ("tokens=waveform", "tokens.waveform.num_filters=20", "tokens.stem=none"),
    ],
)
def test_a_causal_model_ends_with_the_answer_to_the_whole_sound(
    overrides: tuple[str, ...], sound: np.ndarray, tmp_path: Path
) -> None:
    predictor = causal(tmp_path, *overrides)
    stream = open_stream(predictor, window=2.0, hop=0.16)
    assert isinstance(stream, StateStream)
    for size in (100, 1999, len(sound)):
        heard = list(stream(blocks(sound, size)))
        expected = predictor.probabilities([sound])[0].numpy()
        np.testing.assert_allclose(heard[-1].probabilities, expected, atol=1e-3)
        assert heard[-1].end == len(sound) / RATE
        assert heard[0].start == 0
    assert np.abs(heard[0].probabilities - expected).max() > 0.01  # answers change on the way
    for hop in (0.08, 0.16, 0.24):  # a window of just the sound's length
        *_, last = open_stream(predictor, window=len(sound) / RATE, hop=hop)(blocks(sound, 1999))
        assert last.start == 0
        np.testing.assert_allclose(last.probabilities, expected, atol=1e-3)


@pytest.mark.parametrize("several", [False, True])
def test_answers_of_a_causal_model_are_calibrated(
    several: bool, sound: np.ndarray, tmp_path: Path
) -> None:
    predictor = causal(tmp_path)
    predictor.inputs = replace(predictor.inputs, temperature=3.0, multi_label=several)
    *_, last = open_stream(predictor, window=2.0, hop=0.16)([sound])
    expected = predictor.probabilities([sound])[0].numpy()
    np.testing.assert_allclose(last.probabilities, expected, atol=1e-3)


def test_a_dc_offset_of_the_microphone_has_no_effect(sound: np.ndarray, tmp_path: Path) -> None:
    predictor = causal(tmp_path)
    for window in (2.0, 0.3):  # some samples are no longer kept at the end
        stream = open_stream(predictor, window=window, hop=0.16)
        assert isinstance(stream, StateStream)
        expected = [one.probabilities for one in stream(blocks(sound, 500))]
        shifted = stream(blocks(sound + np.float32(0.1), 777))
        found = [one.probabilities for one in shifted]
        np.testing.assert_allclose(found, expected, atol=2e-3)


def test_contexts_of_a_causal_model_take_turns(sound: np.ndarray, tmp_path: Path) -> None:
    predictor = causal(tmp_path)
    stream = StateStream(predictor, window=0.32, hop=0.08)
    model = predictor.model
    assert isinstance(model, Classifier)
    heard = list(stream(blocks(sound, 500)))
    seconds = predictor.front_end.config.token_seconds
    x = stream._tokens(sound, None, 0, len(sound) // predictor.front_end.config.token_samples + 1)
    for one in heard[:-3]:
        start, end = round(one.start / seconds), round(one.end / seconds)
        assert 0.159 <= one.end - one.start <= 0.361 or start == 0  # rounded up to tokens
        with torch.inference_mode():
            outputs = model.encoder(x[:, start:end])
            expected = model.head(model.pooling(outputs)).softmax(dim=1)[0].numpy()
        np.testing.assert_allclose(one.probabilities, expected, atol=1e-3)
    assert max(one.start for one in heard) > 0.45


def test_a_causal_model_answers_after_its_delay(sound: np.ndarray, tmp_path: Path) -> None:
    stream = open_stream(causal(tmp_path), window=1.0, hop=0.04)
    given = []

    def arriving() -> object:
        for block in blocks(sound, 80):
            given.append(len(block) / RATE)
            yield block

    heard = [(sum(given), one.end) for one in stream(arriving()) if len(given) < len(sound) // 80]  # type: ignore[arg-type]
    assert heard[0][0] == pytest.approx(stream.first, abs=0.011)  # blocks of 10 ms
    late = [arrived - end for arrived, end in heard]
    assert max(late) + 0.04 == pytest.approx(stream.delay, abs=0.011)


def test_windows_answer_after_the_first_window_and_then_each_hop(
    centred: Predictor, sound: np.ndarray
) -> None:
    stream = open_stream(centred, window=0.5, hop=0.04)
    assert (stream.first, stream.delay) == (0.5, 0.04)
    heard = stream([sound])
    assert next(heard).end == pytest.approx(stream.first)
    assert next(heard).end == pytest.approx(stream.first + stream.delay)


def test_other_rates_are_resampled(centred: Predictor, tmp_path: Path) -> None:
    path = DIGITS / "5_theo_0.flac"
    wave, rate = soundfile.read(path, dtype="float32")
    doubled = soxr.resample(wave, rate, 2 * rate)
    stream = open_stream(centred, window=0.5)
    [first, *_] = stream([doubled], 2 * rate)
    [same, *_] = stream([load_audio(path, RATE)])
    np.testing.assert_allclose(first.probabilities, same.probabilities, atol=1e-3)


@pytest.mark.parametrize("how", ["state", "windows"])
def test_blocks_are_checked_as_arrays(
    how: str, centred: Predictor, sound: np.ndarray, tmp_path: Path
) -> None:
    predictor = causal(tmp_path) if how == "state" else centred
    stream = open_stream(predictor, window=0.5)
    for rate in (None, RATE, 2 * RATE):
        single, double = (
            list(stream([sound.astype(kind)], rate)) for kind in (np.float32, np.float64)
        )
        assert len(single) == len(double)
        np.testing.assert_allclose(single[-1].probabilities, double[-1].probabilities, atol=1e-5)
        for bad, said in (
            (np.stack([sound, sound], axis=1), r"shape \(\d+, 2\)"),
            ((sound * 32_767).astype(np.int16), "type int16"),
            (np.where(sound == sound.max(), np.nan, sound), "not finite"),
        ):
            with pytest.raises(AudioError, match=said):
                list(stream([sound[:100], bad], rate))
    for rate in (-5, 0):
        with pytest.raises(ConfigError, match=f"sample_rate={rate}; expected"):
            stream([sound], rate)


@pytest.mark.parametrize("how", ["state", "windows"])
def test_silence_is_no_class(
    how: str, centred: Predictor, sound: np.ndarray, tmp_path: Path
) -> None:
    predictor = causal(tmp_path) if how == "state" else centred
    stream = open_stream(predictor, window=0.4, hop=0.1)
    quiet = np.full(RATE, 0.1, np.float32)
    heard = list(stream(blocks(np.concatenate([sound, quiet]), 333)))
    alone = list(stream(blocks(sound, 333)))
    assert all(one.label in one.classes for one in alone)
    for one, same in zip(heard[:5], alone, strict=False):
        np.testing.assert_allclose(one.probabilities, same.probabilities, atol=1e-5)
    for one in heard:
        start, end = (round(t * RATE) for t in (one.start, one.end))
        silent = start >= len(sound)
        assert (one.label == "_silence_") == silent, (start, end)
        assert (one.confidence == 0) == silent
        assert one.decision(1.1) == ("_silence_" if silent else "unsure")
    assert heard[-1].label == "_silence_"
    assert {one.label for one in stream([quiet[:3000]])} == {"_silence_"}


def test_windows_and_hops_of_no_use_are_named(centred: Predictor, tmp_path: Path) -> None:
    for window, hop in ((0.5, 0.6), (0.5, 0.0), (0.5, -1), (float("nan"), 0.1), (0.5, 1e-5)):
        with pytest.raises(ConfigError, match="hop="):
            open_stream(centred, window, hop)
    long = causal(tmp_path / "long")
    assert isinstance(open_stream(long, 0.3), StateStream)
    how = open_stream(long, 0.5, 0.5).how
    assert "hop=0.5 s is more than half of window=0.5 s" in how
    for setting in (
        "tokens.normalise=clip_level", "tokens.spectrogram.scaling=pcen",
        "tokens.spectrogram.top_db=45",
    ):  # fmt: skip
        found = causal(tmp_path / setting[-4:], setting)  # they look back to the start of the sound
        assert f"{setting}: not incrementally" in open_stream(found).how


@pytest.mark.parametrize(("window", "hop"), [(0.5, 0.25), (0.4, 0.2), (0.32, 0.08)])
def test_no_context_is_longer_than_the_window(
    window: float, hop: float, sound: np.ndarray, tmp_path: Path
) -> None:
    stream = StateStream(causal(tmp_path), window=window, hop=hop)
    token = stream.config.token_seconds
    heard = list(stream(blocks(sound, 500)))
    assert all(two.start <= one.end for one, two in pairwise(heard))  # no sound is left out
    spans = [one.end - one.start for one in heard]
    assert max(spans) <= window + token + 1e-9
    assert min(span for span in spans[round(window / hop) :]) > window / 2 - token
