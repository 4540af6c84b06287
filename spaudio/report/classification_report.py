"""Report of a classification run: JSON, Markdown, figures and predictions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from spaudio.audio.manifest import LABEL_SEPARATOR, Clip
from spaudio.report.figures import plot_confusion, plot_curves, plot_per_class
from spaudio.report.multilabel_scores import MultiLabelScores
from spaudio.report.report_files import (
    figure_lines,
    filter_choice,
    parameters_line,
    seconds_line,
    skipped_lines,
    write_files,
)
from spaudio.report.scores import Scores

# Files of a finished run. Tests of the recipes check that they are there.
FILES = (
    "config.yaml",
    "log.jsonl",
    "report.json",
    "report.md",
    "curves.png",
    "predictions.csv",
)
# The figure of each metric.
FIGURES = {"accuracy": "confusion", "mAP": "per_class"}
_SHOWN = 5  # most probable classes of a clip with several labels


def write_report(
    run: Path,
    *,
    facts: dict[str, Any],
    scores: Scores | MultiLabelScores,
    records: Sequence[dict[str, Any]],
    clips: Sequence[Clip],
    classes: Sequence[str],
    probabilities: Tensor,
) -> None:
    """Writes all files of a report; ``report.json`` last, since it marks the run as finished.

    Args:
        run: The run's folder, with its figures of filters.
        facts: Floor, sizes, seconds, seed and provenance, for ``report.json``.
        scores: Scores on the test split.
        records: The training log.
        clips: Clips of the test split.
        classes: Class names.
        probabilities: (clips, classes) of the test split.
    """
    report = {"metric": scores.metric, "test": scores.as_dict(), **facts}
    figure = run / f"{FIGURES[scores.metric]}.png"
    if isinstance(scores, MultiLabelScores):
        precisions = {name: row["ap"] for name, row in report["test"]["per_class"].items()}
        plot_per_class(precisions, "average precision", figure)
        shown = min(_SHOWN, len(classes))
    else:
        plot_confusion(scores.confusion, classes, figure)
        shown = 1
    plot_curves(records, run / "curves.png", scores.metric)
    with (run / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "true", "predicted", "probability"])
        for clip, row in zip(clips, probabilities, strict=True):
            chances, best = (part[:shown] for part in row.sort(descending=True, stable=True))
            names = LABEL_SEPARATOR.join(classes[i] for i in best.tolist())
            numbers = LABEL_SEPARATOR.join(f"{chance:.6f}" for chance in chances.tolist())
            writer.writerow([clip.path, clip.label, names, numbers])
    write_files(run, report, _markdown(run, report))


def _markdown(run: Path, report: dict[str, Any]) -> list[str]:
    test, floor, metric = report["test"], report["floor"], report["metric"]
    beaten = test[metric] > floor["svm"]
    if metric == "accuracy":
        low, high = test["interval"]
        spread, trivial = f" (95 % interval {low:.4f}-{high:.4f})", "majority class"
        method = "RBF-SVM"
        more = f"- macro F1: {test['macro_f1']:.4f}"
        columns = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    else:
        spread, trivial = "", "class frequencies"
        method = "one-vs-rest kernel ridge regression"
        d_prime = "∞" if test["d_prime"] is None else f"{test['d_prime']:.3f}"
        more = f"- d-prime: {d_prime}; macro AUC: {test['auc']:.4f}; mAP is the macro mean"
        columns = {"ap": "Average precision", "auc": "AUC"}
    if "trained_on" in floor:
        method += f"; trained on {floor['trained_on']:,} clips"
    lines = [
        f"# {report['recipe']}: {run.name}",
        "",
        f"Tokens `{report['tokens']['front_end']}`, filter {filter_choice(report)}, seed "
        f"{report['seed']}. The model was selected on the validation split (epoch "
        f"{report['best_epoch']} of {report['epochs']}); the test split was used once, at the end.",
        "",
        f"| On the test split | {'Accuracy' if metric == 'accuracy' else metric} |",
        "|---|---|",
        f"| **transformer** | **{test[metric]:.4f}**{spread} |",
        f"| classical floor (log-mel and MFCC statistics, {method}) | {floor['svm']:.4f} |",
        f"| {trivial} | {floor['majority']:.4f} |",
        "",
        "The transformer is above the classical floor."
        if beaten
        else "**The transformer does not beat the classical floor.**",
        "",
        more,
        f"- clips: {report['clips']['train']} training, {report['clips']['valid']} validation, "
        f"{report['clips']['test']} test; validation {metric} of the chosen epoch: "
        f"{report['valid'][metric]:.4f}",
        *skipped_lines(report),
        f"{parameters_line(report)}, learned front-end: {report['front_end_params']:,}",
        f"{seconds_line(report)}; {report['tokens_per_second']:,.0f} tokens per second in training",
        f"- one token is {report['token_seconds'] * 1000:.0f} ms; one training step took "
        f"{report['step_seconds'] * 1000:.0f} ms; training waited for data for "
        f"{report['data_wait']:.1%} of its time",
        *(f"- filter {i}: {line}" for i, line in enumerate(report["filters"])),
        f"- git commit: {report['git_commit']}",
        "",
        f"| Class | {' | '.join(columns.values())} | Clips |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, row in test["per_class"].items():
        cells = [name, *("" if row[key] is None else f"{row[key]:.3f}" for key in columns)]
        lines.append(f"| {' | '.join(cells)} | {int(row['support'])} |")
    figures = (FIGURES[metric], "curves", "filters", "frontend", "mask", "trajectory")
    return [*lines, "", *figure_lines(run, *figures)]
