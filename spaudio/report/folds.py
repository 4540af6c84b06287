"""The report over all folds: mean ± standard deviation, pooled confusion matrix, one row a fold."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spaudio.io.atomic import write_atomic
from spaudio.report.figures import plot_confusion
from spaudio.report.filter_choice import filter_choice

# What the folder of a run over all folds holds when it is finished, beside the folds' own runs.
FOLD_FILES = (
    "config.yaml",
    "report.json",
    "report.md",
    "confusion.png",
    "folds.png",
    "predictions.csv",
)
# Facts that are the same in every fold.
SHARED = ("recipe", "filter", "filters", "seed", "epochs", "skipped", "num_params", "filter_params",
          "token_seconds", "git_commit", "versions", "machine")  # fmt: skip


def write_fold_report(folder: Path, folds: Mapping[str, Path]) -> dict[str, Any]:
    """Gathers the folds' finished runs into one report; ``report.json`` is written last.

    It has the keys that `spaudio.report.compare` reads, so runs over folds are compared as others.

    Args:
        folder: Of the run over all folds.
        folds: The run of each fold, by the fold's name.

    Returns:
        What ``report.json`` says. Standard deviations are those of a sample (over n - 1); the
        accuracies of folds share training clips, so they tell the spread, not a standard error.
    """
    reports = {
        name: json.loads((run / "report.json").read_text(encoding="utf-8"))
        for name, run in folds.items()
    }
    rows = [_row(name, report) for name, report in reports.items()]
    first = next(iter(reports.values()))
    classes = list(first["test"]["per_class"])
    lines = [line for name, run in folds.items() for line in _predictions(name, run)]
    confusion = _pool(lines, classes)

    def over(key: str) -> tuple[float, float]:
        values = [row[key] for row in rows]
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0

    accuracy, std = over("accuracy")
    svm, svm_std = over("svm")
    majority, majority_std = over("majority")
    report = {
        **{key: first[key] for key in SHARED},
        "test": {
            "accuracy": accuracy,
            "std": std,
            "macro_f1": over("macro_f1")[0],
            "pooled_accuracy": confusion.diagonal().sum().item() / confusion.sum().item(),
            "clips": int(confusion.sum()),
        },
        "floor": {
            "svm": svm,
            "svm_std": svm_std,
            "majority": majority,
            "majority_std": majority_std,
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
    plot_confusion(confusion, classes, folder / "confusion.png")
    _plot_folds(rows, folder / "folds.png")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    (folder / "report.md").write_text(_markdown(folder, report), encoding="utf-8")
    write_atomic(folder / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    return report


def _row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Picks what the table says of one fold."""
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


def _pool(lines: Sequence[dict[str, str]], classes: Sequence[str]) -> Tensor:
    """Counts all folds' predictions into one matrix, true class by row."""
    index = {name: i for i, name in enumerate(classes)}
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    for line in lines:
        confusion[index[line["true"]], index[line["predicted"]]] += 1
    return confusion


def _plot_folds(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws accuracy and floor of each fold."""
    figure = Figure(figsize=(max(5.0, 0.7 * len(rows) + 2), 3.5), layout="constrained")
    axes = figure.subplots()
    places = torch.arange(len(rows)).numpy()
    axes.bar(places - 0.2, [row["accuracy"] for row in rows], 0.4, label="transformer")
    axes.bar(places + 0.2, [row["svm"] for row in rows], 0.4, label="classical floor")
    axes.set_xticks(places, [row["fold"] for row in rows])
    axes.set(xlabel="test fold", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _markdown(folder: Path, report: dict[str, Any]) -> str:
    """Lays the report out for a reader."""
    test, floor, rows = report["test"], report["floor"], report["folds"]
    above = sum(row["accuracy"] > row["svm"] for row in rows)
    beaten = test["accuracy"] > floor["svm"]
    lines = [
        f"# {report['recipe']}: {folder.name}, all folds",
        "",
        f"Filter {filter_choice(report)}, seed {report['seed']}. Each fold was the test split of a "
        "run of its own, whose model was selected on validation clips of other folds.",
        "",
        f"| Over {len(rows)} test folds | Accuracy, mean ± std |",
        "|---|---|",
        f"| **transformer** | **{test['accuracy']:.4f} ± {test['std']:.4f}** |",
        "| classical floor (log-mel and MFCC statistics, RBF-SVM) | "
        f"{floor['svm']:.4f} ± {floor['svm_std']:.4f} |",
        f"| majority class | {floor['majority']:.4f} ± {floor['majority_std']:.4f} |",
        "",
        f"The transformer is above the classical floor, in {above} of {len(rows)} folds."
        if beaten
        else "**The transformer does not beat the classical floor** "
        f"(above it in {above} of {len(rows)} folds).",
        "",
        "| Fold | Accuracy | Floor | Macro F1 | Validation accuracy | Epoch | Clips trained on, "
        "validated on, tested on |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        clips = row["clips"]
        lines.append(
            f"| [{row['fold']}](fold-{row['fold']}/report.md) | {row['accuracy']:.4f} | "
            f"{row['svm']:.4f} | {row['macro_f1']:.4f} | {row['valid_accuracy']:.4f} | "
            f"{row['best_epoch']} | {clips['train']}, {clips['valid']}, {clips['test']} |"
        )
    seconds = report["seconds"]
    lines += [
        "",
        f"- accuracy over all {test['clips']} test clips together: {test['pooled_accuracy']:.4f}",
        *(
            [f"- **{report['skipped']} listed clips were missing or unusable and left out**"]
            if report["skipped"]
            else []
        ),
        f"- parameters: {report['num_params']:,}, of which filters: {report['filter_params']:,}",
        f"- seconds, summed over folds: prepare {seconds['prepare']:.1f}, train "
        f"{seconds['train']:.1f}, test {seconds['test']:.1f}",
        f"- git commit: {report['git_commit']}",
        "",
        "Confusion matrix of all folds together:",
        "",
        "![confusion](confusion.png)",
        "",
        "![folds](folds.png)",
        "",
    ]
    return "\n".join(lines)
