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
from spaudio.errors import AudioError, ConfigError


def test_foreign_formats_say_how_to_convert(tmp_path: Path) -> None:
    for suffix in ("m4a", "AAC", "mp4", "wma", "webm", "amr", "mka", "m4b", "mkv", "mov"):
        file = tmp_path / f"my clip.{suffix}"
        file.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
        command = "ffmpeg -i 'my clip." + suffix + "' 'my clip.flac'"
        with pytest.raises(AudioError, match=r"remove the original from a dataset.*") as refused:
            decode(file)
        assert str(refused.value).endswith(command)
    file = tmp_path / "a.wav"
    file.write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"not audio that can be decoded \([^;]*\)$"):
        decode(file)


def sine(frequency: float, rate: int, seconds: float = 1.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_a_missing_clip_is_prepared_again_but_a_file_is_not(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"no such file; check the path or prepare again$"):
        load_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"no such file; check the path$"):
        list(stream_audio(tmp_path / "gone.wav", 8000))


def test_a_folder_and_a_headerless_file_are_no_audio(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="not a file"):
        load_audio(tmp_path)
    (tmp_path / "a.raw").write_bytes(b"1234" * 100)
    with pytest.raises(AudioError, match="not audio"):
        load_audio(tmp_path / "a.raw")


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "ogg", "mp3"])
def test_formats_keep_the_signal(tmp_path: Path, suffix: str) -> None:
    wave = sine(440, 16000)
    soundfile.write(tmp_path / f"a.{suffix}", wave, 16000)
    decoded, rate = decode(tmp_path / f"a.{suffix}")
    assert (rate, decoded.dtype.name) == (16000, "float32")
    if suffix in ("ogg", "mp3"):
        assert abs(len(decoded) - len(wave)) <= 2304
        spectrum = np.abs(np.fft.rfft(decoded[:16000]))
        assert np.argmax(spectrum) == pytest.approx(440, abs=2)
    else:  # to a quantisation step
        np.testing.assert_allclose(decoded, wave, atol=1.01 / 2**15)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = sine(300, 8000), sine(700, 8000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_resampling_keeps_a_tone_in_time_and_level(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(1000, 44100), 44100, subtype="FLOAT")
    resampled = load_audio(tmp_path / "a.wav", rate)
    assert resampled.dtype == np.float32
    assert len(resampled) == rate
    edge = rate // 10
    np.testing.assert_allclose(resampled[edge:-edge], sine(1000, rate)[edge:-edge], atol=1e-4)
    if rate == 8000:  # a tone above half the rate leaves nothing
        soundfile.write(tmp_path / "b.wav", sine(6000, 44100), 44100, subtype="FLOAT")
        assert np.abs(load_audio(tmp_path / "b.wav", rate)[800:-800]).max() < 0.5e-4


def test_rates_out_of_range_and_too_short_to_resample(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", [0.5, -0.5], 44100)
    with pytest.raises(ConfigError, match="sample_rate=0"):
        load_audio(tmp_path / "a.wav", 0)
    with pytest.raises(AudioError, match="leave none at 1000 Hz"):
        load_audio(tmp_path / "a.wav", 1000)


def test_silence_begins_above_one_step_of_16_bits(tmp_path: Path) -> None:
    wave = np.zeros(8000, np.int16)
    wave[::2] = 3
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    assert len(decode(tmp_path / "a.wav")[0]) == 8000
    soundfile.write(tmp_path / "a.wav", wave // 3, 8000)
    with pytest.raises(AudioError, match=r"silent .*less than -90 dBFS\); leave the clip out"):
        decode(tmp_path / "a.wav")


def test_channels_that_cancel_are_named(tmp_path: Path) -> None:
    wave = sine(440, 8000)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, -wave], 1), 8000)
    with pytest.raises(AudioError, match="dBFS after averaging its channels, which may cancel"):
        decode(tmp_path / "a.wav")


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


@pytest.mark.parametrize("size", [0x7E000000, 0x90000000, 0xF0000000])
def test_a_wav_of_gigabytes_that_was_cut_is_refused(tmp_path: Path, size: int) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    with_data_size(tmp_path / "a.wav", size)
    with pytest.raises(AudioError, match=f"truncated .header declares {size} bytes"):
        load_audio(tmp_path / "a.wav")


def test_a_flac_written_to_a_pipe_says_how_to_repair_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", sine(440, 8000), 8000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    (word,) = struct.unpack_from(">Q", content, 18)  # STREAMINFO, as below
    struct.pack_into(">Q", content, 18, word & ~(2**36 - 1))
    (tmp_path / "a.flac").write_bytes(content)
    for read in (decode, probe):
        with pytest.raises(AudioError, match=r"does not give its length.*ffmpeg -i"):
            read(tmp_path / "a.flac")


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
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    monkeypatch.setattr(sys.modules["spaudio.audio.decode"], "MAX_SECONDS", 0.99)
    with pytest.raises(AudioError, match=r"longer than 0\.99 s"):
        decode(tmp_path / "a.wav")
    assert sum(map(len, stream_audio(tmp_path / "a.wav", 8000))) == 8000  # a stream may be longer


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


def test_a_file_has_at_most_eight_channels(tmp_path: Path) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal((800, 9))
    soundfile.write(tmp_path / "8.wav", wave[:, :8], 8000)
    soundfile.write(tmp_path / "9.wav", wave, 8000)
    assert len(decode(tmp_path / "8.wav")[0]) == 800
    with pytest.raises(AudioError, match="9 channels; at most 8"):
        decode(tmp_path / "9.wav")


def test_a_file_of_too_many_samples_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.wav", sine(440, 8000), 8000)
    monkeypatch.setattr(sys.modules["spaudio.audio.decode"], "MAX_SAMPLES", 7999)
    with pytest.raises(AudioError, match="7999 samples"):
        decode(tmp_path / "a.wav")
