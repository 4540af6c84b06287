"""How soon each setting reaches the baseline's best loss, in steps, seconds and FLOPs.

Each run is compared with the baseline run of the same seed and otherwise equal settings, by the
validation loss in its log. The loss is interpolated linearly between measurements.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from spaudio.errors import DataError
from spaudio.io.plain import read_json
from spaudio.report.comparison import Group, check_same_data, is_default
from spaudio.report.tables import plus_minus

# A setting and its baseline differ only in settings with these prefixes.
_OF_FILTER = ("filter.", "model.filter_")


class NoBaselineError(DataError):
    """Runs have nothing to be compared with."""


QUANTITIES = ("steps", "seconds", "CPU seconds", "FLOPs")


@dataclass
class Curve:
    """The validation loss of a run.

    Args:
        losses: In nats, one per measurement.
        spent: Cost of training up to each measurement, by quantity.
        test_loss: Loss of the test split, None if it was not measured.
    """

    losses: list[float]
    spent: dict[str, list[float]]
    test_loss: float | None = None

    @property
    def best(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    def until(self, loss: float, quantity: str) -> float | None:
        """Returns the cost of reaching a loss, or None if it was not reached."""
        spent = self.spent[quantity]
        i = next((i for i, here in enumerate(self.losses) if here <= loss), None)
        if i is None or i == 0:
            return None if i is None else spent[0]
        before, here = self.losses[i - 1], self.losses[i]
        return spent[i - 1] + (before - loss) / (before - here) * (spent[i] - spent[i - 1])


@dataclass
class Convergence:
    """A setting compared with its baseline.

    Args:
        name: The setting.
        baseline: Name of its baseline.
        parameters: Number of parameters of the model.
        curves: Its runs, by seed.
        pairs: Its run and that of the baseline, for each seed that both have.
    """

    name: str
    baseline: str
    parameters: int
    curves: dict[int, Curve]
    pairs: list[tuple[Curve, Curve]]


def read_step_costs(file: Path) -> dict[str, float]:
    """Reads seconds per step, by setting, as measured by ``python -m spaudio.bench step``.

    The runs of a study execute one after another, on machines with other load, which affects their
    own seconds. The benchmark times all settings in turn, in one process.

    Raises:
        DataError: If the file cannot be read or is not the benchmark's.
    """
    try:
        rows = read_json(file)["rows"]
        return {_timed_name(row["filter"]): float(row["seconds"]) for row in rows}
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise DataError(
            f"{file} is not what `python -m spaudio.bench step RECIPE --output FILE` writes"
        ) from error


def measure_convergence(
    groups: Sequence[Group],
    step_costs: Mapping[str, float] | None = None,
    baseline: str = "none",
) -> list[Convergence]:
    """Compares each group of runs with its baseline.

    Args:
        groups: From :func:`spaudio.report.comparison.group_runs`.
        step_costs: From :func:`read_step_costs`. None uses the seconds of the runs themselves.
        baseline: The baseline's filter, with the options in which groups differ, such as
            ``depthwise,filter.kernel_size=32``.

    Returns:
        One entry per group, in order. A baseline is compared with itself.

    Raises:
        NoBaselineError: If a group has no baseline: no group with that filter and otherwise equal
            settings.
        DataError: If a group has no seed in common with its baseline, has two baselines or other
            data, repeats a seed, or has a run without a log; or if ``step_costs`` lacks a setting.
    """
    baselines = _baselines(groups, baseline)
    found = []
    for group in groups:
        base = baselines.get(_shared(group))
        if base is None:
            raise NoBaselineError(
                f"{group.name} has no baseline: add runs that differ only in filter={baseline}"
            )
        check_same_data(group.records[0], base.records[0])
        curves, others = _curves(group, step_costs), _curves(base, step_costs)
        pairs = [(curves[seed], others[seed]) for seed in sorted(set(curves) & set(others))]
        if not pairs:
            raise DataError(
                f"{group.name} shares no seed with its baseline; run both on the same seeds"
            )
        parameters = group.records[0].facts["num_params"]
        found.append(Convergence(group.name, base.name, parameters, curves, pairs))
    return found


def _baselines(groups: Sequence[Group], baseline: str) -> dict[str, Group]:
    """Returns the baseline of groups with the same settings, but for filters.

    Raises:
        DataError: If two groups could be it, or the name cannot be read.
    """
    try:
        wanted = _timed_name(baseline)
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(
            f"--baseline {baseline}: expected FILTER,filter.OPTION=VALUE,..."
        ) from error
    found: dict[str, Group] = {}
    for group in sorted(groups, key=_has_place):  # filters after each layer come first
        if _filter(group) != wanted:
            continue
        other = found.setdefault(_shared(group), group)
        if other is not group and _has_place(group) == _has_place(other):
            raise DataError(
                f"{other.name} and {group.name} could both be the baseline {baseline}; leave one "
                "out"
            )
    return found


def convergence_rows(found: Sequence[Convergence]) -> list[dict[str, str]]:
    """Returns the rows of a table of settings. Columns without values are left out."""
    rows = []
    for one in found:
        pairs, itself = one.pairs, one.name == one.baseline
        known = [q for q in QUANTITIES if all(q in c.spent for pair in pairs for c in pair)]
        row = {
            "setting": one.name,
            "seeds": _seeds(one),
            "parameters": f"{one.parameters:,}",
        }
        for q in QUANTITIES[1:]:
            costs = [
                (c.spent[q][-1] / c.spent["steps"][-1]) / (b.spent[q][-1] / b.spent["steps"][-1])
                for c, b in pairs
                if q in known
            ]
            row[f"{q}/step"] = f"{fmean(costs):.2f}" if costs else "-"
        row["best valid loss"] = plus_minus([curve.best for curve in one.curves.values()])
        losses = [curve.best - base.best for curve, base in pairs]
        row["minus baseline's"] = "baseline" if itself else plus_minus(losses, sign=True)
        tests = [
            curve.test_loss - base.test_loss
            for curve, base in pairs
            if curve.test_loss is not None and base.test_loss is not None
        ]
        row["test loss minus baseline's"] = (
            "-" if not tests else "baseline" if itself else plus_minus(tests, sign=True)
        )
        for q in QUANTITIES:
            row[f"{q} to baseline's best"] = (
                "-" if q not in known else "1" if itself else _ratio(pairs, q)
            )
        rows.append(row)
    empty = [key for key in rows[0] if all(row[key] == "-" for row in rows)]
    return [{key: cell for key, cell in row.items() if key not in empty} for row in rows]


def _seeds(one: Convergence) -> str:
    """Returns the number of seeds and, if they differ, that of the seeds the baseline has too."""
    count, paired = len(one.curves), len(one.pairs)
    return str(count) if paired == count else f"{count} ({paired} paired)"


def _ratio(pairs: Sequence[tuple[Curve, Curve]], quantity: str) -> str:
    """Formats the cost of reaching the baseline's best loss, relative to the baseline.

    If some seeds did not reach the loss, their number is given instead.
    """
    ratios = []
    for curve, base in pairs:
        took, its = (one.until(base.best, quantity) for one in (curve, base))
        if took is not None and its is not None:
            ratios.append(took / its)
    missed = len(pairs) - len(ratios)
    return f"not reached ({missed} of {len(pairs)})" if missed else plus_minus(ratios, digits=2)


def _curves(group: Group, step_costs: Mapping[str, float] | None) -> dict[int, Curve]:
    """Returns the curves of a group by seed."""
    setting = _timed_setting(group)
    if step_costs is not None and setting not in step_costs:
        raise DataError(
            f"the step costs lack {group.name}; time it too: "
            f'python -m spaudio.bench step RECIPE --filter "{setting}"'
        )
    curves: dict[int, Curve] = {}
    for record in group.records:
        seed = record.facts["seed"]
        log = [entry for entry in record.log if entry["step"]]  # not the model before training
        if seed in curves:
            raise DataError(f"{record.name} repeats seed {seed} of {group.name}; leave one run out")
        if not log:
            raise DataError(f"{record.name} has no log.jsonl; train it again")
        steps = [float(entry["step"]) for entry in log]
        spent = {"steps": steps}
        if step_costs is not None:
            spent["seconds"] = [step * step_costs[setting] for step in steps]
        else:
            for quantity, key in (("seconds", "seconds"), ("CPU seconds", "cpu_seconds")):
                if all(key in entry for entry in log):
                    spent[quantity] = [float(entry[key]) for entry in log]
        if "step_flops" in record.facts:
            spent["FLOPs"] = [step * record.facts["step_flops"] for step in steps]
        losses = [float(entry["valid_loss"]) for entry in log]
        curves[seed] = Curve(losses, spent, record.facts.get("test.loss"))
    return curves


def _filter(group: Group) -> str:
    """Returns a group's filter and its options, in the form that the step benchmark takes."""
    options = {key: value for key, value in group.settings.items() if key.startswith("filter.")}
    name = options.pop("filter.name", group.records[0].settings["filter.name"])
    return _by_defaults({"filter.name": name, **options})


def _has_place(group: Group) -> bool:
    """Whether the filters of a group are elsewhere than after each layer."""
    places = ("model.filter_place", "model.filter_layers")
    return any(group.settings.get(key) not in (None, "after") for key in places)


def _shared(group: Group) -> str:
    """Returns the settings that a group shares with its baseline."""
    shared = {k: v for k, v in group.settings.items() if not k.startswith(_OF_FILTER)}
    return json.dumps(shared, sort_keys=True)


def _timed_setting(group: Group) -> str:
    """Returns the name under which a group must have been timed.

    It has every option of the filter that is not at its default, also those that all groups share,
    and the other settings in which groups differ.
    """
    settings = group.records[0].settings
    options = {key: value for key, value in settings.items() if key.startswith("filter.")}
    return _by_defaults({**group.settings, **options})


def _timed_name(name: str) -> str:
    """Returns the name of a timed setting in the form of :func:`_timed_setting`.

    Raises:
        yaml.YAMLError: If a value is not YAML.
    """
    filter, *options = split_options(name.replace(" ", "").removeprefix("filter="))
    given = (option.split("=", 1) for option in options)
    return _by_defaults({"filter.name": filter, **{k: yaml.safe_load(v) for k, v in given}})


def split_options(name: str) -> list[str]:
    """Splits ``bank,filter.num_filters=8`` into the filter and its settings.

    Values in brackets may contain commas, too.
    """
    return re.split(r",(?=[\w.]+=)", name)


def _by_defaults(settings: Mapping[str, Any]) -> str:
    """Writes a filter and its settings but those at their default, by name and without spaces."""
    given = {k: v for k, v in settings.items() if v is not None and not is_default(k, settings)}
    name = given.pop("filter.name")
    return ",".join([name, *(f"{key}={given[key]}" for key in sorted(given))]).replace(" ", "")
