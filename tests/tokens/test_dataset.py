import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from spaudio.audio.manifest import LABEL_SEPARATOR, Clip
from spaudio.errors import ConfigError
from spaudio.tokens.augment import Augment, AugmentConfig
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.batch import collate
from spaudio.tokens.bucket_sampler import BucketSampler
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.make_front_end import make_front_end
from spaudio.tokens.normalise import BandNormaliser, LevelNormaliser
from spaudio.tokens.segments import SegmentConfig
from spaudio.training.loader import make_loader
from spaudio.training.trainer_config import TrainerConfig

CONFIG = TokenConfig(8000, "waveform", stack=2)
CLIPS = [
    Clip(str(i), "ab"[i % 2], "train", "g", frames / 100, 8000)
    for i, frames in enumerate((31, 12, 51, 21))
]


class Frames:
    """Stands for the cache: frames of CLIPS in memory."""

    def frames(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        rng = np.random.default_rng(int(path))
        return rng.standard_normal((self.length(path), 80), np.float32)[start:stop]

    def length(self, path: str) -> int:
        return round(100 * CLIPS[int(path)].seconds)


def dataset(clips: list[Clip] = CLIPS, seed: int = 7, **settings: Any) -> TokenDataset:
    cache: Any = Frames()
    front_end = make_front_end(CONFIG, LevelNormaliser("clip_level", 1.0))
    return TokenDataset(clips, "abc", cache, front_end, seed=seed, **settings)


def test_batches_mark_exactly_their_padding() -> None:
    data = dataset()
    batch = collate([data[0, i] for i in range(4)])
    lengths = (~batch.padding_mask).sum(dim=1).tolist()
    assert lengths == data.lengths()
    assert batch.tokens.shape == (4, max(lengths), 160)
    assert batch.tokens[batch.padding_mask].abs().max() == 0
    assert batch.labels.tolist() == [0, 1, 0, 1]
    assert batch.clips.tolist() == [0, 1, 2, 3]


def test_a_roll_moves_no_frame_that_fills_a_token() -> None:
    data = dataset(augment=WaveformAugment(AugmentConfig(roll=1.0), CONFIG))
    for epoch in range(5):
        frames = data[epoch, 0].tokens.reshape(-1, 80)
        silent = np.flatnonzero((frames == 0).all(axis=1))
        assert silent.tolist() == [31]  # after the frames of the clip


def test_a_variation_depends_on_seed_epoch_and_clip_alone() -> None:
    every = AugmentConfig(
        gain=0.5, tilt=0.5, tempo=0.1, time_shift=0.1, roll=0.5, noise=0.1, time_masks=1,
        time_mask=0.1, mel_masks=1, mel_mask=3, crop=0.1,
    )  # fmt: skip
    data = dataset(augment=WaveformAugment(every, CONFIG))
    first = data[3, 1].tokens
    data[3, 0]  # another clip in between changes nothing
    assert np.array_equal(data[3, 1].tokens, first)
    assert not np.array_equal(data[4, 1].tokens, first)
    other = dataset(seed=8, augment=WaveformAugment(every, CONFIG))
    assert not np.array_equal(other[3, 1].tokens, first)


def test_the_same_clip_listed_twice_varies_differently() -> None:
    data = dataset([CLIPS[0]] * 2, augment=WaveformAugment(AugmentConfig(gain=1.0), CONFIG))
    assert not np.array_equal(data[3, 0].tokens, data[3, 1].tokens)


def test_a_mask_is_zero_after_normalising() -> None:
    class Constant(Frames):
        def frames(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
            return np.full((self.length(path), 64), -7.0, np.float32)[start:stop]

    mean, std = np.full(64, -9, np.float32), np.full(64, 2, np.float32)
    front_end = make_front_end(TokenConfig(16000), BandNormaliser("global", mean, std))
    augment = Augment(AugmentConfig(time_masks=1, time_mask=0.5), None)
    cache: Any = Constant()
    data = TokenDataset(CLIPS, "abc", cache, front_end, augment=augment)
    values = {float(v) for epoch in range(9) for v in np.unique(data[epoch, 2].tokens)}
    assert values == {0.0, 1.0}


def test_an_excerpt_has_the_length_of_the_crop_at_every_tempo() -> None:
    augment = Augment(AugmentConfig(tempo=0.3, crop=0.2), None)
    data = dataset(augment=augment)
    lengths = {clip: {len(data[epoch, clip].tokens) for epoch in range(30)} for clip in range(4)}
    assert lengths[0] == lengths[2] == {10}  # 0.31 and 0.51 s; a token is 20 ms
    assert len(lengths[1]) > 1  # 0.12 s, shorter than the crop
    assert max(max(each) for each in lengths.values()) == 10
    assert data.lengths() == [10, 6, 10, 10]
    assert data.plain().lengths() == [16, 6, 26, 11]


@pytest.mark.parametrize("kind", ["log-mel", "waveform"])
def test_no_varied_excerpt_is_silent(kind: str) -> None:
    """Tempo and shift act on the excerpt alone, all of which is used."""
    config = AugmentConfig(tempo=0.15, warp=0.1, time_shift=0.1, roll=1.0, crop=1.0)
    waveform = kind == "waveform"
    augment = WaveformAugment(config, CONFIG) if waveform else Augment(config, None)
    wave = 1e-4 * np.random.default_rng(0).standard_normal((500, 80), np.float32)
    wave[400:404] *= 1000  # a short sound in 5 s
    frames = wave if waveform else np.log(np.square(wave) + np.float32(1e-10))
    found = [augment.vary(frames, np.random.default_rng(seed), 100) for seed in range(60)]
    assert {len(one) for one in found} <= {99, 100}
    loud = 0.3 * frames[400:404].max() if waveform else frames[:400].max() + 2
    assert min(one.max() for one in found) > loud


def test_the_longest_item_counts_tempo_crop_and_windows() -> None:
    assert dataset().longest() == (2, math.ceil(51 / 2))
    waveform = dataset(augment=WaveformAugment(AugmentConfig(tempo=0.02), CONFIG))
    most = max(len(waveform[epoch, 2].tokens) for epoch in range(300))
    assert waveform.longest()[1] == most == math.ceil((52 + 1) / 2)
    slow = dataset(augment=WaveformAugment(AugmentConfig(tempo=0.2), CONFIG))
    assert slow.longest() == (2, math.ceil((61 + 1) / 2))
    assert dataset(augment=Augment(AugmentConfig(tempo=0.2, crop=0.3), None)).longest()[1] == 15
    cut = dataset(segments=SegmentConfig(seconds=0.2))
    assert cut.longest()[1] == math.ceil(21 / 2)


@pytest.mark.parametrize("kind", ["log-mel", "waveform"])
def test_no_excerpt_is_silent(kind: str) -> None:
    rng = np.random.default_rng(0)
    waveform = kind == "waveform"
    config = AugmentConfig()
    augment = WaveformAugment(config, CONFIG) if waveform else Augment(config, None)
    wave = 1e-4 * rng.standard_normal((500, 80), np.float32)
    wave[400:404] *= 1000  # a short sound in 5 s
    frames = wave if waveform else np.log(np.square(wave) + np.float32(1e-10))
    found = [augment.excerpt(frames, 100, rng) for _ in range(300)]
    loud = frames[400:404].max(axis=1).min()
    assert all(len(excerpt) == 100 and excerpt.max() >= loud for excerpt in found)
    # A ramp shows where an excerpt begins. One loud knock leaves most of a recording in use.
    ramp = np.linspace(9, 10, 3000, dtype=np.float32)
    steady = np.repeat(ramp[:, None], 80, axis=1)
    if not waveform:
        steady = np.log(steady)
    steady[1500] += 90 if waveform else math.log(5000)
    starts = [float(augment.excerpt(steady, 100, rng)[0, 0]) for _ in range(300)]
    first, last = (9.05, 9.9) if waveform else (math.log(9.05), math.log(9.9))
    assert min(starts) < first
    assert max(starts) > last


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
    assert {len(batch) for batch in batches} == {15, 16}  # so that each clip weighs about the same
    assert list(sampler) == batches
    sampler.set_epoch(6)
    assert list(sampler) != batches
    unshuffled = BucketSampler([5, 3, 9, 1], 3, shuffle=False)
    assert [[i for _, i in batch] for batch in unshuffled] == [[3, 1, 0], [2]]


def test_a_batch_holds_other_clips_in_each_epoch() -> None:
    sampler = BucketSampler(range(10, 650), 16, shuffle=True, seed=1)  # all of other lengths
    found = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found.append({frozenset(i for _, i in batch) for batch in sampler})
    assert not found[0] & found[1]


@pytest.mark.parametrize("frames", [1, 14, 15, 20, 23, 29, 30, 38])
def test_segments_cover_a_clip_but_for_less_than_half_a_hop(frames: int) -> None:
    assert SegmentConfig().spans(frames, 0.01) == [(0, frames)]
    spans = SegmentConfig(seconds=0.1).spans(frames, 0.01)
    assert spans[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(stop - start == 10 for start, stop in spans[:-1])
    assert 0 <= frames - spans[-1][1] < 5
    half = SegmentConfig(seconds=0.1, hop=0.05).spans(frames, 0.01)
    assert [start for start, _ in half] == [5 * i for i in range(len(half))]
    assert all(0 < stop - start <= 10 for start, stop in half)
    with pytest.raises(ConfigError, match=r"segments\.hop=0\.5 needs segments\.seconds"):
        SegmentConfig(hop=0.5)
    apart = SegmentConfig(seconds=0.1, hop=0.25).spans(frames, 0.01)
    assert [start for start, _ in apart] == [25 * i for i in range(len(apart))]
    assert all(stop - start >= min(5, frames) for start, stop in apart)
    with pytest.raises(ConfigError, match=r"segments\.seconds must be positive"):
        SegmentConfig(seconds=0)


def test_a_dataset_of_segments_tells_the_clip_of_each() -> None:
    cut = dataset(segments=SegmentConfig(0.1))
    examples = [cut[0, i] for i in range(len(cut))]
    assert [len(example.tokens) for example in examples] == cut.lengths()
    for index in range(len(CLIPS)):
        parts = [cut.frames(i) for i, example in enumerate(examples) if example.clip == index]
        whole, joined = Frames().frames(str(index)), np.concatenate(parts)
        np.testing.assert_array_equal(joined[: len(whole)], whole[: len(joined)])
        assert {e.label for e in examples if e.clip == index} == {index % 2}


def test_a_multi_label_clip_has_a_one_for_each_of_its_classes() -> None:
    data = dataset([replace(CLIPS[0], label=LABEL_SEPARATOR.join("ca"))], multi_label=True)
    assert collate([data[0, 0]]).labels.tolist() == [[1, 0, 1]]


def test_long_clips_are_batched_within_a_number_of_tokens() -> None:
    lengths = [*np.random.default_rng(0).integers(10, 100, size=203).tolist(), 900, 7500, 400, 450]
    bounded, free = (
        BucketSampler(lengths, 16, shuffle=True, seed=1, max_tokens=most) for most in (8000, 10**9)
    )
    for epoch in range(3):
        for sampler in (bounded, free):
            sampler.set_epoch(epoch)
            batches = [[i for _, i in batch] for batch in sampler]
            assert len(batches) == len(sampler)
            assert sorted(i for batch in batches for i in batch) == list(range(207))
            if sampler is bounded:
                assert max(max(lengths[i] for i in b) * len(b) for b in batches) <= 8000
                assert [204] in batches
    short = lengths[:203]  # which never reach the bound: nothing changes
    assert list(BucketSampler(short, 16, shuffle=True, seed=1, max_tokens=1600)) == list(
        BucketSampler(short, 16, shuffle=True, seed=1)
    )
    ordered = list(BucketSampler(lengths, 16, shuffle=False, max_tokens=8000))
    assert [i for batch in ordered for _, i in batch] == np.argsort(lengths, kind="stable").tolist()


def test_a_clip_longer_than_a_batch_is_named() -> None:
    trainer = TrainerConfig(max_tokens=25, workers=0)
    with pytest.raises(ConfigError, match=r"^2 is too long .* it has 26 tokens.*segments\.sec"):
        make_loader(dataset(), trainer, shuffle=True, seed=0)
    cut, few = dataset(segments=SegmentConfig(0.2)), TrainerConfig(max_tokens=9, workers=0)
    with pytest.raises(ConfigError, match=r"^a segment of 0 is too long .* it has 10 tokens"):
        make_loader(cut, few, shuffle=True, seed=0)
    loader = make_loader(dataset(segments=SegmentConfig(0.1)), trainer, shuffle=True, seed=0)
    assert max(batch.tokens.shape[0] * batch.tokens.shape[1] for batch in loader) <= 25
