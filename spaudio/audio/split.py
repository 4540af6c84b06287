"""Splits clips into training, validation and test, by clip or by group, from a seed.

The order comes from a hash of seed and name, so that a split depends neither on the order of the
input nor on a library's random numbers. scikit-learn's grouped stratified splits are not used: they
may change between releases, and they do not guarantee that every label is trained on.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from spaudio.audio.find import composed
from spaudio.audio.manifest import AnyClip, Clip
from spaudio.errors import ConfigError, DataError, counted, some


def seeded_order(names: Iterable[str], seed: int) -> list[str]:
    """Sorts names by `seeded_rank`."""
    return sorted(names, key=lambda name: seeded_rank(name, seed))


def seeded_rank(name: str, seed: int) -> bytes:
    """Returns a hash of the seed and a name, however its accents are composed."""
    return hashlib.sha256(os.fsencode(f"{seed}:{composed(name)}")).digest()


def check_split_seed(split_seed: int) -> None:
    """Checks a seed that NumPy also uses, which accepts no negative one, unlike `seeded_order`.

    Raises:
        ConfigError: If it is negative.
    """
    if split_seed < 0:
        raise ConfigError(f"split_seed={split_seed}; expected 0 or more")


def hold_out_validation(
    clips: Sequence[Clip], fraction: float, seed: int, by: str = "clip"
) -> list[Clip]:
    """Moves a fraction of the training split to validation; the test split is unchanged.

    Args:
        clips: Clips without a validation split.
        fraction: Fraction of the training clips, between 0 and 1.
        seed: Determines which clips are moved.
        by: ``"clip"`` takes the fraction of each label, spread over its groups; ``"group"`` takes
            whole groups, so that validation is on new groups, too.

    Returns:
        The clips, in the same order.

    Raises:
        DataError: If a label would have no training clip.
    """
    training = [clip for clip in clips if clip.split == "train"]
    divide = split_by_clip if by == "clip" else split_by_group
    divided = divide(training, valid_fraction=fraction, test_fraction=0.0, seed=seed)
    splits = {clip.path: clip.split for clip in divided}
    return [replace(clip, split=splits.get(clip.path, clip.split)) for clip in clips]


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Groups names that pairs connect, directly or not; maps each to one name of its group."""
    groups: dict[str, list[str]] = {}
    for one, two in pairs:
        first, second = (groups.setdefault(name, [name]) for name in (one, two))
        if first is not second:
            first += second
            groups |= dict.fromkeys(second, first)
    return {name: group[0] for name, group in groups.items()}


def split_by_fold(clips: Sequence[Clip], test_fold: int) -> list[Clip]:
    """Makes one official fold the test split, the fold before it validation, the rest training.

    The fold before the first one is the last one, so every fold is validated on once and tested on
    once, and the test fold never selects a model.

    Args:
        clips: Clips that all have a fold.
        test_fold: The fold to test on.

    Returns:
        The clips, in the same order.

    Raises:
        ConfigError: If no clip has that fold.
        DataError: If a clip has no fold, or there are fewer than three folds.
    """
    if unfolded := [clip.path for clip in clips if clip.fold is None]:
        raise DataError(
            f"clip {unfolded[0]!r} has no official fold; leave fold= and folds= out (the recipe "
            "folder makes several random splits with -m split_seed=0,1,2)"
        )
    folds = sorted({clip.fold for clip in clips if clip.fold is not None})
    if test_fold not in folds:
        raise ConfigError(f"fold={test_fold!r}; expected one of {', '.join(map(str, folds))}")
    if len(folds) < 3:
        raise DataError(f"folds {folds}: three are needed, to train, to validate and to test")
    splits = {test_fold: "test", folds[folds.index(test_fold) - 1]: "valid"}
    return [replace(clip, split=splits.get(clip.fold or 0, "train")) for clip in clips]


def split_by_clip(
    clips: Sequence[AnyClip], *, valid_fraction: float, test_fraction: float, seed: int
) -> list[AnyClip]:
    """Splits each label's clips by the same fractions, spread over the label's groups.

    A fraction above zero takes at least one clip.

    Raises:
        ConfigError: If the fractions are out of range.
        DataError: If a label has too few clips for the requested splits.
    """
    _check_fractions(valid_fraction, test_fraction)
    splits: dict[str, str] = {}
    for label, members in _gather(clips, lambda clip: clip.label).items():
        num_test, num_valid = (
            max(1, round(fraction * len(members))) if fraction else 0
            for fraction in (test_fraction, valid_fraction)
        )
        num_train = len(members) - num_test - num_valid
        if num_train <= 0:
            raise DataError(
                f"label {label!r} has {counted(len(members), 'clip')} to split: {num_test} for "
                f"test and {num_valid} for validation would leave none to train on; add clips of "
                "it, or leave the class out"
            )
        roles = ["test"] * num_test + ["valid"] * num_valid + ["train"] * num_train
        splits |= zip(_spread(members, seed), roles, strict=True)
    return [replace(clip, split=splits[clip.path]) for clip in clips]


def split_by_group(
    clips: Sequence[AnyClip], *, valid_fraction: float, test_fraction: float, seed: int
) -> list[AnyClip]:
    """Splits by whole groups, as close to the fractions for each label as the groups allow.

    Every label is trained on. Validation and test cover every label of which another split can
    spare a group.

    Raises:
        ConfigError: If the fractions are out of range.
        DataError: If there are too few groups for the requested splits.
    """
    _check_fractions(valid_fraction, test_fraction)
    fractions = {"train": 1 - valid_fraction - test_fraction}
    fractions |= {"valid": valid_fraction, "test": test_fraction}
    groups = {
        # Sorted, as rounding would make the sums of `_loss_with` depend on the order of the labels.
        group: Counter(sorted(clip.label for clip in members))
        for group, members in _gather(clips, lambda clip: clip.group).items()
    }
    wanted = {split: fraction for split, fraction in fractions.items() if fraction > 0}
    divisions, errors = [], []
    for anywhere in (False, True):  # either rule is better for some groups
        try:
            divisions.append(_Division(groups, wanted, seed, anywhere=anywhere))
        except DataError as error:
            errors.append(error)
    if not divisions:
        raise errors[0]
    best = min(divisions, key=_Division.quality)
    return [replace(clip, split=best.splits[clip.group]) for clip in clips]


class _Division:
    """Assigns groups to splits greedily, largest first, then moves some to cover the labels.

    Args:
        groups: Number of clips of each label, by group.
        fractions: Share of each split.
        seed: Seed of the order of groups of equal size.
        anywhere: Whether a label is covered by a group of any split, and the deviation of the split
            that it leaves counts too; else by one of training.
    """

    def __init__(
        self,
        groups: Mapping[str, Counter[str]],
        fractions: Mapping[str, float],
        seed: int,
        *,
        anywhere: bool,
    ) -> None:
        if len(groups) < len(fractions):
            named = ", ".join(repr(group) for group in sorted(groups))
            raise DataError(
                f"each of the splits {', '.join(fractions)} needs a group of its own, but there "
                f"are {len(groups)} ({named}); check what defines the groups, give splits, "
                "or split by clip"
            )
        self.groups, self.fractions, self.anywhere = groups, fractions, anywhere
        self.totals = Counter[str]()  # `sum` would copy it for each group
        for labels in groups.values():
            self.totals.update(labels)
        self.splits: dict[str, str] = {}
        self.counts = {split: Counter[str]() for split in fractions}
        self.order = seeded_order(groups, seed)
        for group in sorted(self.order, key=lambda name: -groups[name].total()):
            self._put(group, min(fractions, key=lambda split: self._loss_with(group, split)))
        self._cover_training()
        for split in [name for name in fractions if name != "train"]:
            self._cover(split)

    def quality(self) -> tuple[int, float]:
        """Returns the labels that splits lack, and the squared deviation; less is better."""
        shares = [
            (self.counts[split][label] / total, fraction)
            for split, fraction in self.fractions.items()
            for label, total in sorted(self.totals.items())
        ]
        lacking = sum(share == 0 for share, _ in shares)
        return lacking, sum((share - fraction) ** 2 for share, fraction in shares)

    def _put(self, group: str, split: str) -> None:
        if group in self.splits:
            self.counts[self.splits[group]].subtract(self.groups[group])
        self.splits[group] = split
        self.counts[split].update(self.groups[group])

    def _loss_with(self, group: str, split: str) -> float:
        """Returns the change in squared deviation from the fractions, over the group's labels."""
        loss = 0.0
        for label, number in self.groups[group].items():
            gap = self.counts[split][label] / self.totals[label] - self.fractions[split]
            loss += (gap + number / self.totals[label]) ** 2 - gap**2
        return loss

    def _loss_of_move(self, group: str, split: str) -> float:
        """Returns the change if an assigned group moves; with ``anywhere`` in both splits."""
        left, loss = self.splits[group], self._loss_with(group, split)
        if not self.anywhere:
            return loss
        for label, number in self.groups[group].items():
            gap = self.counts[left][label] / self.totals[label] - self.fractions[left]
            loss += (gap - number / self.totals[label]) ** 2 - gap**2
        return loss

    def _cover_training(self) -> None:
        for label in sorted(self.totals):
            if self.counts["train"][label] == 0:
                holders = [group for group in self.order if label in self.groups[group]]
                self._put(min(holders, key=lambda group: self.groups[group].total()), "train")

    def _cover(self, split: str) -> None:
        """Moves groups into ``split`` for the labels it lacks, if their splits have more."""
        for label in sorted(self.totals):
            if self.counts[split][label] > 0:
                continue
            holders = (group for group in self.order if label in self.groups[group])
            spare = [group for group in holders if self._can_spare(group, split)]
            if spare:
                self._put(min(spare, key=lambda group: self._loss_of_move(group, split)), split)
        if self.counts[split].total() == 0:
            # Those of another split may be all that training can spare.
            sizes = Counter(self.splits.values())
            spare = [
                group
                for group, other in self.splits.items()
                if other not in ("train", split) and sizes[other] > 1
            ]
            if spare:
                self._put(min(spare, key=lambda group: self._loss_of_move(group, split)), split)
        if self.counts[split].total() == 0:
            held = Counter(label for labels in self.groups.values() for label in labels)
            if max(held.values()) == 1:
                raise DataError(
                    f"each label has clips of one group only ({some(sorted(self.groups))}); check "
                    "what defines the groups, such as group_regex"
                )
            raise DataError(
                f"no group was found for split {split!r}: some label would lose its last training "
                "clip; add groups, try another seed, set the fraction to 0, or split by clip"
            )

    def _can_spare(self, group: str, split: str) -> bool:
        """Whether the split of a group would keep clips of all its labels without it."""
        left = self.splits[group]
        return (left != split if self.anywhere else left == "train") and all(
            self.counts[left][label] > number for label, number in self.groups[group].items()
        )


def _gather(clips: Sequence[AnyClip], key: Callable[[AnyClip], str]) -> dict[str, list[AnyClip]]:
    gathered: dict[str, list[AnyClip]] = {}
    for clip in clips:
        gathered.setdefault(key(clip), []).append(clip)
    return gathered


def _spread(clips: Sequence[AnyClip], seed: int) -> list[str]:
    """Returns paths in seeded order, alternating between groups."""
    gathered = _gather(clips, lambda clip: clip.group)
    queues = [
        seeded_order((clip.path for clip in gathered[group]), seed)
        for group in seeded_order(gathered, seed)
    ]
    return [path for turn in zip_longest(*queues) for path in turn if path is not None]


def _check_fractions(valid_fraction: float, test_fraction: float) -> None:
    if not 0 <= min(valid_fraction, test_fraction) <= valid_fraction + test_fraction < 1:
        raise ConfigError(
            f"valid_fraction={valid_fraction!r} and test_fraction={test_fraction!r}; expected "
            "numbers from 0, with a sum below 1 so that clips are left to train on"
        )
