"""Writes the report of a text run: JSON, Markdown, curves against steps and against seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spaudio.io.atomic import write_atomic
from spaudio.report.filter_choice import filter_choice

# What a text run's folder holds when it is finished; the recipe tests assert it.
TEXT_FILES = ("config.yaml", "log.jsonl", "report.json", "report.md", "curves.png")


def write_text_report(run: Path, facts: dict[str, Any], records: Sequence[dict[str, Any]]) -> None:
    """Writes everything but the configuration and the log; ``report.json`` last, as the end mark.

    Args:
        run: The run's folder.
        facts: Losses, sizes, seconds, seed and provenance, as they go into ``report.json``.
        records: Of the training log.
    """
    plot_losses(records, run / "curves.png")
    (run / "report.md").write_text(_markdown(run, facts), encoding="utf-8")
    write_atomic(run / "report.json", (json.dumps(facts, indent=2) + "\n").encode())


def plot_losses(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws training and validation loss against steps and against seconds of training.

    Args:
        records: Of the training log.
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
        axes.set(xlabel=label, ylabel="nats a character")
        axes.legend()
    figure.savefig(path, dpi=120)


def _markdown(run: Path, report: dict[str, Any]) -> str:
    """Lays the report out for a reader."""
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
            "This is **not text8** but stands in for it: its losses compare with those of other "
            "runs on the same text alone, and with no figure published on text8.",
            "",
        ]
    lines += [
        f"Filter {filter_choice(report)}, {report['positions']} positions, seed "
        f"{report['seed']}. The model was selected on fixed windows of the validation split (epoch "
        f"{report['best_epoch']} of {report['epochs']}, {report['steps']:,} steps in all); the "
        "test split was run once, at the end.",
        "",
        "| Split | Nats a character | Bits a character | Characters predicted |",
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
    lines += [
        "",
        f"Measured by a sliding window of {context} characters and stride {stride}: outside the "
        f"first window each prediction reads {context - stride + 1} to {context} characters.",
        "",
        f"- parameters: {report['num_params']:,}, of which filters: {report['filter_params']:,}",
        f"- one step of training: {report['step_seconds'] * 1000:.0f} ms, "
        f"{report['step_flops'] / 1e9:.2f} GFLOP by count (matrix products and filters)",
        f"- seconds: prepare {report['seconds']['prepare']:.1f}, train "
        f"{report['seconds']['train']:.1f}, test {report['seconds']['test']:.1f}; "
        f"{report['tokens_per_second']:,.0f} characters a second in training",
        *(f"- filter {i}: {line}" for i, line in enumerate(report["filters"])),
        f"- git commit: {report['git_commit']}",
        "",
        "![curves](curves.png)",
    ]
    figures = [name for name in ("filters", "path") if (run / f"{name}.png").is_file()]
    lines += [f"![{name}]({name}.png)" for name in figures]
    return "\n".join([*lines, ""])
