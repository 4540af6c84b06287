"""How soon each setting reaches the baseline's best loss: in steps, in seconds, in FLOPs.

Every run is compared with the run of the same seed that has no filter and is otherwise set alike,
by validation loss as their logs have it. Between two measurements the loss counts as a straight
line.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from spaudio.errors import DataError
from spaudio.report.compare import Row, plus_minus, setting_name, two_forms
from spaudio.report.step_costs import StepCosts
from spaudio.train.log import read_log

# Settings of the filter: a baseline differs in these alone.
_OF_FILTER = ("filter.", "model.filter_")

QUANTITIES = ("steps", "seconds", "CPU seconds", "FLOPs")


@dataclass(frozen=True)
class Curve:
    """The validation loss of a run.

    Args:
        losses: In nats, of each measurement.
        spent: What training had taken until each measurement, by quantity; a quantity that the run
            does not know is missing.
    """

    losses: list[float]
    spent: dict[str, list[float]]

    @classmethod
    def read(cls, run: Path, report: dict[str, Any], step_seconds: float | None = None) -> Curve:
        """Reads a finished run's log.

        Args:
            run: Its folder.
            report: Its ``report.json``.
            step_seconds: What a step costs; None takes the seconds of the run itself.

        Raises:
            DataError: If the log is empty.
        """
        records = read_log(run)
        if not records:
            raise DataError(f"{run} has no log.jsonl; train it anew")
        steps = [float(record["step"]) for record in records]
        spent = {"steps": steps}
        if step_seconds is not None:
            spent["seconds"] = [step * step_seconds for step in steps]
        else:
            spent["seconds"] = [float(record["seconds"]) for record in records]
            if all("cpu_seconds" in record for record in records):
                spent["CPU seconds"] = [float(record["cpu_seconds"]) for record in records]
        if "step_flops" in report:
            spent["FLOPs"] = [step * report["step_flops"] for step in steps]
        return cls([float(record["valid_loss"]) for record in records], spent)

    @property
    def best(self) -> float:
        """The lowest loss."""
        return min(self.losses)

    def reached(self, loss: float) -> dict[str, float] | None:
        """What it took to come to a loss, by quantity; None if it was not reached."""
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


@dataclass(frozen=True)
class Convergence:
    """A setting against its baseline.

    Args:
        name: The setting.
        baseline: Its baseline's name.
        curves: Of its runs, by seed.
        differences: Lowest loss minus that of the baseline, of each seed that both have.
        ratios: By quantity, of each such seed that reached the baseline's best loss: what that
            took, over what it took the baseline.
        paired: Number of seeds that both have.
        parameters: Of the model.
        step_ratio: What a step takes over what one of the baseline takes, by quantity; mean over
            paired seeds.
        test_differences: Loss of the test split minus that of the baseline, of each paired seed
            whose reports have it: no epoch was selected by it.
    """

    name: str
    baseline: str
    curves: dict[int, Curve]
    differences: list[float] = field(default_factory=list)
    ratios: dict[str, list[float]] = field(default_factory=dict)
    paired: int = 0
    parameters: int = 0
    step_ratio: dict[str, float] = field(default_factory=dict)
    test_differences: list[float] = field(default_factory=list)


def measure_convergence(
    rows: Sequence[Row], costs: StepCosts | None = None, baseline: str = "none"
) -> list[Convergence]:
    """Compares each group of runs with its baseline.

    Args:
        rows: From :func:`spaudio.report.compare.group_runs`.
        costs: What a step of each setting takes; None takes the seconds of the runs themselves.
        baseline: The baseline's filter, with those of its options that rows name, such as
            ``depthwise,filter.kernel_size=32``.

    Returns:
        One a row, in order; a baseline is its own, at a difference of 0 and ratios of 1.

    Raises:
        DataError: If a row has no baseline: a row with that filter that is otherwise set alike and
            shares a seed; or if ``costs`` lacks a setting.
    """
    baselines = {_key(row): row for row in rows if _choice(row) == baseline.replace(" ", "")}
    return [_measure(row, baselines, costs, baseline) for row in rows]


def _measure(
    row: Row, baselines: dict[str, Row], costs: StepCosts | None, baseline: str
) -> Convergence:
    name = setting_name(row)
    base = baselines.get(_key(row))
    if base is None:
        raise DataError(f"{name} has no baseline: add runs that differ in filter={baseline} alone")
    curves, others = _curves(row, costs), _curves(base, costs)
    seeds = sorted(set(curves) & set(others))
    if not seeds:
        raise DataError(f"{name} shares no seed with its baseline; run both on the same seeds")
    differences: list[float] = []
    ratios: dict[str, list[float]] = {}
    for seed in seeds:
        goal = others[seed].best
        differences.append(curves[seed].best - goal)
        took, its = curves[seed].reached(goal), others[seed].reached(goal)
        if took is None or its is None:
            continue
        for quantity in took:
            if quantity in its:
                ratios.setdefault(quantity, []).append(took[quantity] / its[quantity])
    step_ratio = {
        quantity: statistics.fmean(
            curves[seed].spent[quantity][-1]
            / curves[seed].spent["steps"][-1]
            / (others[seed].spent[quantity][-1] / others[seed].spent["steps"][-1])
            for seed in seeds
        )
        for quantity in QUANTITIES[1:]
        if all(quantity in c[seed].spent for c in (curves, others) for seed in seeds)
    }
    mine, other = _test_losses(row), _test_losses(base)
    return Convergence(
        name,
        setting_name(base),
        curves,
        differences,
        ratios,
        len(seeds),
        row.reports[0]["num_params"],
        step_ratio,
        [mine[seed] - other[seed] for seed in seeds if seed in mine and seed in other],
    )


def lay_out(found: Sequence[Convergence]) -> tuple[Table, str]:
    """Lays settings side by side.

    Args:
        found: From :func:`measure_convergence`.

    Returns:
        The table for a terminal, and the same as Markdown.
    """
    # A column that no row could fill is left out.
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
        best = [curve.best for curve in one.curves.values()]
        itself = one.name == one.baseline
        body.append([
            one.name,
            str(len(one.curves)),
            f"{one.parameters:,}",
            *(f"{one.step_ratio[q]:.2f}" if q in one.step_ratio else "-" for q in quantities[1:]),
            _spread(best),
            "baseline" if itself else _spread(one.differences, sign=True),
            *([_test_difference(one, itself)] if tested else []),
            *("1" if itself else _ratio(one, quantity) for quantity in quantities),
        ])  # fmt: skip
    return two_forms(
        "Validation loss in nats; ratios to the baseline of the same seed", header, body
    )


def _test_losses(row: Row) -> dict[int, float]:
    """Loss of the test split by seed, of the reports that have it."""
    return {
        report["seed"]: report["test"]["loss"] for report in row.reports if "loss" in report["test"]
    }


def _test_difference(one: Convergence, itself: bool) -> str:
    if itself:
        return "baseline"
    return _spread(one.test_differences, sign=True) if one.test_differences else "-"


def _ratio(one: Convergence, quantity: str) -> str:
    """Writes a ratio, or how many seeds did not get there: a mean over the others would flatter."""
    ratios = one.ratios.get(quantity, [])
    reached = len(one.ratios.get("steps", []))
    if reached < one.paired:
        return f"not reached ({one.paired - reached} of {one.paired})"
    return _spread(ratios, digits=2) if ratios else "not counted"


def _spread(values: Sequence[float], *, digits: int = 4, sign: bool = False) -> str:
    """Writes a mean ± sample standard deviation."""
    std = statistics.stdev(values) if len(values) > 1 else math.nan
    return plus_minus(statistics.fmean(values), std, digits=digits, sign=sign)


def _curves(row: Row, costs: StepCosts | None) -> dict[int, Curve]:
    """Reads the curves of a row by seed.

    Raises:
        DataError: If two runs have the same seed.
    """
    curves: dict[int, Curve] = {}
    step_seconds = None if costs is None else costs.of(setting_name(row))
    for run, report in zip(row.runs, row.reports, strict=True):
        if report["seed"] in curves:
            raise DataError(
                f"{run} repeats seed {report['seed']} of {setting_name(row)}; leave one run out"
            )
        curves[report["seed"]] = Curve.read(run, report, step_seconds)
    return curves


def _choice(row: Row) -> str:
    """A row's filter and its options as the benchmark of steps takes them."""
    options = {k: v for k, v in row.settings.items() if k.startswith("filter.") and v is not None}
    options.pop("filter.name", None)
    written = [row.reports[0]["filter"]["name"], *(f"{k}={v}" for k, v in options.items())]
    return ",".join(written).replace(" ", "")


def _key(row: Row) -> str:
    """What a setting shares with its baseline."""
    shared = {k: v for k, v in row.settings.items() if not k.startswith(_OF_FILTER)}
    return json.dumps(shared, sort_keys=True)
