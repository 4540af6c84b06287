"""Listening to a file as it plays, and to a device that gives its samples in a thread."""

import shutil
import sys
import threading
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spaudio.cli import main
from spaudio.errors import AudioError, ConfigError
from spaudio.experiment.inputs import Inputs
from spaudio.inference.listen import BLOCK_SECONDS, listen, open_microphone, play_file
from spaudio.inference.live import Heard, open_stream
from spaudio.inference.predict import Predictor
from tests.fixtures.own_sounds import RECORDINGS
from tests.fixtures.tiny_run import make_untrained_run

CLIP = RECORDINGS / "7_theo_3.flac"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_run(
        tmp_path_factory.mktemp("runs"), "model.causal=true", "filter=bank", "tokens=spectrogram"
    )


def test_a_file_gives_the_answers_of_its_samples(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    predictor = Predictor(run)
    stream = open_stream(predictor, window=1.0, hop=0.12)
    heard: list[Heard] = []
    said: list[str] = []
    listen(stream, play_file(CLIP, 8000), heard.append, said.append)
    wave = soundfile.read(CLIP, dtype="float32")[0]
    expected = list(stream([wave]))
    assert [one.end for one in heard] == [one.end for one in expected]
    np.testing.assert_allclose(heard[-1].probabilities, expected[-1].probabilities, atol=1e-5)
    assert "incrementally, with the causal model, every 0.12 s; the first prediction" in said[0]
    assert f"{len(heard)} predictions; computing one took" in said[1]


def test_a_file_plays_in_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    start, played = now[0], 0
    for block in play_file(CLIP, 8000).blocks:
        played += len(block)
        assert len(block) <= round(BLOCK_SECONDS * 8000)
        assert now[0] - start == pytest.approx(played / 8000)


class FakeAudio(types.ModuleType):
    """What is used of sounddevice: one device of 16 kHz, which plays a wave and then waits."""

    class PortAudioError(Exception):
        pass

    def __init__(self, wave: np.ndarray) -> None:
        super().__init__("sounddevice")
        self.wave, self.unplugged = wave, False
        outer = self

        class InputStream:
            def __init__(self, callback: Any, blocksize: int, **settings: Any) -> None:
                self.callback, self.size, self.active = callback, blocksize, True
                assert settings["samplerate"] == 16_000

            def start(self) -> None:
                if not len(outer.wave):
                    raise outer.PortAudioError("Device unavailable")
                blocks = np.split(outer.wave, range(self.size, len(outer.wave), self.size))

                def play() -> None:
                    for number, block in enumerate(blocks):
                        self.callback(block[:, None], len(block), None, "overflow" * (number == 2))
                    self.active = not outer.unplugged

                self.thread = threading.Thread(target=play)
                self.thread.start()

            def close(self) -> None:
                if len(outer.wave):
                    self.thread.join()

        self.InputStream = InputStream

    def query_devices(self, device: object, kind: str) -> dict[str, Any]:
        if device not in (None, 3):
            raise ValueError(f"No input device matching {device!r}")
        return {"name": "Fake", "default_samplerate": 16_000.0}

    def check_input_settings(self, device: object, *, channels: int, samplerate: int) -> None:
        if samplerate != 16_000:
            raise self.PortAudioError("Invalid sample rate")


def test_a_microphone_of_another_rate(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = soundfile.read(CLIP, dtype="float32")[0]
    doubled = np.repeat(wave, 2)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeAudio(doubled))
    stream = open_stream(Predictor(run), window=1.0, hop=0.12)
    expected = next(iter(stream([doubled], 16_000)))
    said: list[str] = []
    heard: list[Heard] = []

    def say(one: Heard) -> None:
        heard.append(one)
        raise KeyboardInterrupt  # as Ctrl-C

    listen(stream, open_microphone("3", 8000, said.append), say, said.append)
    np.testing.assert_allclose(heard[0].probabilities, expected.probabilities, atol=1e-4)
    assert said[0].startswith("listening to Fake (16,000 Hz)")
    assert f"first prediction comes after {stream.first:.2f} s of sound" in said[0]
    assert "sound was lost (overflow)" in said
    with pytest.raises(ConfigError, match=r"no input device 'x' \(No input device matching 'x'"):
        open_microphone("x", 8000, said.append)
    unplugged = FakeAudio(wave[:8000])  # half a second
    unplugged.unplugged = True
    monkeypatch.setitem(sys.modules, "sounddevice", unplugged)
    with pytest.raises(AudioError, match="Fake gives no more sound; connect it again"):
        listen(stream, open_microphone("3", 8000, said.append), say, said.append)
    monkeypatch.setitem(sys.modules, "sounddevice", FakeAudio(wave[:0]))
    with pytest.raises(ConfigError, match=r"Fake does not start \(Device unavailable\)"):
        listen(stream, open_microphone("3", 8000, said.append), say, said.append)


def test_the_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["listen", str(run), "--file", str(CLIP), "--hop", "0.2", "--unsure", "1"])
    out, err = capsys.readouterr()
    assert "sample rate" not in err
    soundfile.write(tmp_path / "low.wav", soundfile.read(CLIP)[0][::2], 4000)
    shutil.copytree(run, tmp_path / "run")
    replace(Inputs.load(run), lowest_rate=8000).save(tmp_path / "run")
    main(["listen", str(tmp_path / "run"), "--file", str(tmp_path / "low.wav"), "--hop", "0.2"])
    assert "low.wav has a sample rate of 4,000 Hz" in capsys.readouterr().err
    assert len(out.splitlines()) == 2
    assert all(line.endswith("  unsure") for line in out.splitlines())
    assert "incrementally, with the causal model" in err
    assert "or give a high --unsure" in err
    with pytest.raises(SystemExit, match=r"window=0\.1 s, hop=0\.2 s; expected"):
        main(["listen", str(run), "--file", str(CLIP), "--hop", "0.2", "--window", "0.1"])
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SystemExit, match=r"needs sounddevice .*\[microphone\].*--file"):
        main(["listen", str(run)])
