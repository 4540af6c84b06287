"""Report over all folds: mean ± standard deviation, pooled confusion matrix, one row per fold."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from torch import from_numpy

from spaudio.report.drawing import save_figure
from spaudio.report.figures import plot_confusion
from spaudio.report.report_files import (
    figure_lines,
    filter_choice,
    parameters_line,
    seconds_line,
    skipped_lines,
    write_files,
)
from spaudio.report.tables import mean_std, plus_minus

# Files of a finished run over all folds, besides the runs of the folds.
FOLD_FILES = (
    "config.yaml",
    "report.json",
    "report.md",
    "confusion.png",
    "folds.png",
    "predictions.csv",
)
# Facts that are equal in every fold.
SHARED = ("recipe", "metric", "filter", "filters", "seed", "epochs", "skipped", "num_params",
          "filter_params", "token_seconds", "git_commit", "versions", "machine")  # fmt: skip


def write_fold_report(folder: Path, folds: Mapping[str, Path]) -> dict[str, Any]:
    """Joins the folds' finished runs into one report; ``report.json`` is written last.

    Args:
        folder: Folder of the run over all folds.
        folds: Folder of the run of each fold, by the fold's name.

    Returns:
        The content of ``report.json``, which can be compared with the reports of other runs.
        Standard deviations are those of a sample (over n - 1) and describe the spread between
        folds. They give no standard error, since folds share training clips.
    """
    reports = {
        name: json.loads((run / "report.json").read_text(encoding="utf-8"))
        for name, run in folds.items()
    }
    rows = [_row(name, report) for name, report in reports.items()]
    first = next(iter(reports.values()))
    classes = list(first["test"]["per_class"])
    lines = [line for name, run in folds.items() for line in _predictions(name, run)]
    confusion = confusion_matrix(
        [line["true"] for line in lines], [line["predicted"] for line in lines], labels=classes
    )
    spread = {
        key: mean_std([row[key] for row in rows])
        for key in ("accuracy", "macro_f1", "svm", "majority")
    }
    report = {
        **{key: first[key] for key in SHARED},
        "test": {
            "accuracy": spread["accuracy"][0],
            "std": _finite(spread["accuracy"][1]),
            "macro_f1": spread["macro_f1"][0],
            "pooled_accuracy": confusion.diagonal().sum().item() / len(lines),
            "clips": len(lines),
        },
        "floor": {
            "svm": spread["svm"][0],
            "svm_std": _finite(spread["svm"][1]),
            "majority": spread["majority"][0],
            "majority_std": _finite(spread["majority"][1]),
        },
        "folds": rows,
        "classes": classes,
        "confusion": confusion.tolist(),
        "seconds": {
            part: sum(one["seconds"][part] for one in reports.values())
            for part in ("prepare", "train", "test")
        },
        "step_seconds": statistics.fmean(one["step_seconds"] for one in reports.values()),
    }
    plot_confusion(from_numpy(confusion), classes, folder / "confusion.png")
    _plot_folds(rows, folder / "folds.png")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    write_files(folder, report, _markdown(folder, report))
    return report


def _finite(std: float) -> float:
    """Replaces the undefined standard deviation of a single fold, which JSON cannot hold."""
    return 0.0 if np.isnan(std) else std


def _row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Selects what the table says about one fold."""
    return {
        "fold": name,
        "accuracy": report["test"]["accuracy"],
        "macro_f1": report["test"]["macro_f1"],
        "svm": report["floor"]["svm"],
        "majority": report["floor"]["majority"],
        "valid_accuracy": report["valid"]["accuracy"],
        "best_epoch": report["best_epoch"],
        "clips": report["clips"],
    }


def _predictions(name: str, run: Path) -> list[dict[str, str]]:
    """Reads a fold's predictions."""
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return [{"fold": name, **row} for row in csv.DictReader(file)]


def _plot_folds(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws accuracy and floor of each fold."""
    figure = Figure(figsize=(max(5.0, 0.7 * len(rows) + 2), 3.5), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.bar(places - 0.2, [row["accuracy"] for row in rows], 0.4, label="transformer")
    axes.bar(places + 0.2, [row["svm"] for row in rows], 0.4, label="classical floor")
    axes.set_xticks(places, [row["fold"] for row in rows])
    axes.set(xlabel="test fold", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    save_figure(figure, path)


def _markdown(folder: Path, report: dict[str, Any]) -> list[str]:
    test, floor, rows = report["test"], report["floor"], report["folds"]
    above = sum(row["accuracy"] > row["svm"] for row in rows)
    beaten = test["accuracy"] > floor["svm"]
    lines = [
        f"# {report['recipe']}: {folder.name}, all folds",
        "",
        f"Filter {filter_choice(report)}, seed {report['seed']}. Each fold was the test split of "
        "its own run; the model of that run was selected on validation clips of other folds.",
        "",
        f"| Over {len(rows)} test folds | Accuracy, mean ± std |",
        "|---|---|",
        f"| **transformer** | **{_over(rows, 'accuracy')}** |",
        f"| classical floor (log-mel and MFCC statistics, RBF-SVM) | {_over(rows, 'svm')} |",
        f"| majority class | {_over(rows, 'majority')} |",
        "",
        f"The transformer is above the classical floor, in {above} of {len(rows)} folds."
        if beaten
        else "**The transformer does not beat the classical floor** "
        f"(above it in {above} of {len(rows)} folds).",
        "",
        "| Fold | Accuracy | Floor | Macro F1 | Validation accuracy | Epoch | Training, validation "
        "and test clips |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        clips = row["clips"]
        lines.append(
            f"| [{row['fold']}](fold-{row['fold']}/report.md) | {row['accuracy']:.4f} | "
            f"{row['svm']:.4f} | {row['macro_f1']:.4f} | {row['valid_accuracy']:.4f} | "
            f"{row['best_epoch']} | {clips['train']}, {clips['valid']}, {clips['test']} |"
        )
    return [
        *lines,
        "",
        f"- accuracy over all {test['clips']} test clips together: {test['pooled_accuracy']:.4f}",
        *skipped_lines(report),
        parameters_line(report),
        seconds_line(report, of=", summed over folds"),
        f"- git commit: {report['git_commit']}",
        "",
        "Confusion matrix of all folds together:",
        "",
        *figure_lines(folder, "confusion"),
        "",
        *figure_lines(folder, "folds"),
    ]


def _over(rows: Sequence[dict[str, Any]], key: str) -> str:
    return plus_minus([row[key] for row in rows])
