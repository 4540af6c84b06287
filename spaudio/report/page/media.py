"""Embeds clips in a page: MP3 and mel spectrograms as data URLs, within a size budget.

Every browser plays MP3, and at these lengths it is the smallest of the formats that libsndfile
writes.
"""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import soundfile
import torch

from spaudio.audio.decode import Waveform, decode, resample
from spaudio.errors import AudioError
from spaudio.report.figures.drawing import mel_bands
from spaudio.tokens.cache import one_thread
from spaudio.tokens.config import SpectrogramConfig, TokenConfig
from spaudio.tokens.logmel import LogMel

RATE = 16_000  # Hz of the sound in the page
SECONDS = 5.0  # for longer clips, the loudest part of this length is embedded
COLUMNS = 250  # most columns of a spectrogram
RANGE_DB = 80.0  # below the loudest point
BUDGET = 15 * 2**20  # bytes of all clips, as encoded in the page
MOST = 500  # clips; one of 5 s takes 25 ms
_HOPS = (0.0025, 0.005, 0.01, 0.02)  # seconds
_WINDOW = 0.032  # seconds
_PEAK = 0.7  # of every sound; the original peak is shown
_THREADS = 2
_TOGETHER = 32  # clips between two checks of the budget


@dataclass(frozen=True)
class Medium:
    """A clip in the page.

    Args:
        sound: Data URL of an MP3, or the address of the file relative to the page.
        picture: Data URL of the mel spectrogram; empty for a linked file.
        start: Second of the clip at which they start.
        seconds: Their length.
        peak: Peak level of the clip in dBFS; None if it is silent.
    """

    sound: str
    picture: str = ""
    start: float = 0.0
    seconds: float = 0.0
    peak: float | None = None

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.sound) + len(self.picture)


class Media:
    """The clips of a page: embedded as long as the budget lasts, then linked.

    Args:
        root: Folder that the clips' paths are relative to.
        page: Folder of the page.
        top: Highest frequency of the spectrograms, in Hz.
    """

    def __init__(self, root: Path, page: Path, top: float) -> None:
        self.root, self.page = root, page
        self.top = min(top, RATE / 2)
        self.budget = BUDGET  # what is left of it
        self.found: dict[str, Medium] = {}
        self.embedded = 0
        self._mels = {hop: _log_mel(hop, self.top) for hop in _HOPS}

    def embed(self, paths: Iterable[str]) -> None:
        """Embeds clips in this order, and links those that exceed the budget."""
        wanted = [path for path in dict.fromkeys(paths) if path not in self.found]
        with ThreadPoolExecutor(_THREADS) as pool, one_thread():
            for start in range(0, len(wanted), _TOGETHER):
                part = wanted[start : start + _TOGETHER]
                full = self.budget <= 0 or self.embedded >= MOST
                made = map(self._link, part) if full else pool.map(self._make, part)
                for path, medium in zip(part, made, strict=True):
                    if medium.size > self.budget or self.embedded >= MOST or not medium.picture:
                        self.found[path] = self._link(path)
                        continue
                    self.found[path] = medium
                    self.budget -= medium.size
                    self.embedded += 1

    def link(self, paths: Iterable[str]) -> None:
        """Links clips that are not embedded."""
        for path in paths:
            if path not in self.found:
                self.found[path] = self._link(path)

    def _link(self, path: str) -> Medium:
        address = os.path.relpath((self.root / path).resolve(), self.page.resolve())
        return Medium(quote(Path(address).as_posix()))

    def _make(self, path: str) -> Medium:
        try:
            return make_medium(*decode(self.root / path, silent_ok=True), self._mels)
        except AudioError:  # it was removed or changed since the run
            return self._link(path)


def make_medium(waveform: Waveform, rate: int, mels: dict[float, LogMel]) -> Medium:
    """Encodes a clip.

    Args:
        waveform: (samples,).
        rate: In Hz.
        mels: A spectrogram transform for each hop, in seconds.
    """
    silent = not waveform.any()
    peak = 1.0 if silent else float(np.abs(waveform).max())
    start = loudest(waveform, round(SECONDS * rate))
    part = waveform[start : start + round(SECONDS * rate)]
    sound = resample(part * (_PEAK / peak), rate, RATE, "clip")
    seconds = len(sound) / RATE
    hop = next((hop for hop in _HOPS if seconds / hop < COLUMNS), _HOPS[-1])
    return Medium(
        _encode(sound),
        _draw(mels[hop], sound),
        start / rate,
        seconds,
        None if silent else 20 * float(np.log10(peak)),
    )


def loudest(waveform: Waveform, length: int) -> int:
    """Returns the sample at which the part of a waveform with the highest power begins.

    Args:
        waveform: (samples,).
        length: Samples of the part. A waveform that is no longer is one part.
    """
    if len(waveform) <= length:
        return 0
    power = np.cumsum(np.square(waveform, dtype=np.float64))
    before = np.append(0, power)  # the power before each sample
    return int(np.argmax(before[length:] - before[:-length]))


def picture_url(values: npt.NDArray[Any], cmap: str, low: float, high: float) -> str:
    """Draws a matrix, one pixel per value and the first row at the top, as a data URL (WebP)."""
    from matplotlib.image import imsave  # loads slowly

    file = io.BytesIO()
    options = {"lossless": values.size < 4096, "quality": 70, "method": 2}
    imsave(file, values, cmap=cmap, vmin=low, vmax=high, format="webp", pil_kwargs=options)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _log_mel(hop: float, top: float) -> LogMel:
    bands = SpectrogramConfig(n_mels=mel_bands(top, 1 / _WINDOW), log_offset=1e-10)
    return LogMel(
        TokenConfig(
            sample_rate=RATE, window=_WINDOW, hop=hop, f_min=0.0, f_max=top, spectrogram=bands
        )
    )


@torch.inference_mode()
def _draw(mel: LogMel, sound: Waveform) -> str:
    decibels = 10 / np.log(10) * mel(torch.from_numpy(sound)).numpy().T[::-1]
    return picture_url(decibels, "magma", decibels.max() - RANGE_DB, decibels.max())


def _encode(sound: Waveform) -> str:
    file = io.BytesIO()
    soundfile.write(
        file, sound, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.7,
        bitrate_mode="VARIABLE",
    )  # fmt: skip
    return f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def shown_frequencies(top: float) -> Sequence[float]:
    """Frequencies, in Hz, at which a mel axis up to ``top`` is marked, as in librosa."""
    return [hertz for hertz in (0, 512, 1024, 2048, 4096) if hertz < 0.9 * top] + [top]
