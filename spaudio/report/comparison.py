"""Runs grouped by the settings that differ: one table, mean ± std over seeds.

Rows are compared with the first one by the paired difference of their runs of the same seed, with
the 95 % interval of Student's t. Folds, speakers and random splits share training clips, so their
variance has a term for the overlap (Nadeau & Bengio, Machine Learning 52, 2003), as in a study
(:mod:`spaudio.report.study_effects`).
"""

import inspect
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from spaudio.errors import DataError
from spaudio.filters import FILTERS
from spaudio.report.records import (
    NOT_COMPARED,
    OF_BASE,
    OF_DATA,
    OF_SETTING,
    Record,
    names_of,
)
from spaudio.report.run_command import without_folders
from spaudio.report.study_effects import mean_difference
from spaudio.report.tables import plus_minus

# With more differing settings, the name of a row would be unreadable.
_MANY = 4


@dataclass
class Group:
    """Runs that differ only in the seed and in what is averaged over.

    Args:
        settings: The settings in which the groups of a comparison differ, with the values of this
            group. Filter options at their defaults are left out if the filter's name is included.
        records: The runs of the group.
        given: The settings that its first run was given and that are not the same in all groups.
            They name the group if many settings differ because of a few, as with
            ``model=pretrained``; None if few settings differ, or if they do not tell the groups
            apart.
        over: A setting that is averaged over in addition to the seed.
        full: Whether the name shows full paths, because short ones would equal another group's
            name.
    """

    settings: dict[str, Any]
    records: list[Record]
    given: dict[str, Any] | None = None
    over: str | None = None
    full: bool = False

    @property
    def name(self) -> str:
        """The settings as text, such as ``filter=bank, model.dim=64``."""
        settings = self.settings if self.given is None else self.given
        if not self.full:
            settings = {key: without_folders(value, key) for key, value in settings.items()}
        named = (f"{key.removesuffix('.name')}={_shown(value)}" for key, value in settings.items())
        nothing = str(self.records[0].facts["recipe"]) if self.given is None else "defaults"
        return ", ".join(named) or nothing

    @property
    def spread_over(self) -> str:
        """What the ± of the results is over: seeds, or, if there is only one, ``over``."""
        seeds = {record.facts["seed"] for record in self.records}
        return "seed" if self.over is None or len(seeds) > 1 else self.over

    def results(self, fact: str) -> dict[str, float]:
        """Returns a result of each seed, in ascending order; runs of one seed are averaged.

        With a single seed, there is a result of each value of ``over`` instead.

        Args:
            fact: A name in :data:`spaudio.report.records.FACTS`.

        Returns:
            The results by seed or value.
        """
        by_seed = self.spread_over == "seed"
        repeated: dict[tuple[str, str], list[float]] = {}  # runs of one seed and value count as one
        for record in sorted(self.records, key=lambda record: record.facts["seed"]):
            seed, value = str(record.facts["seed"]), str(record.settings.get(self.over or ""))
            repeated.setdefault((seed, value), []).append(float(record.facts[fact]))
        found: dict[str, list[float]] = {}
        for (seed, value), values in repeated.items():
            found.setdefault(seed if by_seed else value, []).append(statistics.fmean(values))
        return {key: statistics.fmean(values) for key, values in found.items()}


def _shown(value: Any) -> str:
    """Returns a value as it is given on a command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def group_runs(records: Sequence[Record], over: str | None = None) -> list[Group]:
    """Groups runs that differ only in the seed.

    Args:
        records: The runs.
        over: A setting to average over as well, such as ``test_speaker`` or ``optim.lr``.

    Returns:
        The groups, in the order of their first run.

    Raises:
        DataError: If the data changed between the runs of a group, no run has the setting ``over``,
            or a seed lacks a value of it that another seed or group has, so that their means would
            not be comparable.
    """
    if over == "seed":
        raise DataError("--over seed: seeds are always averaged over; leave it out")
    if over is not None and not any(over in record.settings for record in records):
        raise DataError(
            f"no run has a setting {over!r} to average over; give its full name, such as optim.lr"
        )
    differing = [key for key in _differing(records) if key != over]
    groups: dict[str, Group] = {}
    covered: dict[tuple[str, int], set[str]] = {}
    for record in records:
        values = {key: record.settings[key] for key in differing if key in record.settings}
        if "filter.name" in values:
            values = {key: value for key, value in values.items() if not is_default(key, values)}
        name = json.dumps(values)
        groups.setdefault(name, Group(values, [], over=over)).records.append(record)
        if over is not None:
            seeds = covered.setdefault((name, record.facts["seed"]), set())
            seeds.add(str(record.settings.get(over)))
    for group in groups.values():
        _check_same_samples(group, over)
    every = set().union(*covered.values())
    for (name, seed), found in covered.items():
        if missing := sorted(every - found):
            raise DataError(
                f"seed {seed} of {name} has no run with {over}={missing[0]}, which others have; "
                "run it, or leave the others out"
            )
    if len(differing) > _MANY:
        _name_by_overrides(list(groups.values()), over)
    counts = Counter(group.name for group in groups.values())
    for group in [group for group in groups.values() if counts[group.name] > 1]:
        group.full = True
    return list(groups.values())


def _check_same_samples(group: Group, over: str | None) -> None:
    """Refuses seeds of a setting between which the data have changed."""
    seen: dict[str, Record] = {}
    for record in group.records:
        first = seen.setdefault(str(record.settings.get(over or "")), record)
        check_same_data(first, record, OF_SETTING)


def doubts(groups: Sequence[Group], over: str | None = None) -> list[str]:
    """Returns what makes the rows of a comparison less comparable than they look.

    Args:
        groups: From :func:`group_runs`.
        over: As given there.
    """
    found = []
    records = [record for group in groups for record in group.records]
    names = {id(one): name for one, name in zip(records, names_of(records), strict=True)}
    first: dict[Any, Record] = {}  # run of each recipe
    for record, fact in product(records, OF_DATA):
        if not record.facts.get(fact):
            continue
        other = first.setdefault((record.facts["recipe"], fact), record)
        if _has_other_data(other, record):
            found.append(
                f"{names[id(other)]} and {names[id(record)]} were made on different data; "
                "differences between them are not due to their settings alone"
            )
            break
    for record in [] if found else records:
        facts, value = record.facts, str(record.settings.get(over or ""))
        other = first.setdefault((facts["recipe"], facts["seed"], value), record)
        # The hash is that of all folds.
        other_fold = over != "fold" and other.settings.get("fold") != record.settings.get("fold")
        if other_fold or _has_other_data(other, record, ["splits_sha256"]):
            found.append(
                f"{names[id(other)]} and {names[id(record)]} were tested on different splits of "
                "the clips; differences between them are not due to their settings alone"
            )
            break
    held_out: dict[tuple[str, bool], Record] = {}  # run of each recipe, by its training clips
    for record in records:
        recipe, trained = record.facts["recipe"], bool(record.settings.get("validation.train"))
        held_out.setdefault((recipe, trained), record)
        if unlike := held_out.get((recipe, not trained)):
            more, fewer = (record, unlike) if trained else (unlike, record)
            found.append(trained_on_more(names[id(more)], names[id(fewer)]))
            break
    seen: dict[tuple[int, int, str], Record] = {}
    for number, group in enumerate(groups):
        for record in group.records:
            key = (number, record.facts["seed"], str(record.settings.get(over or "")))
            if (other := seen.setdefault(key, record)) is not record:
                found.append(
                    f"{names[id(other)]} and {names[id(record)]} have the same settings and seed; "
                    "their mean counts as one run"
                )
    return found


def trained_on_more(more: str, fewer: str) -> str:
    """Says that only the first of two runs or settings was trained on the validation clips."""
    return (
        f"{more} was trained on the validation clips as well, {fewer} was not; give both the same "
        "validation.train"
    )


def check_same_data(one: Record, other: Record, facts: Sequence[str] = OF_DATA) -> None:
    """Checks that two runs that are compared were made on the same data, if both say so.

    Args:
        one: A run.
        other: The other run.
        facts: What must be the same.

    Raises:
        DataError: If they were not.
    """
    names = " and ".join(names_of([one, other]))
    if OF_BASE in facts and _has_other_data(one, other, [OF_BASE]):
        raise DataError(
            f"{names} were made with different pretrained encoders: model.source was changed "
            "between them. Leave one out, or run it again"
        )
    if _has_other_data(one, other, facts):
        raise DataError(
            f"{names} were made on different data: the data were changed between them. Leave one "
            "out, or run it again"
        )


def _has_other_data(one: Record, other: Record, facts: Sequence[str] = OF_DATA) -> bool:
    """Whether two runs were made on different clips or labels; False if one does not say."""
    return any(len({run.facts.get(f) for run in (one, other)} - {None, ""}) > 1 for f in facts)


def _name_by_overrides(groups: Sequence[Group], over: str | None) -> None:
    """Names groups by their overrides, if these tell them apart."""
    given = []
    ignored = NOT_COMPARED | _other_paths([one for group in groups for one in group.records])
    for group in groups:
        first = group.records[0]
        pairs = (one.lstrip("+").split("=", 1) for one in first.overrides if "=" in one)
        # Runs from Python have every text in quotation marks.
        own = {k: v.strip("'\"") for k, v in pairs if k not in ignored and k != over}
        given.append({"recipe": str(first.facts["recipe"])} | own)
    every = {key for one in given for key in one}
    common = {key for key in every if len({one.get(key) for one in given}) == 1}
    named = [
        # The value of a setting has no quotation marks and is written in one way; that of a choice
        # of several settings, such as ``model=pretrained``, is known only as it was given.
        {k: group.records[0].settings.get(k, v) for k, v in one.items() if k not in common}
        for group, one in zip(groups, given, strict=True)
    ]
    if len({json.dumps(one, sort_keys=True) for one in named}) == len(groups):
        for group, one in zip(groups, named, strict=True):
            group.given = one


def compare(groups: Sequence[Group]) -> list[dict[str, str]]:
    """Compares classifiers by their results on the test split.

    Args:
        groups: From :func:`group_runs`.

    Returns:
        The rows of a table.

    Raises:
        DataError: If the runs are measured by different metrics.
    """
    metrics = sorted({record.facts["metric"] for group in groups for record in group.records})
    if len(metrics) > 1:
        raise DataError(f"{' and '.join(metrics)} cannot be compared; name runs of one kind")
    metric = metrics[0]
    other, title = ("macro_f1", "macro F1") if metric == "accuracy" else ("auc", "macro AUC")
    adapted = any("trained_params" in r.facts for group in groups for r in group.records)
    single = len(groups) > 1 and all(len(group.records) == 1 for group in groups)
    differences = [_minus(group, groups[0], f"test.{metric}") for group in groups]
    paired = any(differences)
    return [
        {
            "setting": group.name,
            **({"run": name} if single else {}),
            "seeds": str(len({record.facts["seed"] for record in group.records})),
            **({"± over": group.spread_over} if group.over is not None else {}),
            f"test {metric}": _spread(group, f"test.{metric}"),
            **({"minus the first": difference or "-"} if paired else {}),
            title: _spread(group, f"test.{other}")
            if all(f"test.{other}" in record.facts for record in group.records)
            else "-",  # the AUC of no class is defined
            "floor (SVM)": _spread(group, "floor.svm"),
            "parameters": f"{group.records[0].facts['num_params']:,}",
            "of filters": f"{group.records[0].facts['filter_params']:,}",
            "train s": f"{_train_seconds(group):.0f}",
            "ms/step": _step_milliseconds(group),
            **(_adapting(group) if adapted else {}),
        }
        for group, name, difference in zip(
            groups, names_of([g.records[0] for g in groups]), differences, strict=True
        )
    ]


def _spread(group: Group, fact: str) -> str:
    return plus_minus(list(group.results(fact).values()))


def _train_seconds(group: Group) -> float:
    """Returns the mean time of training and, if there was any, of pretraining without labels."""
    before = [float(record.facts.get("pretrain.seconds", 0)) for record in group.records]
    return _mean(group, "seconds.train") + statistics.fmean(before)


def _mean(group: Group, fact: str) -> float:
    return statistics.fmean(group.results(fact).values())


def _minus(group: Group, first: Group, fact: str) -> str:
    """Returns the mean difference of two groups' runs of the same seed, and its 95 % interval.

    It is empty for fewer than two pairs, and for runs of other recipes or, over folds, of another
    seed. It has no interval if all differences are equal.
    """
    if group is first or group.spread_over != first.spread_over:
        return ""
    facts = ["recipe"] if group.spread_over == "seed" else ["recipe", "seed"]
    if any(group.records[0].facts[fact] != first.records[0].facts[fact] for fact in facts):
        return ""
    here, there = group.results(fact), first.results(fact)
    differences = np.array([here[key] - there[key] for key in here if key in there])
    if len(differences) < 2:
        return ""
    of_seeds = group.spread_over == "seed"
    overlap = 0.0 if of_seeds else _overlap(group, len(here.keys() | there.keys()))
    mean, half, _ = mean_difference([differences], [overlap])
    pairs = f", {len(differences)} pairs" if here.keys() != there.keys() else ""
    interval = "" if math.isnan(half) else f" ({mean - half:+.4f} to {mean + half:+.4f})"
    return f"{mean:+.4f}{interval}{pairs}"


def _overlap(group: Group, splits: int) -> float:
    """Returns test clips per other clip: 1 / (K - 1) for K folds, or if their number is unknown."""
    names = ("clips.test", "clips.train", "clips.valid")
    sizes = [[record.facts.get(name, 0) for name in names] for record in group.records]
    if not all(test and rest for test, *rest in sizes):
        return 1 / (splits - 1)
    return statistics.fmean(test / sum(rest) for test, *rest in sizes)


def _step_milliseconds(group: Group) -> str:
    """Returns the mean time of a step; a dash for a probe, whose head is fitted without steps."""
    if not all("step_seconds" in record.facts for record in group.records):
        return "-"
    return f"{1000 * _mean(group, 'step_seconds'):.0f}"


def _adapting(group: Group) -> dict[str, str]:
    """Returns the cost of adapting a pretrained encoder; dashes if a run of the group did not."""
    if not all("trained_params" in record.facts for record in group.records):
        return dict.fromkeys(("trained", "s to best", "MiB at most"), "-")
    # Not of a run whose log was lost.
    known = all(record.facts.get("best_seconds") is not None for record in group.records)
    seconds = f"{_mean(group, 'best_seconds'):.0f}" if known else "-"
    memory = max(record.facts["peak_memory_bytes"] for record in group.records) / 2**20
    trained = group.records[0].facts["trained_params"]
    return {
        "trained": f"{trained:,}",
        "s to best": seconds,
        "MiB at most": f"{memory:,.0f}",
    }


def _differing(records: Sequence[Record]) -> list[str]:
    """Returns the settings in which runs differ, the filter's name first.

    An option of a filter counts only if it differs between runs with the same filter.
    """
    found = []
    ignored = NOT_COMPARED | _other_paths(records)
    for key in sorted({key for record in records for key in record.settings} - ignored):
        by_filter: dict[Any, set[str]] = {}
        is_option = key.startswith("filter.") and key != "filter.name"
        for record in records:
            name = record.settings.get("filter.name") if is_option else None
            by_filter.setdefault(name, set()).add(json.dumps(record.settings.get(key)))
        if any(len(values) > 1 for values in by_filter.values()):
            found.append(key)
    return sorted(found, key=lambda key: key != "filter.name")


def _other_paths(records: Sequence[Record]) -> frozenset[str]:
    """Returns the settings that only name the same data, perhaps by other paths."""
    data = {tuple(record.facts.get(fact) for fact in OF_DATA) for record in records}
    same = len(data) == 1 and bool(next(iter(data))[0])
    return frozenset({"source", "corpus"} if same else ())


def is_default(key: str, settings: Mapping[str, Any]) -> bool:
    """Returns whether a setting is an option of the filter ``filter.name`` at its default."""
    filter = FILTERS.get(settings["filter.name"])
    if filter is None or not key.startswith("filter."):
        return False
    option = inspect.signature(filter).parameters.get(key.removeprefix("filter."))
    # Through JSON, in which tuples and lists are the same.
    return option is not None and json.dumps(option.default, default=str) == json.dumps(
        settings[key]
    )
