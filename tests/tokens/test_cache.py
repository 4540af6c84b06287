import hashlib
import json
import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from spaudio.audio import SourceClip, SourceClips, decode, load_audio, prepare
from spaudio.audio.decode import DECODER
from spaudio.errors import DataError
from spaudio.io.resident import reset_peak, resident_bytes
from spaudio.io.spread import spread
from spaudio.tokens.cache import FrameCache, one_thread
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.front_end import open_cache as open_front_end_cache
from spaudio.tokens.make_front_end import make_front_end

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


def prepared(root: Path, *stores: FrameCache, workers: int = 2) -> None:
    clips = [SourceClip(file.name, "a", "train", "g") for file in sorted(root.glob("*.wav"))]
    source = SourceClips(root, clips)
    prepare(
        "toy", lambda work: source, folder=root / "data", options={}, workers=workers, stores=stores
    )


def test_a_clip_too_short_to_be_resampled_is_named_as_a_bad_one(tmp_path: Path) -> None:
    write_clips(tmp_path)
    soundfile.write(tmp_path / "short.wav", np.array([0.5, -0.5]), 96_000)
    with pytest.raises(DataError, match="1 of 7 clips cannot be used"):
        prepared(tmp_path, open_cache(tmp_path / "cache"))
    (listed,) = tmp_path.rglob("bad_clips.txt")
    assert "short.wav: too short: its samples at 96000 Hz leave none" in listed.read_text()


def test_a_clip_that_the_front_end_refuses_is_named_as_a_bad_one(tmp_path: Path) -> None:
    write_clips(tmp_path)
    loud = np.array([3.0, -3.0] * 500)
    soundfile.write(tmp_path / "loud.wav", loud, RATE, "FLOAT")
    front_end = make_front_end(TokenConfig(RATE, "waveform"))
    with pytest.raises(DataError, match="1 of 7 clips cannot be used"):
        prepared(tmp_path, open_front_end_cache(tmp_path / "cache", front_end))
    (listed,) = tmp_path.rglob("bad_clips.txt")
    assert "loud.wav: its samples reach 3 times full scale" in listed.read_text()


def test_a_preparation_decodes_and_hashes_each_clip_once_for_all_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    hashed: list[bytes] = []
    blake2b = hashlib.blake2b

    def counting_hash(content: memoryview, **options: Any) -> Any:
        hashed.append(bytes(content))
        return blake2b(content, **options)

    def counting(path: Path, **options: bool) -> object:
        decoded.append(path.name)
        return decode(path, **options)

    monkeypatch.setattr("spaudio.audio.scan.decode", counting)
    monkeypatch.setattr(hashlib, "blake2b", counting_hash)
    files = write_clips(tmp_path)
    stores = [open_cache(tmp_path / "f", 8), open_cache(tmp_path / "f", 9)]
    prepared(tmp_path, *stores)
    assert sorted(decoded) == [file.name for file in files]
    assert sorted(hashed) == sorted(bytes(decode(file)[0].data) for file in files)
    for store in stores:
        store.root = tmp_path
        for file in files:
            np.testing.assert_array_equal(store.frames(file.name), expected(file))
            np.testing.assert_array_equal(store.frames(file.name, 1, 3), expected(file)[1:3])
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


def test_features_of_another_decoder_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_clips(tmp_path)
    cache = open_cache(tmp_path / "f")
    cache.fill(files)
    assert not cache.lacks(files[0], files[0].stat())
    monkeypatch.setitem(DECODER, "libsndfile", "another")
    assert open_cache(tmp_path / "f").lacks(files[0], files[0].stat())


def test_processes_fill_a_cache_as_one_does(tmp_path: Path) -> None:
    files = write_clips(tmp_path, number=150, seconds=0.02)
    soundfile.write(tmp_path / "copy.wav", *soundfile.read(files[9]))
    cache = open_cache(tmp_path / "f")
    prepared(tmp_path, cache)
    for file in [*files, tmp_path / "copy.wav"]:
        np.testing.assert_array_equal(cache.frames(file), expected(file))
    stored = sum(cache.length(file) for file in files)  # those of the copy are shared
    assert (cache.folder / "frames.bin").stat().st_size == stored * 16


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


def test_segments_are_read_alone_once_their_recording_has_been_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_clips(tmp_path, 2, seconds=1.0)
    open_cache(tmp_path / "f").fill(files)
    cache = open_cache(tmp_path / "f")
    read: list[int] = []

    def counting(file: Path, dtype: np.dtype[Any], count: int, **options: int) -> Any:
        read.append(count // 8)
        return fromfile(file, dtype, count, **options)

    fromfile = np.fromfile
    monkeypatch.setattr(np, "fromfile", counting)
    spans = [(0, 20), (480, 500), (20, 25), (490, None), (7, 7)]
    for file in files:
        read.clear()
        for start, stop in spans:
            part = cache.frames(file, start, stop)
            np.testing.assert_array_equal(part, expected(file)[start:stop])
        whole = cache.length(file)
        assert read == [whole, 20, 5, whole - 490, 0]
    # A change of the file is found.
    data = cache.folder / "frames.bin"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    os.utime(data, ns=(0, 0))  # the clock of the file system may not have moved on
    with pytest.raises(DataError, match=r"features of .*0\.wav in .* are damaged"):
        cache.frames(files[0], 20, 25)
    np.testing.assert_array_equal(cache.frames(files[1], 0, 20), expected(files[1])[:20])


def swap(first: Path, second: Path) -> None:
    """Exchanges two files; each name keeps its size and time."""
    time = first.stat().st_mtime_ns
    other = first.with_name("other")
    first.rename(other)
    second.rename(first)
    other.rename(second)
    for file in (first, second):
        os.utime(file, ns=(time, time))


def test_other_content_of_the_same_size_and_time_is_found(tmp_path: Path) -> None:
    files = write_clips(tmp_path, 3)
    for file, frequency in zip(files, (0.3, 0.5, 0.7), strict=True):
        soundfile.write(file, 0.5 * np.sin(frequency * np.arange(900)), 8000)
        os.utime(file, ns=(10**18, 10**18))
    prepared(tmp_path, open_cache(tmp_path / "f"))
    swap(files[0], files[1])  # by names
    content = files[0].read_bytes()
    files[2].write_bytes(content)  # and in place
    os.utime(files[2], ns=(10**18, 10**18))
    again = open_cache(tmp_path / "f")
    prepared(tmp_path, again)
    for file in files:
        np.testing.assert_array_equal(again.frames(file), expected(file))


def test_the_same_samples_are_computed_and_kept_once(tmp_path: Path) -> None:
    files = write_clips(tmp_path, 2)
    cache = open_cache(tmp_path / "f")
    cache.fill(files)
    size = (cache.folder / "frames.bin").stat().st_size
    moved = [file.rename(file.with_stem(f"new{file.stem}")) for file in files]

    def never(waveform: Array) -> npt.NDArray[np.int16]:
        raise AssertionError

    reopened = FrameCache(tmp_path / "f", {"width": 8}, RATE, never, restore)
    reopened.fill(moved)
    for file in moved:
        np.testing.assert_array_equal(reopened.frames(file), expected(file))
    assert (cache.folder / "frames.bin").stat().st_size == size


def test_what_is_added_after_a_copy_replaces_nothing(tmp_path: Path) -> None:
    first, second, other = write_clips(tmp_path, 3)
    copy = tmp_path / "copy.wav"
    copy.write_bytes(first.read_bytes())
    for added in ([first, second], [copy], [other]):  # the copy's frames are not the last ones
        open_cache(tmp_path / "f").fill(added)
    for file in (first, second, copy, other):
        np.testing.assert_array_equal(open_cache(tmp_path / "f").frames(file), expected(file))


@pytest.mark.parametrize("name", ["frames.bin", "index.jsonl"])
@pytest.mark.parametrize("damage", ["bit", "cut", "garbage", "removed", "json"])
def test_a_damaged_cache_is_made_anew_with_a_warning(
    tmp_path: Path, name: str, damage: str
) -> None:
    files = write_clips(tmp_path)
    cache = open_cache(tmp_path / "f")
    cache.fill(files)
    file = cache.folder / name
    content = file.read_bytes()
    half = len(content) // 2
    changed = {
        "bit": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
        "cut": content[:half],
        "garbage": os.urandom(len(content)),
        "removed": b"",
        "json": b'{"path": 1}\n[]\n' + content,
    }[damage]
    file.write_bytes(changed)
    if name == "frames.bin" and damage == "bit":
        with pytest.raises(DataError, match="are damaged; run the same command again"):
            [cache.frames(file) for file in files]
    quiet = damage in ("cut", "removed")  # as after a crash
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = open_cache(tmp_path / "f")
        again.fill(files)
    assert quiet or any("damaged" in str(one.message) for one in said)
    for reader in (again, open_cache(tmp_path / "f")):
        for clip in files:
            np.testing.assert_array_equal(reader.frames(clip), expected(clip))


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    """Resident memory, which counts what libraries hold, too."""
    growth = []
    for turn, number in enumerate((20, 20, 200)):  # the first turn imports
        root = tmp_path / str(turn)
        root.mkdir()
        files = write_clips(root, number, seconds=4.0)
        cache = open_cache(root / "cache")
        reset_peak()
        before = resident_bytes("VmRSS")
        prepared(root, cache, workers=1)
        for file in files:  # as the normalisation is fitted
            cache.frames(file)
        peak = resident_bytes("VmHWM")
        assert peak is not None
        assert before is not None
        growth.append(peak - before)
    # A quarter of the samples of the 180 more clips, in float32.
    assert growth[2] - growth[1] < 180 * 4.9 * 8000 * 4 / 4


def test_processes_that_work_on_single_clips_have_one_thread() -> None:
    with one_thread():
        found = set(spread(lambda _: torch.get_num_threads(), range(200), 2))
    assert found == {1}
