"""Writes the report of a run into its folder: JSON, Markdown, figures, predictions."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from spaudio.audio.manifest import Clip, write_atomic
from spaudio.report.figures import plot_confusion, plot_curves
from spaudio.report.scores import Scores

# What every run's folder holds when it is finished; the recipe tests assert it.
FILES = (
    "config.yaml",
    "log.jsonl",
    "report.json",
    "report.md",
    "confusion.png",
    "curves.png",
    "predictions.csv",
)


def write_report(
    run: Path,
    *,
    facts: dict[str, Any],
    scores: Scores,
    records: Sequence[dict[str, Any]],
    clips: Sequence[Clip],
    classes: Sequence[str],
    probabilities: Tensor,
) -> None:
    """Writes everything but the configuration and the log; ``report.json`` last, as the end mark.

    Args:
        run: The run's folder.
        facts: Floor, sizes, seconds, seed and provenance, as they go into ``report.json``.
        scores: Of the test split.
        records: Of the training log.
        clips: The test split's clips.
        classes: Class names.
        probabilities: (clips, classes) of the test split.
    """
    report = {"test": scores.as_dict(), **facts}
    plot_confusion(scores.confusion, classes, run / "confusion.png")
    plot_curves(records, run / "curves.png")
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "true", "predicted", "probability"])
        for clip, row in zip(clips, probabilities, strict=True):
            best = int(row.argmax())
            writer.writerow([clip.path, clip.label, classes[best], f"{row[best].item():.6f}"])
    (run / "report.md").write_text(_markdown(run, report), encoding="utf-8")
    write_atomic(run / "report.json", (json.dumps(report, indent=2) + "\n").encode())


def _markdown(run: Path, report: dict[str, Any]) -> str:
    """Lays the report out for a reader."""
    test, floor = report["test"], report["floor"]
    low, high = test["interval"]
    beaten = test["accuracy"] > floor["svm"]
    lines = [
        f"# {report['recipe']}: {run.name}",
        "",
        f"Tokens `{report['tokens']['name']}`, filter `{report['filter']['name']}`, seed "
        f"{report['seed']}. The model was selected on the validation split (epoch "
        f"{report['best_epoch']} of {report['epochs']}); the test split was run once, at the end.",
        "",
        "| On the test split | Accuracy |",
        "|---|---|",
        f"| **transformer** | **{test['accuracy']:.4f}** (95 % interval {low:.4f}-{high:.4f}) |",
        f"| classical floor (log-mel and MFCC statistics, RBF-SVM) | {floor['svm']:.4f} |",
        f"| majority class | {floor['majority']:.4f} |",
        "",
        "The transformer is above the classical floor."
        if beaten
        else "**The transformer does not beat the classical floor.**",
        "",
        f"- macro F1: {test['macro_f1']:.4f}",
        f"- clips: {report['clips']['train']} training, {report['clips']['valid']} validation, "
        f"{report['clips']['test']} test; validation accuracy of the chosen epoch: "
        f"{report['valid']['accuracy']:.4f}",
        f"- parameters: {report['num_params']:,}, of which filters: {report['filter_params']:,}, "
        f"learned front-end: {report['front_end_params']:,}",
        f"- seconds: prepare {report['seconds']['prepare']:.1f}, train "
        f"{report['seconds']['train']:.1f}, test {report['seconds']['test']:.1f}; "
        f"{report['tokens_per_second']:,.0f} tokens a second in training",
        f"- one token is {report['token_seconds'] * 1000:.0f} ms; one step of training took "
        f"{report['step_seconds'] * 1000:.0f} ms",
        *(f"- filter {i}: {line}" for i, line in enumerate(report["filters"])),
        f"- git commit: {report['git_commit']}",
        "",
        "| Class | Precision | Recall | F1 | Clips |",
        "|---|---|---|---|---|",
    ]
    for name, row in test["per_class"].items():
        lines.append(
            f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | "
            f"{int(row['support'])} |"
        )
    figures = ["confusion", "curves", *(["filters"] if report["filters"] else [])]
    if report["front_end_params"]:
        figures.append("frontend")
    lines += ["", *(f"![{name}]({name}.png)" for name in figures), ""]
    return "\n".join(lines)
