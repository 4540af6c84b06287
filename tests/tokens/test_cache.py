import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from spaudio.audio import SourceClip, SourceClips, decode, load_audio, prepare
from spaudio.errors import DataError
from spaudio.tokens.cache import FrameCache

RATE = 4000
Array = npt.NDArray[np.float32]


def extract(waveform: Array) -> npt.NDArray[np.int16]:
    return (waveform[: len(waveform) // 8 * 8].reshape(-1, 8) * 32768).astype(np.int16)


def restore(stored: npt.NDArray[np.int16]) -> Array:
    return stored.astype(np.float32)


def open_cache(folder: Path, width: int = 8) -> FrameCache:
    return FrameCache(folder, {"width": width}, RATE, extract, restore)


def write_clips(root: Path, number: int = 6, seconds: float = 0.1) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [root / f"{i}.wav" for i in range(number)]
    for i, file in enumerate(files):
        wave = 0.1 * rng.standard_normal(round(8000 * (seconds + 0.01 * i)))
        soundfile.write(file, wave, 8000)
    return files


def expected(file: Path) -> Array:
    return restore(extract(load_audio(file, RATE)))


def prepared(root: Path, *stores: FrameCache) -> None:
    clips = [SourceClip(file.name, "a", "train", "g") for file in sorted(root.glob("*.wav"))]
    source = SourceClips(root, clips)
    prepare("toy", lambda work: source, folder=root / "data", options={}, workers=2, stores=stores)


def test_a_preparation_decodes_each_clip_once_for_all_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def counting(path: Path, **options: bool) -> object:
        decoded.append(path.name)
        return decode(path, **options)

    monkeypatch.setattr("spaudio.audio.scan.decode", counting)
    files = write_clips(tmp_path)
    stores = [open_cache(tmp_path / "f", 8), open_cache(tmp_path / "f", 9)]
    prepared(tmp_path, *stores)
    assert sorted(decoded) == [file.name for file in files]
    for store in stores:
        store.root = tmp_path
        for file in files:
            np.testing.assert_array_equal(store.frames(file.name), expected(file))
            assert store.length(file.name) == len(expected(file))
    # Only what was added or changed is decoded again, and all of it for other settings.
    decoded.clear()
    soundfile.write(files[0], 0.5 * np.sin(np.arange(900)), 8000)
    soundfile.write(tmp_path / "new.wav", 0.5 * np.sin(np.arange(700)), 8000)
    again = open_cache(tmp_path / "f")
    prepared(tmp_path, again)
    assert sorted(decoded) == ["0.wav", "new.wav"]
    for file in [*files, tmp_path / "new.wav"]:
        np.testing.assert_array_equal(again.frames(file), expected(file))
    decoded.clear()
    prepared(tmp_path, open_cache(tmp_path / "f", 10))
    assert len(decoded) == 7


def test_an_interrupted_cache_is_resumed_and_serves_only_whole_entries(tmp_path: Path) -> None:
    files = write_clips(tmp_path)
    cache = open_cache(tmp_path / "f")
    cache.fill(files[:4])
    index, data = cache.folder / "index.jsonl", cache.folder / "frames.bin"
    index.write_bytes(index.read_bytes()[:-5])  # a torn line
    os.truncate(data, data.stat().st_size - cache.length(files[3]) * 16 - 7)  # and lost frames
    torn = open_cache(tmp_path / "f")
    assert [torn.lacks(file, file.stat()) for file in files] == [0, 0, 1, 1, 1, 1]
    with pytest.raises(DataError, match=r"no features of .*3\.wav"):
        torn.frames(files[3])
    torn.fill(files)
    for reader in (torn, open_cache(tmp_path / "f"), pickle.loads(pickle.dumps(torn))):
        for file in files:
            np.testing.assert_array_equal(reader.frames(file), expected(file))
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    assert len(lines) == 1 + len(files)


def test_another_process_adds_to_the_same_cache(tmp_path: Path) -> None:
    files = write_clips(tmp_path)
    first, second = open_cache(tmp_path / "f"), open_cache(tmp_path / "f")
    first.fill(files[:3])
    np.testing.assert_array_equal(first.frames(files[0]), expected(files[0]))
    second.fill(files)  # finds what the first one added
    first.fill(files)
    assert len((first.folder / "index.jsonl").read_text().splitlines()) == 1 + len(files)
    np.testing.assert_array_equal(first.frames(files[5]), expected(files[5]))


def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    files = write_clips(tmp_path, 40, seconds=4.0)
    cache = open_cache(tmp_path / "f")
    cache.fill(files[:1])  # imports and buffers do not count
    tracemalloc.start()
    cache.fill(files)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (cache.folder / "frames.bin").stat().st_size / 2
