"""Classifies live sound: from a microphone, or from a file that is played in real time."""

import os
import queue
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spaudio.audio.decode import Waveform, probe, stream_audio
from spaudio.errors import AudioError, ConfigError, how_to_install
from spaudio.inference.live import Heard, Stream

BLOCK_SECONDS = 0.05  # of a block of samples; shorter ones give predictions sooner and cost more
_BEHIND = 2.0  # seconds of sound that may wait before a warning


@dataclass
class Source:
    """A source of live sound.

    Args:
        blocks: Mono waveforms (samples,), each yielded when its last sample has been heard.
        sample_rate: Their rate in Hz.
        name: Name of the source.
    """

    blocks: Generator[Waveform, None, None]
    sample_rate: int
    name: str


def play_file(path: Path, sample_rate: int) -> Source:
    """Yields a file's samples at the time when they would be heard if it were played.

    Args:
        path: Audio file of any format.
        sample_rate: Desired rate, in Hz.

    Raises:
        AudioError: If the file cannot be opened; later, if it is damaged.
    """
    probe(path)

    def blocks() -> Generator[Waveform, None, None]:
        size, start, played = round(BLOCK_SECONDS * sample_rate), time.perf_counter(), 0
        for piece in stream_audio(path, sample_rate, silent_ok=True):
            for block in np.split(piece, range(size, len(piece), size)):
                played += len(block)
                wait = played / sample_rate - (time.perf_counter() - start)
                if wait > 0:
                    time.sleep(wait)
                yield block

    return Source(blocks(), sample_rate, os.fspath(path))


def open_microphone(device: str | None, sample_rate: int, warn: Callable[[str], None]) -> Source:
    """Opens a microphone with PortAudio, at the desired rate or else at its own.

    Args:
        device: Number or partial name of an input device; None is the system's default.
        sample_rate: Desired rate, in Hz.
        warn: Called with warnings about lost or delayed sound.

    Raises:
        ConfigError: If sounddevice or PortAudio is missing, or there is no such device; later, if
            it does not start.
        AudioError: Later, if the device stops, such as one that is unplugged.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio's library is missing
        raise ConfigError(
            f"a microphone needs sounddevice and PortAudio ({error}): "
            f"{how_to_install('microphone')} (Linux: and the system's package libportaudio2), or "
            "listen to a file with --file"
        ) from error
    chosen = int(device) if device is not None and device.isdecimal() else device
    try:
        info: dict[str, Any] = sounddevice.query_devices(chosen, "input")
        try:
            sounddevice.check_input_settings(chosen, channels=1, samplerate=sample_rate)
            rate = sample_rate
        except sounddevice.PortAudioError:
            rate = int(info["default_samplerate"])
        arrived: queue.SimpleQueue[Waveform] = queue.SimpleQueue()
        lost: list[str] = []

        def heard(samples: Any, frames: int, times: Any, status: Any) -> None:
            if status:
                lost.append(str(status))
            arrived.put(samples[:, 0].copy())

        stream = sounddevice.InputStream(
            samplerate=rate, blocksize=round(BLOCK_SECONDS * rate), device=chosen, channels=1,
            dtype="float32", callback=heard,
        )  # fmt: skip
    except (sounddevice.PortAudioError, ValueError) as error:
        raise ConfigError(
            f"no input device {'' if device is None else repr(device)} ({error}); `python -m "
            "sounddevice` lists them, and --file listens to a file"
        ) from error

    def blocks() -> Generator[Waveform, None, None]:
        late = False
        with closing(stream):
            try:
                stream.start()
            except sounddevice.PortAudioError as error:
                raise ConfigError(
                    f"{info['name']} does not start ({error}); close other programs that use it, "
                    "name another --device, or listen to a file with --file"
                ) from error
            while True:
                try:
                    block = arrived.get(timeout=1)
                except queue.Empty:
                    if stream.active:  # but slow
                        continue
                    raise AudioError(
                        f"{info['name']} gives no more sound; connect it again, or name another "
                        "--device"
                    ) from None
                yield block
                waiting = arrived.qsize() * BLOCK_SECONDS
                if waiting > _BEHIND and not late:
                    warn(f"predictions are {waiting:.1f} s behind the sound; give a longer --hop")
                late = waiting > _BEHIND
                if lost:
                    warn(f"sound was lost ({lost[0]})")
                    lost.clear()

    return Source(blocks(), rate, str(info["name"]))


def listen(
    stream: Stream, source: Source, say: Callable[[Heard], None], warn: Callable[[str], None]
) -> None:
    """Reports predictions until the source ends or Ctrl-C is pressed.

    Args:
        stream: Stream of the model.
        source: Source of the sound.
        say: Called with each prediction.
        warn: Called with remarks on how predictions are computed and how late they are.
    """
    warn(
        f"listening to {source.name} ({source.sample_rate:,} Hz): {stream.how}; the first "
        f"prediction comes after {stream.first:.2f} s of sound, later ones lag by at most "
        f"{stream.delay:.2f} s, plus the computing time"
    )
    took: list[float] = []
    asked = time.perf_counter()

    def timed() -> Generator[Waveform, None, None]:
        nonlocal asked
        for block in source.blocks:
            asked = time.perf_counter()
            yield block

    with closing(source.blocks):
        try:
            for heard in stream.answers(timed(), source.sample_rate):
                took.append(time.perf_counter() - asked)
                say(heard)
                asked = time.perf_counter()
        except KeyboardInterrupt:
            pass
    if took:
        warn(
            f"{len(took)} prediction{'s' * (len(took) > 1)}; computing one took "
            f"{statistics.median(took) * 1000:.0f} ms (median), {max(took) * 1000:.0f} ms at most"
        )
