from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from spaudio.audio.manifest import Clip
from spaudio.audio.split import (
    carve_validation,
    seeded_order,
    split_by_clip,
    split_by_fold,
    split_by_group,
)
from spaudio.errors import ConfigError, DataError


def clips(
    labels: int = 4, groups: int = 6, each: int = 10, test_groups: Sequence[int] = ()
) -> list[Clip]:
    """Every group has ``each`` clips of every label."""
    return [
        Clip(
            f"{la}_{g}_{i}.wav", f"l{la}", "test" if g in test_groups else "train", f"g{g}", 1, 8000
        )
        for la in range(labels)
        for g in range(groups)
        for i in range(each)
    ]


def only_split_differs(before: Sequence[Clip], after: Sequence[Clip]) -> bool:
    return [replace(clip, split="train") for clip in before] == [
        replace(clip, split="train") for clip in after
    ]


def groups_of(divided: Sequence[Clip], split: str) -> set[str]:
    return {clip.group for clip in divided if clip.split == split}


def test_carving_by_clip_is_stratified_and_spread_over_groups() -> None:
    before = clips(test_groups=[5])
    after = carve_validation(before, 0.1, seed=3)
    assert only_split_differs(before, after)
    assert [c.split == "test" for c in before] == [c.split == "test" for c in after]
    valid = [clip for clip in after if clip.split == "valid"]
    assert Counter(clip.label for clip in valid) == {f"l{label}": 5 for label in range(4)}
    assert Counter((clip.label, clip.group) for clip in valid) == {
        (f"l{label}", f"g{group}"): 1 for label in range(4) for group in range(5)
    }


def test_carving_by_group_takes_whole_groups() -> None:
    after = carve_validation(clips(test_groups=[5]), 0.2, seed=3, by="group")
    assert len(groups_of(after, "valid")) == 1
    assert not groups_of(after, "valid") & (groups_of(after, "train") | {"g5"})
    assert groups_of(after, "test") == {"g5"}


@pytest.mark.parametrize("by", ["clip", "group"])
def test_carving_depends_on_the_seed_and_not_on_the_order(by: str) -> None:
    before = clips()
    shuffled = random.Random(0).sample(before, len(before))
    carved = {
        seed: {c.path for c in carve_validation(before, 0.2, seed, by) if c.split == "valid"}
        for seed in range(6)
    }
    again = {c.path for c in carve_validation(shuffled, 0.2, 0, by) if c.split == "valid"}
    assert again == carved[0]
    assert len({frozenset(paths) for paths in carved.values()}) > 2


def test_a_share_above_zero_takes_one_clip_at_least() -> None:
    after = carve_validation(clips(groups=1, each=3), 0.01, seed=0)
    assert Counter(c.label for c in after if c.split == "valid") == {f"l{i}": 1 for i in range(4)}


def test_a_label_keeps_a_training_clip() -> None:
    few = [*clips(), Clip("x.wav", "rare", "train", "g0", 1, 8000)]
    with pytest.raises(DataError, match="'rare' has 1 clips"):
        carve_validation(few, 0.1, seed=0)
    # By group there is a way: the group that holds the rare label stays.
    for seed in range(10):
        after = carve_validation(few, 0.2, seed, by="group")
        assert after[-1].split == "train"
    one_each = [replace(clip, group=clip.label) for clip in clips()]
    with pytest.raises(DataError, match="last training clip"):
        carve_validation(one_each, 0.2, seed=0, by="group")


def test_carving_refuses_what_it_cannot_do() -> None:
    valid = [replace(clip, split="valid") for clip in clips()]
    with pytest.raises(DataError, match="already"):
        carve_validation(valid, 0.1, seed=0)
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(ConfigError, match="fraction"):
            carve_validation(clips(), fraction, seed=0)
    with pytest.raises(ConfigError, match="by='speaker'"):
        carve_validation(clips(), 0.1, seed=0, by="speaker")


def test_split_by_clip_keeps_the_shares_of_every_label() -> None:
    after = split_by_clip(clips(), valid_fraction=0.1, test_fraction=0.2, seed=0)
    assert Counter((c.label, c.split) for c in after) == {
        (f"l{label}", split): number
        for label in range(4)
        for split, number in [("train", 42), ("valid", 6), ("test", 12)]
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_no_group_is_in_two_splits(seed: int) -> None:
    draw = random.Random(seed)
    before = [
        Clip(f"{i}.wav", f"l{draw.randrange(5)}", "train", f"g{draw.randrange(30)}", 1, 8000)
        for i in range(600)
    ]
    after = split_by_group(before, valid_fraction=0.15, test_fraction=0.25, seed=seed)
    assert only_split_differs(before, after)
    held = [groups_of(after, split) for split in ("train", "valid", "test")]
    assert sum(map(len, held)) == len(set.union(*held))
    shares = Counter(clip.split for clip in after)
    assert shares["valid"] / 600 == pytest.approx(0.15, abs=0.05)
    assert shares["test"] / 600 == pytest.approx(0.25, abs=0.05)
    for split in ("train", "valid", "test"):
        assert {c.label for c in after if c.split == split} == {f"l{i}" for i in range(5)}


@pytest.mark.parametrize("seed", [0, 1])
def test_groups_of_one_label_each_are_stratified(seed: int) -> None:
    """As in sound-event sets, where a recording is of one class: 8 recordings of 5 clips."""
    before = [
        Clip(f"{la}_{g}_{i}.wav", f"l{la}", "train", f"{la}/{g}", 1, 8000)
        for la in range(10)
        for g in range(8)
        for i in range(5)
    ]
    after = split_by_group(before, valid_fraction=0.125, test_fraction=0.25, seed=seed)
    assert Counter((c.label, c.split) for c in after) == {
        (f"l{label}", split): number
        for label in range(10)
        for split, number in [("train", 25), ("valid", 5), ("test", 10)]
    }


def test_three_groups_of_a_label_fill_three_splits() -> None:
    before = [
        Clip(f"{la}_{g}_{i}.wav", f"l{la}", "train", f"{la}/{g}", 1, 8000)
        for la in range(3)
        for g in range(3)
        for i in range(4)
    ]
    after = split_by_group(before, valid_fraction=0.1, test_fraction=0.2, seed=0)
    for split in ("train", "valid", "test"):
        assert Counter(c.label for c in after if c.split == split) == {f"l{i}": 4 for i in range(3)}


def test_what_has_one_group_is_trained_on_however_large_the_test_split() -> None:
    before = [*clips(), *(Clip(f"x{i}.wav", "lone", "train", "x", 1, 8000) for i in range(9))]
    after = split_by_group(before, valid_fraction=0.1, test_fraction=0.6, seed=0)
    assert {clip.split for clip in after if clip.label == "lone"} == {"train"}
    assert {clip.split for clip in after if clip.label == "l0"} == {"train", "valid", "test"}


def test_too_few_groups_and_bad_fractions() -> None:
    with pytest.raises(DataError, match="2 groups cannot fill"):
        split_by_group(clips(groups=2), valid_fraction=0.1, test_fraction=0.2, seed=0)
    two = split_by_group(clips(groups=2), valid_fraction=0.0, test_fraction=0.2, seed=0)
    assert {clip.split for clip in two} == {"train", "test"}
    with pytest.raises(ConfigError, match="nothing to train on"):
        split_by_clip(clips(), valid_fraction=0.5, test_fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match="test_fraction=-0"):
        split_by_clip(clips(), valid_fraction=0.5, test_fraction=-0.5, seed=0)


def test_seeded_order_is_fixed_for_ever() -> None:
    assert seeded_order("abcde", 0) == seeded_order("edcba", 0) == ["d", "a", "c", "b", "e"]
    assert seeded_order("abcde", 1) != seeded_order("abcde", 0)


def test_each_fold_tests_once_and_validates_once() -> None:
    before = [replace(clip, fold=2 * int(clip.group[1:])) for clip in clips(groups=4)]
    roles: Counter[tuple[int | None, str]] = Counter()
    for fold in (0, 2, 4, 6):
        after = split_by_fold(before, fold)
        assert only_split_differs(before, after)
        assert {clip.fold for clip in after if clip.split == "test"} == {fold}
        assert {clip.fold for clip in after if clip.split == "valid"} == {(fold - 2) % 8}
        roles.update({(clip.fold, clip.split) for clip in after})
    assert {n for (_, split), n in roles.items() if split != "train"} == {1}


def test_folds_that_cannot_be_chosen() -> None:
    folded = [replace(clip, fold=int(clip.group[1:])) for clip in clips(groups=3)]
    with pytest.raises(ConfigError, match="fold=3; expected one of 0, 1, 2"):
        split_by_fold(folded, 3)
    with pytest.raises(DataError, match="three are needed"):
        split_by_fold([clip for clip in folded if clip.fold], 1)
    with pytest.raises(DataError, match="has no official fold"):
        split_by_fold([*folded, replace(folded[0], fold=None)], 1)
