import random
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from spaudio.audio.manifest import Clip
from spaudio.audio.split import (
    hold_out_validation,
    joined,
    seeded_order,
    split_by_clip,
    split_by_fold,
    split_by_group,
)
from spaudio.errors import ConfigError, DataError


def clips(
    labels: int = 4, groups: int = 6, each: int = 10, test_group: int = -1, own: bool = False
) -> list[Clip]:
    """Every group has ``each`` clips of every label; if ``own``, each label has its own groups."""
    return [
        Clip(
            f"{label}_{group}_{i}.wav",
            f"l{label}",
            "test" if group == test_group else "train",
            f"{label}/{group}" if own else f"g{group}",
            1,
            8000,
        )
        for label in range(labels)
        for group in range(groups)
        for i in range(each)
    ]


def only_split_differs(before: Sequence[Clip], after: Sequence[Clip]) -> bool:
    plain = [[replace(clip, split="train") for clip in part] for part in (before, after)]
    return plain[0] == plain[1]


def groups_of(divided: Sequence[Clip], split: str) -> set[str]:
    return {clip.group for clip in divided if clip.split == split}


def shares(divided: Sequence[Clip]) -> set[tuple[int, ...]]:
    """Numbers of clips in training, validation and test, of every label."""
    counts = Counter((clip.label, clip.split) for clip in divided)
    labels = {clip.label for clip in divided}
    return {tuple(counts[la, split] for split in ("train", "valid", "test")) for la in labels}


def test_carving_by_clip_is_stratified_and_spread_over_groups() -> None:
    before = clips(test_group=5)
    after = hold_out_validation(before, 0.1, seed=3)
    assert only_split_differs(before, after)
    assert [c.split == "test" for c in before] == [c.split == "test" for c in after]
    valid = Counter((clip.label, clip.group) for clip in after if clip.split == "valid")
    assert valid == {(f"l{label}", f"g{group}"): 1 for label in range(4) for group in range(5)}
    # A share above zero takes one clip at least.
    assert shares(hold_out_validation(clips(groups=1, each=3), 0.01, seed=0)) == {(2, 1, 0)}


def test_accents_may_be_composed_or_not() -> None:
    """A copy of the data on another system has the same split."""

    def split_of(form: Literal["NFC", "NFD"]) -> list[str]:
        named = [
            replace(clip, path=unicodedata.normalize(form, f"\u00e9/{clip.path}"))
            for clip in clips(own=True)
        ]
        return [clip.split for clip in hold_out_validation(named, 0.2, seed=0)]

    assert split_of("NFC") == split_of("NFD")


def test_carving_by_group_takes_whole_groups() -> None:
    after = hold_out_validation(clips(test_group=5), 0.2, seed=3, by="group")
    assert len(groups_of(after, "valid")) == 1
    assert not groups_of(after, "valid") & (groups_of(after, "train") | {"g5"})
    assert groups_of(after, "test") == {"g5"}


@pytest.mark.parametrize("by", ["clip", "group"])
def test_carving_depends_on_the_seed_and_not_on_the_order(by: str) -> None:
    before = clips()
    shuffled = random.Random(0).sample(before, len(before))
    held_out = {
        seed: {c.path for c in hold_out_validation(before, 0.2, seed, by) if c.split == "valid"}
        for seed in range(6)
    }
    again = {c.path for c in hold_out_validation(shuffled, 0.2, 0, by) if c.split == "valid"}
    assert again == held_out[0]
    assert len({frozenset(paths) for paths in held_out.values()}) > 2
    if by == "clip":  # of which groups a few clips are taken, too
        few = {
            frozenset(groups_of(hold_out_validation(before, 0.02, seed), "valid"))
            for seed in range(6)
        }
        assert len(few) > 2


def test_a_label_keeps_a_training_clip() -> None:
    few = [*clips(), Clip("x.wav", "rare", "train", "g0", 1, 8000)]
    with pytest.raises(DataError, match="'rare' has 1 clip to"):
        hold_out_validation(few, 0.1, seed=0)
    # By group there is a way: the group that holds the rare label stays.
    for seed in range(10):
        after = hold_out_validation(few, 0.2, seed, by="group")
        assert after[-1].split == "train"
    with pytest.raises(DataError, match="clips of one group only"):
        hold_out_validation(clips(groups=1, own=True), 0.2, seed=0, by="group")
    # Of two groups that validation and test lack, training keeps one.
    two = [*clips(), *(Clip(f"x{i}.wav", "rare", "train", f"r{i}", 1, 8000) for i in range(2))]
    for seed in range(5):
        after = split_by_group(two, valid_fraction=0.1, test_fraction=0.1, seed=seed)
        assert sorted(clip.split for clip in after[-2:]) == ["train", "valid"]
    lone = [*clips(), *(Clip(f"x{i}.wav", "lone", "train", "x", 1, 8000) for i in range(9))]
    after = split_by_group(lone, valid_fraction=0.1, test_fraction=0.6, seed=0)
    assert {clip.split for clip in after if clip.label == "lone"} == {"train"}
    assert {clip.split for clip in after if clip.label == "l0"} == {"train", "valid", "test"}


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(DataError, match="needs a group of its own, but there are 2 "):
        split_by_group(clips(groups=2), valid_fraction=0.1, test_fraction=0.2, seed=0)
    two = split_by_group(clips(groups=2), valid_fraction=0.0, test_fraction=0.2, seed=0)
    assert {clip.split for clip in two} == {"train", "test"}
    for test_fraction in (0.5, -0.5):
        with pytest.raises(ConfigError, match=f"test_fraction={test_fraction}"):
            split_by_clip(clips(), valid_fraction=0.5, test_fraction=test_fraction, seed=0)


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
    counts = Counter(clip.split for clip in after)
    assert counts["valid"] / 600 == pytest.approx(0.15, abs=0.05)
    assert counts["test"] / 600 == pytest.approx(0.25, abs=0.05)
    assert all(min(share) > 0 for share in shares(after))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_label_has_its_shares(seed: int) -> None:
    by_clip = split_by_clip(clips(), valid_fraction=0.1, test_fraction=0.2, seed=seed)
    assert shares(by_clip) == {(42, 6, 12)}
    # As in sound-event sets, where a recording is of one class: 8 recordings of 5 clips.
    recordings = clips(labels=10, groups=8, each=5, own=True)
    after = split_by_group(recordings, valid_fraction=0.125, test_fraction=0.25, seed=seed)
    assert shares(after) == {(25, 5, 10)}
    few = clips(labels=3, groups=3, each=4, own=True)
    after = split_by_group(few, valid_fraction=0.1, test_fraction=0.2, seed=seed)
    assert shares(after) == {(4, 4, 4)}


def test_small_groups_fill_what_a_large_one_leaves() -> None:
    groups = ["large"] * 40 + [f"g{i}" for i in range(60)]
    before = [Clip(f"{i}.wav", "l", "train", group, 1, 8000) for i, group in enumerate(groups)]
    after = split_by_group(before, valid_fraction=0.1, test_fraction=0.2, seed=0)
    assert shares(after) == {(70, 10, 20)}
    # All that training can spare was put into one split at first.
    groups = ["large"] * 60 + ["g1"] * 2 + ["g2"] * 2
    before = [Clip(f"{i}.wav", "l", "train", group, 1, 8000) for i, group in enumerate(groups)]
    after = split_by_group(before, valid_fraction=0.1, test_fraction=0.2, seed=0)
    assert shares(after) == {(60, 2, 2)}


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([{"a": 200}, {"a": 11}, {"a": 4}, {"a": 6, "b": 5}, {"b": 3}], (211, 4, 14)),
        ([{"a": 30, "b": 5}, {"a": 5}, {"b": 5}, {"a": 4, "b": 1}], None),
        # Here a single group of training, which holds both labels, is the better one.
        ([{"a": 6, "b": 7}, {"a": 3, "b": 10}, {"a": 9}, {"a": 5, "b": 10}], (24, 13, 13)),
        ([{"b": 4}, {"a": 9}, {"a": 8, "b": 3}], None),  # only one of the two ways finds a division
    ],
)
def test_a_label_is_covered_by_a_group_whose_loss_is_small(
    sizes: list[dict[str, int]], expected: tuple[int, int, int] | None
) -> None:
    """The largest group stays in training, whichever split lacks a label that it holds."""
    before = [
        Clip(f"{group}/{label}{i}.wav", label, "train", f"r{group}", 1, 8000)
        for group, labels in enumerate(sizes)
        for label, number in labels.items()
        for i in range(number)
    ]
    after = split_by_group(before, valid_fraction=0.1, test_fraction=0.2, seed=0)
    counts = Counter(clip.split for clip in after)
    assert counts["train"] > 0.45 * len(after)
    if expected is not None:
        assert tuple(counts[split] for split in ("train", "valid", "test")) == expected


def test_pairs_join_groups_that_were_joined_before() -> None:
    found = joined([("a", "b"), ("c", "d"), ("b", "d"), ("x", "y")])
    assert len({found[name] for name in "abcd"}) == 1
    assert found["x"] == found["y"] != found["a"]


def test_seeded_order_is_fixed_for_ever() -> None:
    assert seeded_order("abcde", 0) == seeded_order("edcba", 0) == ["d", "a", "c", "b", "e"]
    assert seeded_order("abcde", 1) != seeded_order("abcde", 0)


def test_each_fold_tests_once_and_validates_once() -> None:
    folded = [replace(clip, fold=2 * int(clip.group[1:])) for clip in clips(groups=4)]
    for fold in (0, 2, 4, 6):
        after = split_by_fold(folded, fold)
        assert only_split_differs(folded, after)
        roles = {clip.fold: clip.split for clip in after if clip.split != "train"}
        assert roles == {fold: "test", (fold - 2) % 8: "valid"}
    with pytest.raises(ConfigError, match="fold=3; expected one of 0, 2, 4, 6"):
        split_by_fold(folded, 3)
    with pytest.raises(DataError, match="three are needed"):
        split_by_fold([clip for clip in folded if clip.fold in (2, 4)], 2)
    with pytest.raises(DataError, match=r"has no official fold.* -m split_seed=0,1,2"):
        split_by_fold([*folded, replace(folded[0], fold=None)], 2)


@pytest.mark.parametrize("number", [888, 1419])  # of 3,000, those that had two splits
def test_rounding_does_not_make_the_order_of_labels_matter(number: int) -> None:
    """As in a table that was sorted anew: the deviations of several labels are added up."""
    draw = random.Random(number)
    groups, labels = draw.randint(4, 14), draw.randint(2, 7)
    before = [
        Clip(f"{group}/{label}-{i}.wav", f"l{label}", "train", f"g{group}", 1, 8000)
        for group in range(groups)
        for label in range(labels)
        for i in range(draw.choice([0, 1, 1, 2, 3]))
    ]
    divided = [
        split_by_group(order, valid_fraction=0.1, test_fraction=0.2, seed=0)
        for order in (before, before[::-1])
    ]
    assert divided[0] == divided[1][::-1]
