from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from spaudio.audio import decode, load_audio, probe, stream_audio
from spaudio.audio import decode as decode_function
from spaudio.errors import AudioError, ConfigError
from tests.fixtures.tiny_audio import RATE, make_bad_clips, tone


@pytest.fixture(scope="module")
def bad_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("bad")
    return folder, make_bad_clips(folder)


def sine(frequency: float, rate: int, seconds: float = 1.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_a_bad_clip_is_named_with_its_reason(bad_clips: tuple[Path, dict[str, str]]) -> None:
    folder, reasons = bad_clips
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason) as caught:
            load_audio(folder / name)
        assert str(caught.value).startswith(f"{folder / name}: ")
        with pytest.raises(AudioError, match=reason):
            list(stream_audio(folder / name, 16000))


def test_missing_folder_and_headerless(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="not a file"):
        load_audio(tmp_path)
    (tmp_path / "a.raw").write_bytes(b"1234" * 100)
    with pytest.raises(AudioError, match="not audio"):
        load_audio(tmp_path / "a.raw")


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_lossless_formats_come_back_to_a_quantisation_step(tmp_path: Path, suffix: str) -> None:
    wave = tone(2, np.random.default_rng(0))
    soundfile.write(tmp_path / f"a.{suffix}", wave, RATE, subtype="PCM_16")
    decoded, rate = decode(tmp_path / f"a.{suffix}")
    assert rate == RATE
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, wave, atol=1.01 / 2**15)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_formats_keep_the_signal(tmp_path: Path, suffix: str) -> None:
    wave = sine(440, 16000)
    soundfile.write(tmp_path / f"a.{suffix}", wave, 16000)
    decoded = load_audio(tmp_path / f"a.{suffix}")
    assert abs(len(decoded) - len(wave)) <= 2304
    spectrum = np.abs(np.fft.rfft(decoded[:16000]))
    assert np.argmax(spectrum) == pytest.approx(440, abs=2)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = sine(300, 8000), sine(700, 8000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-6)
    soundfile.write(tmp_path / "b.wav", np.stack([left, -left], 1), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="silent"):
        load_audio(tmp_path / "b.wav")


def test_longer_than_one_block(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).uniform(-1, 1, 200_001).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav"), wave)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
def test_resampling_keeps_a_tone_in_time_and_level(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(1000, 44100), 44100, subtype="FLOAT")
    resampled = load_audio(tmp_path / "a.wav", rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == rate
    edge = rate // 10
    np.testing.assert_allclose(resampled[edge:-edge], sine(1000, rate)[edge:-edge], atol=1e-4)


def test_resampling_does_not_alias(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(6000, 44100), 44100, subtype="FLOAT")
    resampled = load_audio(tmp_path / "a.wav", 8000)
    assert np.abs(resampled[800:-800]).max() < 0.5 * 10 ** (-80 / 20)


def test_rates_out_of_range_and_too_short_to_resample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.5, -0.5], 44100)
    with pytest.raises(ConfigError, match="sample_rate=0"):
        load_audio(tmp_path / "a.wav", 0)
    with pytest.raises(AudioError, match="leave none at 1000 Hz"):
        load_audio(tmp_path / "a.wav", 1000)


@pytest.mark.parametrize(("steps", "silent"), [(1, True), (3, False)])
def test_silence_begins_above_one_step_of_16_bits(tmp_path: Path, steps: int, silent: bool) -> None:
    wave = np.zeros(8000, np.int16)
    wave[::2] = steps
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    if silent:
        with pytest.raises(AudioError, match="silent"):
            decode(tmp_path / "a.wav")
    else:
        assert len(decode(tmp_path / "a.wav")[0]) == 8000


def with_data_size(path: Path, size: int) -> None:
    """Declares another size of a WAV's samples, in bytes."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"data") + 4, size)
    path.write_bytes(content)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_written_to_a_pipe_is_whole(tmp_path: Path, size: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    with_data_size(tmp_path / "a.wav", size)
    assert len(load_audio(tmp_path / "a.wav")) == 8000


def test_headers_that_declare_too_much_are_refused_without_allocating(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    with_data_size(tmp_path / "a.wav", 1_000_000_000)
    soundfile.write(tmp_path / "a.flac", sine(440, 8000), 8000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    # STREAMINFO: the number of samples is the low 36 bits of the 8 bytes at offset 18.
    (word,) = struct.unpack_from(">Q", content, 18)
    assert word & (2**36 - 1) == 8000
    struct.pack_into(">Q", content, 18, word | (2**36 - 1))
    (tmp_path / "a.flac").write_bytes(content)
    assert probe(tmp_path / "a.flac").seconds > 1e6
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="truncated"):
            decode(tmp_path / "a.wav")
        with pytest.raises(AudioError, match=r"truncated|damaged"):
            decode(tmp_path / "a.flac")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_clip_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[decode_function.__module__]
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    monkeypatch.setattr(module, "MAX_SECONDS", 0.99)
    with pytest.raises(AudioError, match=r"longer than 0\.99 s"):
        decode(tmp_path / "a.wav")


def test_probe_tells_what_the_header_declares(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((4410, 2)), 44100)
    info = probe(tmp_path / "a.flac")
    assert (info.seconds, info.sample_rate, info.channels, info.format) == (0.1, 44100, 2, "FLAC")


def test_audio_needs_no_torch() -> None:
    code = "import sys, spaudio.audio; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 8000), (16000, 11025), (22050, 8000)])
def test_a_stream_is_what_is_loaded_to_the_bit(tmp_path: Path, rate: int, wanted: int) -> None:
    path = tmp_path / "long.wav"
    noise = np.random.default_rng(0).standard_normal((150_001, 2)) * 0.1
    soundfile.write(path, noise, rate)
    pieces = list(stream_audio(path, wanted))
    assert len(pieces) > 1
    assert np.array_equal(np.concatenate(pieces), load_audio(path, wanted))


def test_a_stream_may_be_longer_than_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "long.wav", sine(440, 8000, 2.0), 8000)
    monkeypatch.setattr(sys.modules["spaudio.audio.decode"], "MAX_SECONDS", 1.0)
    with pytest.raises(AudioError, match="longer than 1 s"):
        load_audio(tmp_path / "long.wav")
    assert sum(map(len, stream_audio(tmp_path / "long.wav", 8000))) == 16000
