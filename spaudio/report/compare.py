"""One table over runs: mean ± std over seeds, grouped by the settings that differ."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table

from spaudio.errors import DataError

# Settings in which two runs may differ without being two settings.
NOT_SETTINGS = frozenset({"seed", "run_id", "resume", "runs", "data", "jobs"})


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed.

    Args:
        settings: The settings in which the groups of the table differ, and their values here.
        reports: ``report.json`` of each run.
    """

    settings: dict[str, Any]
    reports: list[dict[str, Any]]

    def spread(self, *keys: str) -> tuple[float, float]:
        """Returns mean and sample standard deviation (NaN for one run) of a reported number."""
        values = []
        for report in self.reports:
            value: Any = report
            for key in keys:
                value = value[key]
            values.append(float(value))
        return (
            statistics.fmean(values),
            statistics.stdev(values) if len(values) > 1 else math.nan,
        )


def group_runs(runs: Sequence[Path]) -> list[Row]:
    """Reads runs and groups those that differ in nothing but the seed.

    Args:
        runs: Folders of finished runs.

    Returns:
        One row a group, in the order of the runs.

    Raises:
        DataError: If a folder holds no finished run.
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
    differing = _differing(settings)
    groups: dict[str, Row] = {}
    for one, report in zip(settings, reports, strict=True):
        values = {key: one[key] for key in differing if key in one}
        groups.setdefault(json.dumps(values), Row(values, [])).reports.append(report)
    return list(groups.values())


def compare(rows: Sequence[Row]) -> tuple[Table, str]:
    """Lays groups side by side.

    Args:
        rows: From :func:`group_runs`.

    Returns:
        The table for a terminal, and the same as Markdown.
    """
    header = ["setting", "seeds", "test accuracy", "macro F1", "floor (SVM)", "parameters",
              "of filters", "train s", "ms/step"]  # fmt: skip
    body = []
    for row in rows:
        name = ", ".join(f"{_short(key)}={value}" for key, value in row.settings.items())
        first = row.reports[0]
        body.append([
            name or first["recipe"],
            str(len(row.reports)),
            _plus_minus(*row.spread("test", "accuracy")),
            _plus_minus(*row.spread("test", "macro_f1")),
            _plus_minus(*row.spread("floor", "svm")),
            f"{first['num_params']:,}",
            f"{first['filter_params']:,}",
            f"{row.spread('seconds', 'train')[0]:.0f}",
            f"{1000 * row.spread('step_seconds')[0]:.0f}",
        ])  # fmt: skip
    table = Table(title="Test split; model selected on validation")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=i == 0)
    for line in body:
        table.add_row(*line)
    lines = [header, ["---"] * len(header), *body]
    return table, "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


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
    found = sorted(key for key, values in kinds.items() if len(values) > 1)
    return sorted(found, key=lambda key: key != "filter.name")


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


def _short(key: str) -> str:
    """Calls ``filter.name`` ``filter``."""
    return key.removesuffix(".name")


def _plus_minus(mean: float, std: float) -> str:
    """Writes a mean, and its standard deviation where there is one."""
    return f"{mean:.4f}" if math.isnan(std) else f"{mean:.4f} ± {std:.4f}"
