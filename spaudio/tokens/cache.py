"""Features on disk: computed once, keyed by everything that shapes them, read by memory map."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from spaudio.audio.decode import load_audio
from spaudio.audio.manifest import Clip
from spaudio.errors import DataError
from spaudio.io.atomic import write_atomic
from spaudio.io.lock import locked
from spaudio.io.progress import progress_bar
from spaudio.tokens.logmel import LogMel, LogMelConfig
from spaudio.tokens.samples import WaveformFrames, cut

Frames = npt.NDArray[np.float32]
FULL_SCALE = 32768  # of 16-bit samples, as decoders have it


class FeatureCache:
    """Frames of a manifest's clips, in one memory-mapped file: log-mel, or a waveform's hops.

    Log-mel frames are stored as float16: their values lie within about ±20, where its step of at
    most 0.016 is far below the spread of any band. Waveforms are stored as 16-bit samples, which is
    without loss for 16-bit audio that has the wanted rate, and resampled once for all other.

    Args:
        folder: A folder that :func:`build_cache` has finished.

    Raises:
        DataError: If the folder holds no finished cache.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / "index.json"
        if not index.is_file():
            raise DataError(f"no finished feature cache in {folder}; delete it to have it rebuilt")
        content = json.loads(index.read_text(encoding="utf-8"))
        self.key = folder.name
        counts = np.asarray(content["frames"], dtype=np.int64)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._position = {path: i for i, path in enumerate(content["paths"])}
        self._frames = np.load(folder / "frames.npy", mmap_mode="r")
        if len(self._frames) != self._ends[-1]:
            raise DataError(
                f"{folder / 'frames.npy'} holds {len(self._frames)} frames where index.json counts "
                f"{self._ends[-1]}; delete {folder} to have it rebuilt"
            )

    def frames(self, path: str) -> Frames:
        """Returns a clip's frames, (frames, n_mels) or (frames, hop_samples), by manifest path."""
        i = self._position[path]
        return restored(self._frames[self._starts[i] : self._ends[i]])

    def length(self, path: str) -> int:
        """Returns the number of frames of a clip."""
        i = self._position[path]
        return int(self._ends[i] - self._starts[i])


def build_cache(
    clips: Sequence[Clip], root: Path, config: LogMelConfig | WaveformFrames, folder: Path
) -> FeatureCache:
    """Computes the frames of all clips, or opens them where that has been done.

    The cache lies in a sub-folder of ``folder`` named by a hash of the clips and of every setting,
    so a change of either makes another cache. The index is written last: a
    half-done cache is never taken for a finished one.

    Args:
        clips: The manifest's clips.
        root: The folder that their paths are relative to.
        config: What a frame is; audio is resampled to its sample rate.
        folder: Where caches are kept.

    Returns:
        The opened cache.

    Raises:
        AudioError: If a clip has become unreadable since it was checked.
        FileNotFoundError: If one has gone.
    """
    settings = json.dumps(asdict(config), sort_keys=True)
    # The split of a clip does not shape its frames: every split of one audio set shares a cache.
    # Size and time of change tell a file that was recorded or rendered anew.
    status = [(clip.path, (root / clip.path).stat()) for clip in clips]
    audio = "\n".join(sorted(f"{path} {s.st_size} {s.st_mtime_ns}" for path, s in status))
    key = hashlib.sha256(f"v1\n{root.resolve()}\n{settings}\n{audio}".encode()).hexdigest()[:16]
    target = folder / key
    with locked(folder / f"{key}.lock"):  # two runs at once compute it once
        if not (target / "index.json").is_file():
            _write_cache(clips, root, config, target)
    return FeatureCache(target)


def _write_cache(
    clips: Sequence[Clip], root: Path, config: LogMelConfig | WaveformFrames, target: Path
) -> None:
    """Writes ``frames.npy`` and then, as the mark that it is finished, ``index.json``."""
    start = time.perf_counter()
    extract = extractor(config)
    target.mkdir(parents=True, exist_ok=True)
    paths = sorted({clip.path for clip in clips})
    counts: list[int] = []
    title = "log-mel frames" if isinstance(config, LogMelConfig) else "waveforms"
    with (
        (target / "frames.npy").open("wb") as file,
        progress_bar(title, len(paths)) as advance,
        _one_thread(),
    ):
        # Clip by clip to the disk: all of a large data set's frames would not fit into memory.
        for path in paths:
            # The manifest has decided whether a silent clip is one; here it is only read.
            frames = extract(load_audio(root / path, config.sample_rate, silent_ok=True))
            if not counts:
                _write_header(file, 0, frames)
            file.write(frames.tobytes())
            counts.append(len(frames))
            advance(1)
        file.seek(0)
        _write_header(file, sum(counts), frames)
    index = {
        "paths": paths,
        "frames": counts,
        "config": asdict(config),
        "seconds": time.perf_counter() - start,
    }
    write_atomic(target / "index.json", json.dumps(index).encode())


def extractor(config: LogMelConfig | WaveformFrames) -> Callable[[Frames], npt.NDArray[Any]]:
    """Returns what turns a waveform (samples,) into frames as the cache stores them."""
    if isinstance(config, WaveformFrames):
        hop = config.hop_samples

        def hops(waveform: Frames) -> npt.NDArray[np.int16]:
            steps = (cut(waveform, hop) * FULL_SCALE).round()
            return steps.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)

        return hops
    front_end = LogMel(config)

    @torch.inference_mode()
    def log_mel(waveform: Frames) -> npt.NDArray[np.float16]:
        frames: Frames = front_end(torch.from_numpy(waveform)).numpy()
        return frames.astype(np.float16)

    return log_mel


def restored(stored: npt.NDArray[Any]) -> Frames:
    """Returns frames that :func:`extractor` has made as float32: log-mel, or full scale at 1."""
    frames = np.asarray(stored, dtype=np.float32)
    return frames / np.float32(FULL_SCALE) if stored.dtype == np.int16 else frames


def _write_header(file: IO[bytes], count: int, like: npt.NDArray[Any]) -> None:
    """Writes the header of ``frames.npy``; NumPy leaves room in it for the count to grow."""
    descr = np.lib.format.dtype_to_descr(like.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": (count, *like.shape[1:])}
    np.lib.format.write_array_header_1_0(file, header)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Runs torch on one thread: a clip's operations are too small to be worth sharing out.

    Beside other busy processes the barriers between threads would cost a hundred times the work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
