"""Report over all folds: mean ± standard deviation, pooled confusion matrix, one row per fold."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch
from sklearn.metrics import confusion_matrix

from spaudio.audio.manifest import SPLITS
from spaudio.errors import DataError
from spaudio.io.csv_files import for_csv, read_rows, write_rows
from spaudio.io.escape import for_markdown
from spaudio.io.plain import read_json
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.results_plot import plot_confusion, plot_folds
from spaudio.report.floor import TRIVIAL, floor_name
from spaudio.report.provenance import join_commits
from spaudio.report.records import OF_SETTING
from spaudio.report.report_files import (
    ALIGNED,
    cost_lines,
    filter_choice,
    valid_held_out,
    write_files,
)
from spaudio.report.run_files import MARKDOWN, PAGE, PREDICTIONS, REPORT, fold_folder
from spaudio.report.tables import markdown_table, mean_std, plus_minus

# Facts of the first fold, which the others share if one machine and version ran all of them.
SHARED = ("recipe", "metric", "filter", "filters", "seed", "epochs", "skipped", "num_params",
          "filter_params", "token_seconds", "samples_sha256", "versions", "machine")  # fmt: skip


@dataclass(frozen=True)
class Folds:
    """Finished runs of all folds, joined.

    Args:
        report: Content of ``report.json``, which can be compared with the reports of other runs.
            Standard deviations are those of a sample (over n - 1) and describe the spread between
            folds. They give no standard error, since folds share training clips.
        reports: Content of the report of each fold.
        predictions: Lines of ``predictions.csv``, over all folds.
    """

    report: dict[str, Any]
    reports: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, str]]


def join_folds(folds: Mapping[str, Path]) -> Folds:
    """Joins the finished runs of all folds.

    Args:
        folds: Folder of the run of each fold, by the fold's name.

    Raises:
        DataError: If a file of one is damaged, or they were made with different pretrained
            encoders.
    """
    reports, lines = {}, []
    for name, run in folds.items():
        reports[name], predicted = _read(name, run)
        lines += [{"fold": for_csv(name), **line} for line in predicted]
    for part, what in (
        ("base", "the pretrained encoder has"), ("pretrain", "the data of pretrain.source have"),
    ):  # fmt: skip
        # Not in the reports of older runs, nor of runs that were pretrained on their own clips.
        hashes = {
            n: one[part]["sha256"] for n, one in reports.items() if "sha256" in one.get(part, ())
        }
        if other := [name for name in hashes if hashes[name] != next(iter(hashes.values()))]:
            raise DataError(
                f"{what} changed between the folds {next(iter(hashes))} and {other[0]}, so their "
                "results cannot be joined; start a new run"
            )
    rows = [_row(name, report) for name, report in reports.items()]
    first = next(iter(reports.values()))
    classes = list(first["test"]["per_class"])
    confusion = confusion_matrix(
        [line["true"] for line in lines],
        [line["predicted"] for line in lines],
        labels=[for_csv(name) for name in classes],  # as predictions.csv has them
    )
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    mean: dict[str, float] = {}
    std: dict[str, float | None] = {}
    for key in ("accuracy", "macro_f1", "svm", "majority"):
        mean[key], deviation = mean_std(columns[key])
        # A single fold has no deviation, and JSON no NaN.
        std[key] = None if math.isnan(deviation) else deviation
    steps = [took for one in reports.values() if (took := one["step_seconds"]) is not None]
    parts = [one["floor"]["trained_on"] for one in reports.values() if "trained_on" in one["floor"]]
    report = {
        **{key: first[key] for key in SHARED},
        # Not in the reports of older runs.
        **{key: first[key] for key in (*OF_SETTING, "precision") if key in first},
        # Folds may be continued after an update.
        "git_commit": join_commits(one["git_commit"] for one in reports.values()),
        "test": {
            "accuracy": mean["accuracy"],
            "std": std["accuracy"],
            "macro_f1": mean["macro_f1"],
            "pooled_accuracy": confusion.diagonal().sum().item() / len(lines),
            "clips": len(lines),
        },
        "floor": {
            "svm": mean["svm"],
            "svm_std": std["svm"],
            "majority": mean["majority"],
            "majority_std": std["majority"],
            **({"trained_on": max(parts)} if parts else {}),
        },
        "folds": rows,
        "valid_held_out": all(map(valid_held_out, reports.values())),
        "classes": classes,
        "confusion": confusion.tolist(),
        "seconds": {
            part: sum(one["seconds"][part] for one in reports.values())
            for part in ("prepare", "train", "test")
        },
        "step_seconds": statistics.fmean(steps) if steps else None,
    }
    if "adapt" in first:
        report |= {key: first[key] for key in ("adapt", "base", "trained_params")}
        best = [one["best_seconds"] for one in reports.values()]
        report["best_seconds"] = None if None in best else statistics.fmean(best)
        report["peak_memory_bytes"] = max(one["peak_memory_bytes"] for one in reports.values())
    if "pretrain" in first:
        shared = ("source", "sha256", "mask_ratio", "mask_tokens")
        report["pretrain"] = {
            key: first["pretrain"][key] for key in shared if key in first["pretrain"]
        }
        took = [one["pretrain"]["seconds"] for one in reports.values()]
        report["pretrain"] |= {"runs": len(took), "seconds": sum(took)}
    aligned = [one["aligned"]["accuracy"] for one in reports.values() if "aligned" in one]
    if len(aligned) == len(reports):
        report["aligned"] = {"accuracy": statistics.fmean(aligned)}
    return Folds(report, list(reports.values()), lines)


def _read(name: str, run: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Returns the report and the predictions of one fold.

    Raises:
        DataError: If one of them is damaged or incomplete.
    """
    file = REPORT
    try:
        report = read_json(run / REPORT)
        for key in (*SHARED, "step_seconds", "seconds", "git_commit"):
            report[key]
        report["test"]["per_class"]
        clips = _row(name, report)["clips"]["test"]
        file = PREDICTIONS
        rows = read_rows(run / PREDICTIONS)
        if len(rows) != clips or any(None in row.values() for row in rows):
            raise ValueError(f"it should have {clips} complete lines, and has {len(rows)}")
        for row in rows:
            row["true"], row["predicted"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{run / file} is damaged ({type(error).__name__}: {error}), so the folds cannot be "
            f"joined; move {run} away, and start the command again with resume= to train this fold "
            "again"
        ) from error
    return report, rows


def _row(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the report over all folds says about one, from the report of that fold."""
    row = {
        "fold": name,
        "accuracy": report["test"]["accuracy"],
        "macro_f1": report["test"]["macro_f1"],
        "svm": report["floor"]["svm"],
        "majority": report["floor"]["majority"],
        "valid_accuracy": report["valid"]["accuracy"],
        "best_epoch": report["best_epoch"],
        "clips": report["clips"],
    }
    return row | ({"penalty": report["penalty"]} if "penalty" in report else {})


def write_fold_report(folder: Path, folds: Folds, figures: Figures) -> None:
    """Writes the files of a report over all folds; ``report.json`` last.

    Args:
        folder: Folder of the run over all folds.
        folds: The joined folds.
        figures: The figures of the report, with the page.
    """
    report, rows, lines = folds.report, folds.report["folds"], folds.predictions
    confusion = torch.tensor(report["confusion"])
    figures.draw("confusion", lambda path: plot_confusion(confusion, report["classes"], path))
    figures.draw("folds", lambda path: plot_folds(rows, path))
    write_rows(folder / PREDICTIONS, lines[0], lines)
    write_files(folder, report, _markdown(folder, folds), figures, "confusion", "folds")


def _markdown(folder: Path, folds: Folds) -> list[str]:
    """Returns the lines of ``report.md``, without figures."""
    report, rows = folds.report, folds.report["folds"]
    columns = {key: [row[key] for row in rows] for key in ("accuracy", "svm", "majority")}
    aligned = [one["aligned"]["accuracy"] for one in folds.reports if "aligned" in one]
    results = {"**transformer**": f"**{plus_minus(columns['accuracy'])}**"}
    if "aligned" in report:
        results["the same, with test groups aligned"] = plus_minus(aligned)
    results[floor_name("RBF-SVM", report["floor"])] = plus_minus(columns["svm"])
    results[TRIVIAL["accuracy"]] = plus_minus(columns["majority"])
    title = f"Over {len(rows)} test folds"
    above = sum(row["accuracy"] > row["svm"] for row in rows)
    per_fold = [
        {
            "Fold": f"[{for_markdown(row['fold'])}]({quote(fold_folder(row['fold']))}/{MARKDOWN})",
            "Accuracy": f"{row['accuracy']:.4f}",
            "Floor": f"{row['svm']:.4f}",
            "Macro F1": f"{row['macro_f1']:.4f}",
            "Validation accuracy": f"{row['valid_accuracy']:.4f}"
            if report["valid_held_out"]
            else "-",
            **(
                {"Penalty": f"{row['penalty']:g}"}
                if "penalty" in row
                else {"Epoch": str(row["best_epoch"])}
            ),
            "Training, validation and test clips": ", ".join(
                str(row["clips"][split]) for split in SPLITS
            ),
        }
        for row in rows
    ]
    return [
        f"# {for_markdown(report['recipe'])}: {for_markdown(folder.name)}, all folds",
        "",
        f"Filter {filter_choice(report)}, seed {report['seed']}. Each fold was the test split of "
        f"its own run; {_selection_of_folds(folds.reports[0])}.",
        "",
        markdown_table([{title: k, "Accuracy, mean ± std": v} for k, v in results.items()]),
        "",
        *(
            [f"[{PAGE}]({PAGE}) lets you hear the errors of all folds.", ""]
            if (folder / PAGE).is_file()
            else []
        ),
        f"The transformer is above the classical floor, in {above} of {len(rows)} folds."
        if report["test"]["accuracy"] > report["floor"]["svm"]
        else "**The transformer does not beat the classical floor** "
        f"(above it in {above} of {len(rows)} folds).",
        "",
        markdown_table(per_fold),
        "",
        f"- accuracy over all {len(folds.predictions)} test clips together: "
        f"{report['test']['pooled_accuracy']:.4f}",
        *(f"- {for_markdown(line)}" for line in _notes(folds)),
        *([f"- {ALIGNED}"] if "aligned" in report else []),
        *cost_lines(report),
        "",
        "Seconds are summed over folds, and the confusion matrix is pooled over all folds:",
    ]


def _notes(folds: Folds) -> list[str]:
    """Returns what the folds' reports say about balance and data, with the folds concerned."""
    concerned: dict[str, list[str]] = {}
    for row, one in zip(folds.report["folds"], folds.reports, strict=True):
        balance = one.get("balance", {}).get("text")
        for line in [*([balance] if balance else []), *one.get("notes", ())]:
            concerned.setdefault(line, []).append(row["fold"])
    return [
        line
        if len(names) == len(folds.reports)
        else f"fold{'s' * (len(names) > 1)} {', '.join(names)}: {line}"
        for line, names in concerned.items()
    ]


def _selection_of_folds(first: Mapping[str, Any]) -> str:
    """Says how the model of each fold was selected, from the report of one."""
    if "penalty" in first:  # of a probe, which has no epochs
        again = ", and the head was then fitted to all other folds"
        return (
            "the penalty of its head was selected on validation clips of other folds"
            f"{again if first['trained_on_valid'] else ''}"
        )
    if first["trained_on_valid"]:
        return (
            "the model of that run was trained on all other folds; its weights are those after the "
            "last epoch"
        )
    return "the model of that run was selected on validation clips of other folds"
