"""Features on disk: computed once per clip, when it is first decoded."""

import hashlib
import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from spaudio.audio.decode import DECODER, Waveform, decode, hash_samples, resample
from spaudio.audio.manifest import SourceClip
from spaudio.errors import DataError
from spaudio.io.journal import JsonLines, write_all
from spaudio.io.lock import locked
from spaudio.io.state import FileState

_SYNC_SECONDS = 1.0  # between writes of data and index to the disk, which take milliseconds


class _Entry(NamedTuple):
    """Where a clip's frames are, and what they were computed from.

    Args:
        start: First frame.
        frames: Number of frames.
        state: State of the audio file.
        samples: Hash of the decoded file (`spaudio.audio.decode.hash_samples`).
        crc32: Checksum of the frames.
    """

    start: int
    frames: int
    state: FileState
    samples: str
    crc32: int


class _Computed(NamedTuple):
    """What is added for a clip.

    Args:
        samples: Hash of the decoded file.
        frames: (frames, width); None if the cache already has frames of the same samples.
    """

    samples: str
    frames: npt.NDArray[Any] | None


class FrameCache:
    """Frames of clips, computed from their waveforms and appended to one file.

    Frames are read when they are asked for, so memory holds those of one clip.

    It is a `spaudio.audio.scan.ClipStore`: a preparation decodes each clip once and passes it to
    all of its stores::

        cache = open_cache(folder, front_end)  # of spaudio.tokens.front_end
        floor = FloorFeatures(folder, rate, cache)
        prepared = prepare(name, find, ..., stores=[cache, floor])
        cache.root = prepared.root
        cache.frames(clip.path), cache.length(clip.path)
        measure_floor(prepared.clips, classes, prepared.root, floor, multi_label=...)

    A cache belongs to one version of the decoder. An entry belongs to an absolute path and the
    state of its file, which changes with any change of the content (see `FileState`). A new clip,
    or one whose file state has changed, is decoded; its frames are computed only if no entry has
    the same samples. So moved or copied clips cost no second computation and no storage.

    The index is written after the data, so that a crash never leaves an entry without its frames;
    the next `writing` overwrites data that a crash left behind. Each entry and each line of the
    index holds a checksum. `lacks` checks the frames, so that a preparation recomputes damaged
    ones, with a warning. `frames` checks a clip whenever it reads all of it. For a part, it checks
    the clip the first time, then reads the part alone until the file changes.
    A cache can be pickled for processes that read it.

    Args:
        folder: Where caches are kept, each in a sub-folder named by a hash of its settings.
        settings: Everything that changes the frames; must be JSON-serialisable.
        sample_rate: Rate of the waveforms that ``extract`` takes, in Hz.
        extract: Maps a float32 waveform (samples,) to frames (frames, width) as they are stored,
            all with one dtype and width. Other processes or threads may call it, each with torch on
            one thread.
        restore: Maps stored frames to those that `frames` returns, usually float32. If parts of
            clips are read, it must map each frame by itself; if other processes read the cache, it
            must be picklable.

    Attributes:
        settings: As given.
        root: Base folder of relative paths passed to `frames`, `length` and `entry`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        sample_rate: int,
        extract: Callable[[Waveform], npt.NDArray[Any]],
        restore: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    ) -> None:
        self.settings = dict(settings)
        header = {"version": 2, "settings": self.settings, "sample_rate": sample_rate, **DECODER}
        text = json.dumps(header, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = Path(folder).absolute() / self.key
        self.root = Path()
        self.sample_rate = sample_rate
        self._extract = extract
        self._restore = restore
        self._index = JsonLines(self.folder / "index.jsonl", header)
        self._frames_file = self.folder / "frames.bin"
        self._data: IO[bytes] | None = None
        self._pending: list[dict[str, Any]] = []  # index lines to be written after the data
        self._synced = time.monotonic()
        self._latest: tuple[Waveform, npt.NDArray[Any]] | None = None
        self._entries: dict[str, _Entry] = {}
        self._places: dict[str, _Entry] = {}  # the latest entry of each hash of samples
        self._kind: tuple[str, int] | None = None  # type and width of all frames
        self._checked: set[int] = set()  # first frames of entries, whole in this state of the file
        self._checked_state: FileState | None = None
        self._count = self._whole = 0  # frames, and bytes of the index, that are whole
        self._read()

    def select(self, clips: Sequence[SourceClip]) -> Sequence[SourceClip]:
        """Returns all clips."""
        return clips

    def lacks(self, file: Path, status: os.stat_result) -> bool:
        """Whether the frames of the file in its current state are missing or damaged."""
        entry = self._entries.get(os.path.abspath(file))
        if entry is None or entry.state != FileState.of(status):
            return True
        if self._read_frames(entry) is not None:
            return False
        # One text for all clips, so that Python shows it once.
        warnings.warn(f"features in {self.folder} are damaged; they are recomputed", stacklevel=2)
        return True

    def compute(self, waveform: Waveform, samples: str) -> _Computed:
        """Computes the frames of a clip, unless the cache has frames of the same samples.

        Args:
            waveform: (samples,), at the rate of the cache.
            samples: Hash of the decoded file.
        """
        if self._place(samples) is not None:
            return _Computed(samples, None)
        frames = np.ascontiguousarray(self._extract(waveform))
        self._latest = waveform, frames
        return _Computed(samples, frames)

    def latest(self, waveform: Waveform) -> npt.NDArray[Any] | None:
        """Returns the frames that `compute` has just computed from this very array, or None.

        This spares another store, which needs the same frames, from computing them again.
        """
        given, frames = self._latest or (None, None)
        return frames if given is waveform else None

    def add(self, file: Path, status: os.stat_result, computed: _Computed) -> None:
        """Appends what `compute` has returned for a clip.

        Raises:
            ValueError: If the cache is not open for `writing`.
        """
        if self._data is None:
            raise ValueError("the cache is not open; add within `with cache.writing():`")
        path, state = os.path.abspath(file), FileState.of(status)
        if computed.frames is None:
            same = self._places[computed.samples]
        else:  # two clips of the same samples may have been computed at the same time
            same = self._place(computed.samples) or self._append(
                computed.frames, state, computed.samples
            )
        entry = same._replace(state=state)
        self._entries[path] = self._places[computed.samples] = entry
        self._pending.append({"path": path, "kind": self._kind, **entry._asdict()})
        if time.monotonic() >= self._synced + _SYNC_SECONDS:
            self._sync()

    def _place(self, samples: str) -> _Entry | None:
        """Returns an entry of the same samples whose frames are whole."""
        same = self._places.get(samples)
        return same if same is not None and self._read_frames(same) is not None else None

    def _append(self, frames: npt.NDArray[Any], state: FileState, samples: str) -> _Entry:
        """Writes frames after all others."""
        assert self._data is not None
        kind = (frames.dtype.str, frames.shape[1])
        if self._kind not in (None, kind):
            raise ValueError(f"frames of {kind} in a cache of {self._kind}")
        self._kind = kind
        entry = _Entry(self._count, len(frames), state, samples, zlib.crc32(frames.data))
        # The position follows from the index: a failed write may have left more data.
        self._data.seek(entry.start * frames[:1].nbytes)
        write_all(self._data, frames.data)
        self._count += len(frames)
        return entry

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Opens the cache for `add`; one process at a time, others wait and find what it added."""
        with locked(self.folder.with_suffix(".lock")), one_thread():
            self._read()
            self._index.open(self._whole)
            self._frames_file.touch()
            try:
                with self._frames_file.open("r+b", buffering=0) as self._data:
                    try:
                        yield
                    finally:
                        self._sync()
            finally:
                self._data = self._latest = None
                self._index.close()

    def fill(self, files: Iterable[Path]) -> None:
        """Decodes and adds the missing clips.

        For a dataset, pass the cache to `spaudio.audio.prepare`, which decodes each clip once for
        several caches.

        Args:
            files: The clips' files.

        Raises:
            AudioError: If a clip cannot be decoded.
            FileNotFoundError: If a file is missing.
        """
        states = [(file, file.stat()) for file in files]
        if not any(self.lacks(*state) for state in states):
            return
        with self.writing():
            for file, status in states:
                if self.lacks(file, status):  # another process may have added it in the meantime
                    waveform, rate = decode(file, silent_ok=True)
                    samples = hash_samples(waveform, rate)
                    waveform = resample(waveform, rate, self.sample_rate, file)
                    self.add(file, status, self.compute(waveform, samples))

    def frames(self, file: str | Path, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Returns a clip's frames (frames, width), or those of a part, as ``restore`` returns them.

        Raises:
            DataError: If the clip is not in the cache, or its frames are damaged.
        """
        entry = self.entry(file)
        frames = self._read_part(entry, range(entry.frames)[start:stop])
        if frames is None:
            raise DataError(
                f"the features of {file} in {self.folder} are damaged; run the same command again, "
                "which recomputes them"
            )
        return self._restore(frames)

    def _read_part(self, entry: _Entry, part: range) -> npt.NDArray[Any] | None:
        """Returns a part of the stored frames of an entry, or None if the entry is damaged.

        The checksum is that of all its frames. To read them for each segment of a long recording
        would take longer than all else that is done with the segment.
        """
        if len(part) < entry.frames:
            try:
                state = FileState.of(self._frames_file.stat())
            except OSError:
                return None
            if state != self._checked_state:
                self._checked, self._checked_state = set(), state
            if entry.start in self._checked:
                return self._read_stored(entry.start + part.start, len(part))
        frames = self._read_frames(entry)
        if frames is None:
            return None
        self._checked.add(entry.start)
        return frames[part.start : part.stop]

    def _read_frames(self, entry: _Entry) -> npt.NDArray[Any] | None:
        """Returns the stored frames of an entry, or None if they do not match its checksum."""
        frames = self._read_stored(entry.start, entry.frames)
        return None if frames is None or zlib.crc32(frames.data) != entry.crc32 else frames

    def _read_stored(self, start: int, count: int) -> npt.NDArray[Any] | None:
        """Returns ``count`` stored frames, of any entries, or None if the file holds fewer."""
        assert self._kind is not None  # there is an entry
        kind, width = self._kind
        dtype = np.dtype(kind)
        # Not mapped into memory: the pages of a map stay in it until others need them.
        try:
            found = np.fromfile(
                self._frames_file, dtype, count * width, offset=start * width * dtype.itemsize
            )
        except OSError:  # it was removed after the index was read
            return None
        return found.reshape(count, width) if found.size == count * width else None

    def length(self, file: str | Path) -> int:
        """Returns the number of frames of a clip; raises as `frames` does."""
        return self.entry(file).frames

    def entry(self, file: str | Path) -> _Entry:
        """Returns what the index holds about a clip; raises as `frames` does."""
        try:
            return self._entries[os.path.abspath(self.root / file)]
        except KeyError:
            raise DataError(
                f"no features of {file} in {self.folder}; prepare the dataset again"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what only writing needs."""
        return vars(self) | {"_extract": None, "_latest": None, "_places": {}}

    def _sync(self) -> None:
        """Syncs the data before writing its index, which then holds even after a power failure."""
        assert self._data is not None
        os.fsync(self._data.fileno())
        self._index.append(*self._pending)
        self._pending.clear()
        self._synced = time.monotonic()

    def _read(self) -> None:
        """Reads the index, up to the first entry whose line or frames are incomplete."""
        self._entries, self._places, self._kind = {}, {}, None
        self._count = self._whole = 0
        data = self._frames_file
        size = data.stat().st_size if data.is_file() else 0
        for record, end in self._index.read():
            path, (dtype, width) = record.pop("path"), record.pop("kind")
            entry = _Entry(**record | {"state": FileState(*record["state"])})
            stop = entry.start + entry.frames
            if entry.start > self._count or stop * np.dtype(dtype).itemsize * width > size:
                return
            self._entries[path] = self._places[entry.samples] = entry
            self._count = max(self._count, stop)
            self._kind, self._whole = (dtype, width), end


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: a clip's operations are too small to parallelise.

    Next to other busy processes, barriers between threads would cost a hundred times the work.
    Processes and threads that are started within have one thread, too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
