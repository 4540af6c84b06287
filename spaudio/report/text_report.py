"""Report of a text run: JSON, Markdown, curves against steps and against seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spaudio.report.drawing import save_figure
from spaudio.report.report_files import (
    figure_lines,
    filter_choice,
    parameters_line,
    seconds_line,
    write_files,
)

# Files of a finished text run. Tests of the recipes check that they are there.
TEXT_FILES = ("config.yaml", "log.jsonl", "report.json", "report.md", "curves.png")


def write_text_report(run: Path, facts: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Writes all files of a report; ``report.json`` last, since it marks the run as finished.

    Args:
        run: The run's folder, with its figures of filters.
        facts: Losses, sizes, seconds, seed and provenance, for ``report.json``.
        records: The training log.
    """
    plot_losses(records, run / "curves.png")
    report = {"metric": "loss", **facts}
    write_files(run, report, _markdown(run, report))


def plot_losses(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws training and validation loss against steps and against seconds of training.

    Args:
        records: The training log.
        path: PNG to write.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2, sharey=True),
        ("step", "seconds"),
        ("steps", "seconds of training"),
        strict=True,
    ):
        at = [record[key] for record in records]
        axes.plot(at, [r["train_loss"] for r in records], label="training")
        axes.plot(at, [r["valid_loss"] for r in records], label="validation (fixed windows)")
        axes.set(xlabel=label, ylabel="nats per character")
        axes.legend()
    save_figure(figure, path)


def _markdown(run: Path, report: dict[str, Any]) -> list[str]:
    corpus = report["corpus"]
    lines = [
        f"# {report['recipe']}: {run.name}",
        "",
        f"Text: **{corpus['name']}**, {sum(corpus['characters'].values()):,} characters, SHA-256 "
        f"`{corpus['sha256']}`.",
        "",
    ]
    if corpus["stand_in"]:
        lines += [
            "This is **not text8** but a stand-in: its losses can be compared with those of other "
            "runs on the same text only, and with no published result on text8.",
            "",
        ]
    lines += [
        f"Filter {filter_choice(report)}, {report['positions']} positions, seed "
        f"{report['seed']}. The model was selected on fixed windows of the validation split (epoch "
        f"{report['best_epoch']} of {report['epochs']}, {report['steps']:,} steps in all); the "
        "test split was used once, at the end.",
        "",
        "| Split | Nats per character | Bits per character | Characters predicted |",
        "|---|---|---|---|",
    ]
    for name, title in (("valid", "validation"), ("test", "test")):
        found, whole = report[name], corpus["characters"][name]
        share = (
            "all but the first"
            if found["characters"] == whole - 1
            else f"of {whole:,}: the beginning of the split"
        )
        lines.append(
            f"| {title} | {found['loss']:.4f} | {found['bits']:.4f} | {found['characters']:,} "
            f"({share}) |"
        )
    context, stride = report["context"], report["stride"]
    return [
        *lines,
        "",
        f"Measured by a sliding window of {context} characters with stride {stride}: after the "
        f"first window, each prediction is made from {context - stride + 1} to {context} "
        "characters.",
        "",
        parameters_line(report),
        f"- one training step: {report['step_seconds'] * 1000:.0f} ms, "
        f"{report['step_flops'] / 1e9:.2f} GFLOP by count (matrix products and filters)",
        f"{seconds_line(report)}; {report['tokens_per_second']:,.0f} characters per second in "
        "training",
        *(f"- filter {i}: {line}" for i, line in enumerate(report["filters"])),
        f"- git commit: {report['git_commit']}",
        "",
        *figure_lines(run, "curves", "filters", "trajectory"),
    ]
