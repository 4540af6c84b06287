"""How soon each setting reaches the baseline's best loss, in steps, seconds and FLOPs.

Every run is compared with the baseline run of the same seed and otherwise equal settings, by the
validation loss in its log. Between two measurements the loss is interpolated linearly.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from spaudio.errors import DataError
from spaudio.report.comparison import Group
from spaudio.report.records import Record
from spaudio.report.tables import make_table, plus_minus

# A setting and its baseline differ only in settings with these prefixes.
_OF_FILTER = ("filter.", "model.filter_")

QUANTITIES = ("steps", "seconds", "CPU seconds", "FLOPs")


@dataclass
class Curve:
    """The validation loss of a run.

    Args:
        losses: In nats, one per measurement.
        spent: What training had taken until each measurement, by quantity.
        test_loss: Loss of the test split, None if it was not measured.
    """

    losses: list[float]
    spent: dict[str, list[float]]
    test_loss: float | None = None

    @property
    def best(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    def reached(self, loss: float) -> dict[str, float] | None:
        """Returns what it took to reach a loss, by quantity, or None if it was not reached."""
        i = next((i for i, here in enumerate(self.losses) if here <= loss), None)
        if i is None:
            return None
        if i == 0:
            return {name: values[0] for name, values in self.spent.items()}
        before, here = self.losses[i - 1], self.losses[i]
        share = (before - loss) / (before - here)
        return {
            name: values[i - 1] + share * (values[i] - values[i - 1])
            for name, values in self.spent.items()
        }


@dataclass
class Convergence:
    """A setting compared with its baseline.

    Args:
        name: The setting.
        baseline: Name of its baseline.
        parameters: Number of parameters of the model.
        curves: Its runs, by seed.
        paired: Number of seeds that both have.
        differences: Lowest loss minus that of the baseline, one per paired seed.
        test_differences: Loss of the test split minus that of the baseline, one per paired seed
            for which both were measured.
        step_ratio: What a step takes relative to one of the baseline, by quantity; mean over
            paired seeds.
        ratios: What it took to reach the baseline's best loss, relative to the baseline, by
            quantity; one per paired seed that reached it.
    """

    name: str
    baseline: str
    parameters: int
    curves: dict[int, Curve]
    paired: int = 0
    differences: list[float] = field(default_factory=list)
    test_differences: list[float] = field(default_factory=list)
    step_ratio: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, list[float]] = field(default_factory=dict)


def read_step_costs(file: Path) -> dict[str, float]:
    """Reads seconds per step, by setting, as ``python -m spaudio.bench step`` has measured them.

    Runs of a study take place one after another, on machines with other work; their own seconds
    depend on that. The benchmark times all settings in turn, in one process.

    Raises:
        DataError: If the file cannot be read or is not the benchmark's.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
        return {_plain(row["filter"]): float(row["seconds"]) for row in rows}
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
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
        step_costs: From :func:`read_step_costs`. None takes the seconds of the runs themselves.
        baseline: The baseline's filter, with the options in which groups differ, such as
            ``depthwise,filter.kernel_size=32``.

    Returns:
        One entry per group, in order. A baseline is compared with itself.

    Raises:
        DataError: If a group has no baseline (a group with that filter, otherwise equal settings
            and a common seed), repeats a seed, or has a run without a log; or if ``step_costs``
            lacks a setting.
    """
    baselines = {_shared(group): group for group in groups if _filter(group) == _plain(baseline)}
    return [_measure(group, baselines, step_costs, baseline) for group in groups]


def _measure(
    group: Group,
    baselines: Mapping[str, Group],
    step_costs: Mapping[str, float] | None,
    baseline: str,
) -> Convergence:
    base = baselines.get(_shared(group))
    if base is None:
        raise DataError(
            f"{group.name} has no baseline: add runs that differ in filter={baseline} alone"
        )
    curves, others = _curves(group, step_costs), _curves(base, step_costs)
    pairs = [(curves[seed], others[seed]) for seed in sorted(set(curves) & set(others))]
    if not pairs:
        raise DataError(
            f"{group.name} shares no seed with its baseline; run both on the same seeds"
        )
    found = Convergence(
        group.name, base.name, group.records[0].facts["num_params"], curves, len(pairs)
    )
    for curve, other in pairs:
        found.differences.append(curve.best - other.best)
        if curve.test_loss is not None and other.test_loss is not None:
            found.test_differences.append(curve.test_loss - other.test_loss)
        took, its = curve.reached(other.best), other.reached(other.best)
        for quantity in took or {}:
            if took and its and quantity in its:
                found.ratios.setdefault(quantity, []).append(took[quantity] / its[quantity])
    for quantity in QUANTITIES[1:]:
        if all(quantity in curve.spent for pair in pairs for curve in pair):
            found.step_ratio[quantity] = statistics.fmean(
                _per_step(curve, quantity) / _per_step(other, quantity) for curve, other in pairs
            )
    return found


def lay_out(found: Sequence[Convergence]) -> tuple[Table, str]:
    """Makes a table of settings.

    Args:
        found: From :func:`measure_convergence`.

    Returns:
        The table for the terminal, and the same as Markdown. Columns without values are left out.
    """
    known = {name for one in found for curve in one.curves.values() for name in curve.spent}
    quantities = [quantity for quantity in QUANTITIES if quantity in known]
    tested = any(one.test_differences for one in found)
    header = [
        "setting",
        "seeds",
        "parameters",
        *(f"{quantity}/step" for quantity in quantities[1:]),
        "best valid loss",
        "minus baseline's",
        *(["test loss minus baseline's"] if tested else []),
        *(f"{quantity} to baseline's best" for quantity in quantities),
    ]
    body = []
    for one in found:
        itself = one.name == one.baseline
        differences = [one.differences, one.test_differences] if tested else [one.differences]
        body.append([
            one.name,
            str(len(one.curves)),
            f"{one.parameters:,}",
            *(f"{one.step_ratio[q]:.2f}" if q in one.step_ratio else "-" for q in quantities[1:]),
            plus_minus([curve.best for curve in one.curves.values()]),
            *(
                "baseline" if itself else plus_minus(values, sign=True) if values else "-"
                for values in differences
            ),
            *("1" if itself else _ratio(one, quantity) for quantity in quantities),
        ])  # fmt: skip
    return make_table(
        "Validation loss in nats; ratios to the baseline of the same seed", header, body
    )


def _curves(group: Group, step_costs: Mapping[str, float] | None) -> dict[int, Curve]:
    """Returns the curves of a group by seed."""
    step_seconds = None
    if step_costs is not None:
        setting = _plain(group.name).removeprefix("filter=")
        if setting not in step_costs:
            raise DataError(
                f"the step costs lack {group.name}; time it too: "
                f'python -m spaudio.bench step RECIPE --filter "{setting}"'
            )
        step_seconds = step_costs[setting]
    curves: dict[int, Curve] = {}
    for record in group.records:
        if record.facts["seed"] in curves:
            raise DataError(
                f"{record.name} repeats seed {record.facts['seed']} of {group.name}; leave one "
                "run out"
            )
        curves[record.facts["seed"]] = _curve(record, step_seconds)
    return curves


def _curve(record: Record, step_seconds: float | None) -> Curve:
    if not record.log:
        raise DataError(f"{record.name} has no log.jsonl; train it again")
    steps = [float(entry["step"]) for entry in record.log]
    spent = {"steps": steps}
    if step_seconds is not None:
        spent["seconds"] = [step * step_seconds for step in steps]
    else:
        for quantity, key in (("seconds", "seconds"), ("CPU seconds", "cpu_seconds")):
            if all(key in entry for entry in record.log):
                spent[quantity] = [float(entry[key]) for entry in record.log]
    if "step_flops" in record.facts:
        spent["FLOPs"] = [step * record.facts["step_flops"] for step in steps]
    losses = [float(entry["valid_loss"]) for entry in record.log]
    return Curve(losses, spent, record.facts.get("test.loss"))


def _per_step(curve: Curve, quantity: str) -> float:
    return curve.spent[quantity][-1] / curve.spent["steps"][-1]


def _ratio(one: Convergence, quantity: str) -> str:
    """Formats a ratio. If some seeds did not reach the loss, their number is given instead."""
    missed = one.paired - len(one.ratios.get("steps", []))
    if missed:
        return f"not reached ({missed} of {one.paired})"
    return plus_minus(one.ratios[quantity], digits=2) if quantity in one.ratios else "not counted"


def _filter(group: Group) -> str:
    """Returns a group's filter and its options as the benchmark of steps takes them."""
    options = {key: value for key, value in group.settings.items() if key.startswith("filter.")}
    options.pop("filter.name", None)
    name = str(group.records[0].settings["filter.name"])
    return _plain(",".join([name, *(f"{key}={value}" for key, value in options.items())]))


def _shared(group: Group) -> str:
    """Returns the settings that a group shares with its baseline."""
    shared = {k: v for k, v in group.settings.items() if not k.startswith(_OF_FILTER)}
    return json.dumps(shared, sort_keys=True)


def _plain(name: str) -> str:
    """Removes spaces, which have no meaning in the name of a setting."""
    return name.removeprefix("filter=").replace(" ", "")
