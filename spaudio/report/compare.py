"""One table over runs: mean ± std over seeds, grouped by the settings that differ."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from spaudio.errors import DataError

# Settings in which two runs may differ without being two settings.
NOT_SETTINGS = frozenset({"about", "seed", "run_id", "resume", "runs", "data", "jobs"})


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed and what is averaged over.

    Args:
        settings: The settings in which the groups of the table differ, and their values here; of
            a named choice such as a filter, without options that are as they come.
        reports: ``report.json`` of each run.
        runs: Their folders.
    """

    settings: dict[str, Any]
    reports: list[dict[str, Any]]
    runs: list[Path]

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted({report["seed"] for report in self.reports})

    def spread(self, *keys: str) -> tuple[float, float]:
        """Returns mean and sample standard deviation over seeds (NaN for one) of a number.

        Runs of one seed (several test speakers, say) are averaged first.
        """
        by_seed: dict[int, list[float]] = {seed: [] for seed in self.seeds}
        for report in self.reports:
            value: Any = report
            for key in keys:
                value = value[key]
            by_seed[report["seed"]].append(float(value))
        values = [statistics.fmean(numbers) for numbers in by_seed.values()]
        return (
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else math.nan,
        )


def group_runs(
    runs: Sequence[Path],
    over: str | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """Reads runs and groups those that differ in nothing but the seed.

    Args:
        runs: Folders of finished runs.
        over: A setting whose values are averaged over too, such as ``test_speaker``.
        defaults: Options that go without saying, by choice, such as those of ``filter=bank``.

    Returns:
        One row a group, in the order of the runs.

    Raises:
        DataError: If a folder holds no finished run, or a seed lacks a value of ``over`` that
            another one has, so that their means would not be comparable.
    """
    if not runs:
        raise DataError("no run was named; give one or more run folders: spaudio compare RUN...")
    settings: list[dict[str, Any]] = []
    reports: list[dict[str, Any]] = []
    for run in runs:
        try:
            reports.append(json.loads((run / "report.json").read_text(encoding="utf-8")))
            config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        except FileNotFoundError as error:
            raise DataError(
                f"{run} is not a finished run ({Path(error.filename).name} is missing); finish it "
                f"with resume={run}"
            ) from error
        settings.append(_flatten(config))
    differing = [key for key in _differing(settings) if key.split(".")[-1] != over]
    groups: dict[str, Row] = {}
    covered: dict[str, dict[int, set[str]]] = {}
    for one, report, run in zip(settings, reports, runs, strict=True):
        values = {
            key: one[key]
            for key in differing
            if key in one and not _goes_without_saying(key, one, differing, defaults or {})
        }
        name = json.dumps(values)
        row = groups.setdefault(name, Row(values, [], []))
        row.reports.append(report)
        row.runs.append(run)
        seeds = covered.setdefault(name, {})
        seeds.setdefault(report["seed"], set()).add(str(one.get(over) if over else None))
    every = {value for seeds in covered.values() for found in seeds.values() for value in found}
    for name, seeds in covered.items():
        for seed, found in seeds.items():
            if missing := sorted(every - found):
                raise DataError(
                    f"seed {seed} of {name} has no run with {over}={missing[0]}, which others "
                    "have; run it, or leave the others out"
                )
    return list(groups.values())


def compare(rows: Sequence[Row]) -> tuple[Table, str]:
    """Lays groups side by side.

    Args:
        rows: From :func:`group_runs`.

    Returns:
        The table for a terminal, and the same as Markdown.

    Raises:
        DataError: If the runs are measured in different ways.
    """
    # A report of before there were several metrics names none.
    metrics = sorted({report.get("metric", "accuracy") for row in rows for report in row.reports})
    if len(metrics) > 1:
        raise DataError(f"{' and '.join(metrics)} cannot be compared; name runs of one kind")
    metric = metrics[0]
    other, title = ("macro_f1", "macro F1") if metric == "accuracy" else ("auc", "macro AUC")
    header = ["setting", "seeds", f"test {metric}", title, "floor (SVM)", "parameters",
              "of filters", "train s", "ms/step"]  # fmt: skip
    body = []
    for row in rows:
        first = row.reports[0]
        body.append([
            setting_name(row),
            str(len(row.seeds)),
            plus_minus(*row.spread("test", metric)),
            plus_minus(*row.spread("test", other)),
            plus_minus(*row.spread("floor", "svm")),
            f"{first['num_params']:,}",
            f"{first['filter_params']:,}",
            f"{row.spread('seconds', 'train')[0]:.0f}",
            f"{1000 * row.spread('step_seconds')[0]:.0f}",
        ])  # fmt: skip
    return two_forms("Test split; model selected on validation", header, body)


def two_forms(
    title: str, header: Sequence[str], body: Sequence[Sequence[str]]
) -> tuple[Table, str]:
    """Lays rows out twice.

    Args:
        title: Of the table for a terminal.
        header: Names of the columns; the first is of words, the others of numbers.
        body: Rows.

    Returns:
        A table for a terminal and its Markdown.
    """
    table = Table(title=title)
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for line in body:
        table.add_row(*line)
    lines = [header, ["---"] * len(header), *body]
    return table, "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def show(table: Table) -> None:
    """Prints a table at its full width: a cut number is worse than a line that wraps."""
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the settings that tell the runs apart, a filter's name first.

    An option that goes with a name (``filter.kernel_size`` with ``filter.name``) counts only where
    it differs between runs of the same name: ``bank`` says enough against ``none``.
    """
    kinds: dict[str, set[str]] = {}
    for one in settings:
        for key in {key for every in settings for key in every}:
            group = key.rsplit(".", 1)[0]
            name = one.get(f"{group}.name") if key != f"{group}.name" else None
            kinds.setdefault(key, set())
            others = [
                json.dumps(other.get(key))
                for other in settings
                if name is None or other.get(f"{group}.name") == name
            ]
            if len(set(others)) > 1:
                kinds[key].update(others)
    found = sorted(
        key
        for key, values in kinds.items()
        # What a recipe hands to its prep script is a setting of its own already.
        if len(values) > 1 and not (key.startswith("prep_options.") and key[13:] in kinds)
    )
    return sorted(found, key=lambda key: key != "filter.name")


def _goes_without_saying(
    key: str,
    settings: Mapping[str, Any],
    differing: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Says if an option is the default of a choice that the row names itself."""
    group, _, option = key.rpartition(".")
    if option == "name" or f"{group}.name" not in differing:
        return False
    known = defaults.get(f"{group}={settings.get(f'{group}.name')}", {})
    return option in known and known[option] == settings[key]


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turns nested settings into ``group.key``, without those that are not settings."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if not prefix and key in NOT_SETTINGS:
            continue
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def setting_name(row: Row) -> str:
    """Writes what tells a row from the others, such as ``filter=bank, model.dim=64``."""
    named = (
        # Of a file, the name alone: where it lies is of this machine.
        f"{key.removesuffix('.name')}={Path(value).name if isinstance(value, str) else value}"
        for key, value in row.settings.items()
        if value is not None  # null is what a setting is that was not made
    )
    return ", ".join(named) or str(row.reports[0]["recipe"])


def plus_minus(mean: float, std: float, *, digits: int = 4, sign: bool = False) -> str:
    """Writes a mean, and its standard deviation where there is one."""
    written = f"{mean:{'+' if sign else ''}.{digits}f}"
    return written if math.isnan(std) else f"{written} ± {std:.{digits}f}"
