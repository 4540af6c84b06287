from __future__ import annotations

import io
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spaudio.audio.manifest import Clip
from spaudio.errors import ConfigError, DataError
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.cache import FeatureCache, build_cache
from spaudio.tokens.dataset import (
    BucketSampler,
    SegmentConfig,
    TokenDataset,
    collate,
    stack_frames,
)
from spaudio.tokens.logmel import LogMel, LogMelConfig
from spaudio.tokens.normalise import LevelNormaliser, Normaliser
from spaudio.tokens.samples import WaveformFrames

CONFIG = LogMelConfig(8000, n_mels=12)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Clip]]:
    root = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    made = []
    for i, seconds in enumerate((0.3, 0.11, 0.5, 0.2)):
        wave = 0.1 * rng.standard_normal(round(8000 * seconds))
        soundfile.write(root / f"{i}.wav", wave, 8000)
        made.append(Clip(f"{i}.wav", "ab"[i % 2], "train", "g", seconds, 8000))
    return root, made


def test_cache_holds_the_front_ends_frames(clips: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    root, made = clips
    cache = build_cache(made, root, CONFIG, tmp_path)
    for clip in made:
        wave, _ = soundfile.read(root / clip.path, dtype="float32")
        expected = LogMel(CONFIG)(torch.from_numpy(wave)).numpy()
        assert cache.length(clip.path) == len(expected)
        np.testing.assert_allclose(cache.frames(clip.path), expected, atol=0.01)


def test_cache_holds_waveforms_without_loss(clips: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    root, made = clips
    cache = build_cache(made, root, WaveformFrames(8000, 0.01), tmp_path)
    for clip in made:
        wave, _ = soundfile.read(root / clip.path, dtype="float32")
        frames = cache.frames(clip.path)
        assert frames.shape == (1 + len(wave) // 80, 80)
        assert cache.length(clip.path) == len(frames)
        np.testing.assert_array_equal(frames.reshape(-1)[: len(wave)], wave)  # 16 bits, to the bit
        assert (frames.reshape(-1)[len(wave) :] == 0).all()


def test_waveform_tokens_are_as_many_as_the_spectrograms(
    clips: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    root, made = clips
    spectrogram = dataset(clips, tmp_path, None)
    cache = build_cache(made, root, WaveformFrames(8000, 0.01), tmp_path)
    level = LevelNormaliser.fit("clip", [cache.frames(c.path) for c in made])
    data = TokenDataset(made, "ab", cache, level, stack=2)
    assert data.lengths() == spectrogram.lengths()
    batch = collate([data[0, i] for i in range(4)])
    assert batch.tokens.shape[2] == 2 * 80
    torch.testing.assert_close(
        batch.padding_mask, collate([spectrogram[0, i] for i in range(4)]).padding_mask
    )
    power = batch.tokens.square().sum(dim=(1, 2)) / torch.tensor([2480, 960, 4080, 1680])
    torch.testing.assert_close(power, torch.ones(4), rtol=1e-3, atol=0)


def test_cache_is_keyed_by_its_settings_and_not_computed_twice(
    clips: tuple[Path, list[Clip]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made = clips
    build_cache(made, root, CONFIG, tmp_path)
    build_cache(made, root, LogMelConfig(8000, n_mels=13), tmp_path)
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 2

    def never(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("spaudio.tokens.cache.load_audio", never)
    build_cache(made, root, CONFIG, tmp_path)


def test_a_clip_that_was_recorded_anew_is_computed_anew(tmp_path: Path) -> None:
    made = [Clip("a.wav", "a", "train", "g", 0.1, 8000)]
    frames = []
    for level in (0.1, 0.5):  # the same length and name, another sound
        soundfile.write(tmp_path / "a.wav", level * np.tile([1.0, -1.0], 400), 8000)
        frames.append(build_cache(made, tmp_path, CONFIG, tmp_path / "features").frames("a.wav"))
    assert not np.allclose(*frames)


def test_a_half_done_cache_is_not_a_finished_one(
    clips: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    root, made = clips
    cache = build_cache(made, root, CONFIG, tmp_path)
    folder = next(p for p in tmp_path.iterdir() if p.is_dir())
    (folder / "index.json").unlink()  # as if it had been stopped before the end
    with pytest.raises(DataError, match="no finished feature cache"):
        FeatureCache(folder)
    again = build_cache(made, root, CONFIG, tmp_path)
    np.testing.assert_array_equal(again.frames("0.wav"), cache.frames("0.wav"))
    content = json.loads((folder / "index.json").read_text())
    content["frames"][0] += 1
    (folder / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="delete"):
        FeatureCache(folder)


def test_the_cache_is_written_clip_by_clip_and_is_what_numpy_would_save(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = []
    for i in range(60):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(8000), 8000)
        made.append(Clip(f"{i}.wav", "a", "train", "g", 1.0, 8000))
    config = LogMelConfig(8000, hop=0.001, n_mels=40)
    tracemalloc.start()
    cache = build_cache(made, tmp_path, config, tmp_path / "features")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    path = tmp_path / "features" / cache.key / "frames.npy"
    assert peak < path.stat().st_size / 3
    stored = np.load(path)
    assert stored.shape[0] == sum(cache.length(clip.path) for clip in made)
    whole = io.BytesIO()
    np.save(whole, stored)
    assert path.read_bytes() == whole.getvalue()


def test_stacking_keeps_the_order_and_fills_with_zeros() -> None:
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    assert stack_frames(frames, 2).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 0]]
    assert stack_frames(frames, 1) is frames


def dataset(clips: tuple[Path, list[Clip]], folder: Path, augment: Augment | None) -> TokenDataset:
    root, made = clips
    cache = build_cache(made, root, CONFIG, folder)
    normaliser = Normaliser.fit("global", [cache.frames(c.path) for c in made])
    return TokenDataset(made, "ab", cache, normaliser, stack=2, augment=augment, seed=7)


def test_batches_mark_exactly_their_padding(clips: tuple[Path, list[Clip]], tmp_path: Path) -> None:
    data = dataset(clips, tmp_path, None)
    batch = collate([data[0, i] for i in range(4)])
    lengths = (~batch.padding_mask).sum(dim=1).tolist()
    assert lengths == data.lengths()
    assert batch.tokens.shape == (4, max(lengths), 24)
    assert batch.tokens[batch.padding_mask].abs().max() == 0
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert batch.clips.tolist() == [0, 1, 2, 3]


def test_a_variation_depends_on_seed_epoch_and_clip_alone(
    clips: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    data = dataset(clips, tmp_path, Augment(AugmentConfig(gain=1.0)))
    first = data[3, 1].tokens
    data[3, 0]  # another clip in between changes nothing
    assert np.array_equal(data[3, 1].tokens, first)
    assert not np.array_equal(data[4, 1].tokens, first)


def test_buckets_cover_every_clip_once_and_waste_little() -> None:
    lengths = np.random.default_rng(0).integers(10, 200, size=1003).tolist()
    sampler = BucketSampler(lengths, 16, shuffle=True, seed=1)
    sampler.set_epoch(5)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(i for batch in batches for _, i in batch) == list(range(1003))
    assert {epoch for batch in batches for epoch, _ in batch} == {5}
    padded = sum(max(lengths[i] for _, i in batch) * len(batch) for batch in batches)
    assert padded < 1.25 * sum(lengths)  # at random it is about 1.8
    assert list(sampler) == batches
    sampler.set_epoch(6)
    assert list(sampler) != batches


def test_evaluation_order_does_not_depend_on_the_epoch() -> None:
    sampler = BucketSampler([5, 3, 9, 1], 3, shuffle=False)
    assert [[i for _, i in batch] for batch in sampler] == [[3, 1, 0], [2]]


@pytest.mark.parametrize("frames", [1, 9, 10, 14, 15, 20, 21, 25, 38])
def test_segments_cover_a_clip_but_for_less_than_half_a_hop(frames: int) -> None:
    spans = SegmentConfig(seconds=0.1).spans(frames, 0.01)
    assert spans[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(stop - start == 10 for start, stop in spans[:-1])
    assert 0 <= frames - spans[-1][1] < 5
    half = SegmentConfig(seconds=0.1, hop=0.05).spans(frames, 0.01)
    assert [start for start, _ in half] == [5 * i for i in range(len(half))]
    assert all(0 < stop - start <= 10 for start, stop in half)


def test_whole_clips_by_default_and_no_empty_segment() -> None:
    assert SegmentConfig().spans(37, 0.01) == [(0, 37)]
    with pytest.raises(ConfigError, match=r"segments\.seconds must be positive"):
        SegmentConfig(seconds=0)


def test_a_dataset_of_segments_tells_the_clip_of_each(
    clips: tuple[Path, list[Clip]], tmp_path: Path
) -> None:
    root, made = clips
    cache = build_cache(made, root, CONFIG, tmp_path)
    plain = Normaliser("global", np.zeros(12, np.float32), np.ones(12, np.float32))
    cut = TokenDataset(made, ("a", "b"), cache, plain, stack=2, segments=SegmentConfig(0.1))
    whole = TokenDataset(made, ("a", "b"), cache, plain)
    examples = [cut[0, i] for i in range(len(cut))]
    assert [len(example.tokens) for example in examples] == cut.lengths()
    for index in range(len(made)):
        parts = [e.tokens.reshape(-1, 12) for e in examples if e.clip == index]
        frames = whole[0, index].tokens
        joined = np.concatenate(parts)
        np.testing.assert_array_equal(joined[: len(frames)], frames[: len(joined)])
        assert {e.label for e in examples if e.clip == index} == {index % 2}
