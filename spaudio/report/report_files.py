"""What the reports of all kinds of runs share: their files, and lines of their Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spaudio.io.atomic import write_atomic


def write_files(run: Path, report: dict[str, Any], markdown: list[str]) -> None:
    """Writes ``report.md``, then ``report.json``, which marks the run as finished.

    Args:
        run: The run's folder.
        report: Content of ``report.json``.
        markdown: Lines of ``report.md``.
    """
    (run / "report.md").write_text("\n".join([*markdown, ""]), encoding="utf-8")
    write_atomic(run / "report.json", (json.dumps(report, indent=2) + "\n").encode())


def filter_choice(report: dict[str, Any]) -> str:
    """Returns the filter of a run as Markdown, such as ``bank`` (num_filters=36, kernel_size=4)."""
    options = {key: value for key, value in report["filter"].items() if value is not None}
    name = options.pop("name")
    written = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"`{name}` ({written})" if written else f"`{name}`"


def seconds_line(report: dict[str, Any], *, of: str = "") -> str:
    """Returns the line about the duration of the parts of a run."""
    parts = (f"{part} {report['seconds'][part]:.1f}" for part in ("prepare", "train", "test"))
    return f"- seconds{of}: {', '.join(parts)}"


def parameters_line(report: dict[str, Any]) -> str:
    """Returns the line about the number of parameters."""
    return f"- parameters: {report['num_params']:,}, of which filters: {report['filter_params']:,}"


def skipped_lines(report: dict[str, Any]) -> list[str]:
    """Returns the warning about clips that were left out, if any."""
    if not report["skipped"]:
        return []
    return [f"- **{report['skipped']} listed clips were missing or unusable and left out**"]


def figure_lines(run: Path, *names: str) -> list[str]:
    """Returns links to those of the named figures that the run has."""
    return [f"![{name}]({name}.png)" for name in names if (run / f"{name}.png").is_file()]
