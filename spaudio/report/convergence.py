"""How soon each setting reaches the baseline's best loss, in steps, seconds and FLOPs.

Every run is compared with the baseline run of the same seed and otherwise equal settings, by the
validation loss in its log. Between two measurements the loss is interpolated linearly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

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

    def per_step(self, quantity: str) -> float:
        """Returns what a step takes."""
        return self.spent[quantity][-1] / self.spent["steps"][-1]

    def until(self, loss: float, quantity: str) -> float | None:
        """Returns what it took to reach a loss, or None if it was not reached."""
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

    @property
    def differences(self) -> list[float]:
        """Lowest loss minus that of the baseline, one per pair."""
        return [curve.best - base.best for curve, base in self.pairs]

    @property
    def test_differences(self) -> list[float]:
        """Test loss minus that of the baseline, one per pair for which both were measured."""
        return [
            curve.test_loss - base.test_loss
            for curve, base in self.pairs
            if curve.test_loss is not None and base.test_loss is not None
        ]

    def knows(self, quantity: str) -> bool:
        """Returns whether all runs have recorded a quantity."""
        return all(quantity in curve.spent for pair in self.pairs for curve in pair)

    def step_ratio(self, quantity: str) -> float:
        """Returns what a step takes relative to one of the baseline, the mean over pairs."""
        return fmean(c.per_step(quantity) / base.per_step(quantity) for c, base in self.pairs)

    def ratios(self, quantity: str) -> list[float]:
        """Returns what it took to reach the baseline's best loss, relative to the baseline.

        There is one value per pair that reached it.
        """
        found = [(c.until(b.best, quantity), b.until(b.best, quantity)) for c, b in self.pairs]
        return [took / its for took, its in found if took is not None and its is not None]


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
    found = []
    for group in groups:
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
        parameters = group.records[0].facts["num_params"]
        found.append(Convergence(group.name, base.name, parameters, curves, pairs))
    return found


def lay_out(found: Sequence[Convergence]) -> tuple[Table, str]:
    """Makes a table of settings.

    Args:
        found: From :func:`measure_convergence`.

    Returns:
        The table for the terminal, and the same as Markdown. Columns without values are left out.
    """
    quantities = [q for q in QUANTITIES if any(one.knows(q) for one in found)]
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
            *(f"{one.step_ratio(q):.2f}" if one.knows(q) else "-" for q in quantities[1:]),
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


def _ratio(one: Convergence, quantity: str) -> str:
    """Formats a ratio. If some seeds did not reach the loss, their number is given instead."""
    if not one.knows(quantity):
        return "-"
    ratios = one.ratios(quantity)
    missed = len(one.pairs) - len(ratios)
    return f"not reached ({missed} of {len(one.pairs)})" if missed else plus_minus(ratios, digits=2)


def _curves(group: Group, step_costs: Mapping[str, float] | None) -> dict[int, Curve]:
    """Returns the curves of a group by seed."""
    setting = _plain(group.name)
    if step_costs is not None and setting not in step_costs:
        raise DataError(
            f"the step costs lack {group.name}; time it too: "
            f'python -m spaudio.bench step RECIPE --filter "{setting}"'
        )
    curves: dict[int, Curve] = {}
    for record in group.records:
        seed = record.facts["seed"]
        if seed in curves:
            raise DataError(f"{record.name} repeats seed {seed} of {group.name}; leave one run out")
        curves[seed] = _curve(record, None if step_costs is None else step_costs[setting])
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


def _filter(group: Group) -> str:
    """Returns a group's filter and its options as the benchmark of steps takes them."""
    options = {key: value for key, value in group.settings.items() if key.startswith("filter.")}
    name = options.pop("filter.name", group.records[0].settings["filter.name"])
    return _plain(",".join([name, *(f"{key}={value}" for key, value in options.items())]))


def _shared(group: Group) -> str:
    """Returns the settings that a group shares with its baseline."""
    shared = {k: v for k, v in group.settings.items() if not k.startswith(_OF_FILTER)}
    return json.dumps(shared, sort_keys=True)


def _plain(name: str) -> str:
    """Removes spaces, and the key of the filter, from the name of a setting."""
    return name.removeprefix("filter=").replace(" ", "")
