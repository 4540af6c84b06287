"""Report of a classification run: JSON, Markdown, figures and predictions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spaudio.audio.manifest import LABEL_SEPARATOR
from spaudio.io.csv_files import for_csv, write_rows
from spaudio.io.escape import for_markdown
from spaudio.report.calibration import source_of
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.results_plot import plot_confusion, plot_curves, plot_per_class
from spaudio.report.floor import TRIVIAL, floor_name
from spaudio.report.probabilities import ClipProbabilities, write_probabilities
from spaudio.report.report_files import (
    ALIGNED,
    cost_lines,
    filter_choice,
    selection,
    write_files,
)
from spaudio.report.run_files import PAGE, PREDICTIONS, PROBABILITIES
from spaudio.report.scores import Scores, shown_auc
from spaudio.report.tables import markdown_table, score_text

_SHOWN = 5  # most probable classes shown for a clip with several labels


def write_report(
    run: Path,
    report: dict[str, Any],
    *,
    figures: Figures,
    scores: Scores,
    log: Sequence[dict[str, Any]],
    recorded: Mapping[str, ClipProbabilities],
) -> str:
    """Writes all files of a report; ``report.json`` last, since it marks the run as finished.

    Args:
        run: The run's folder.
        report: Content of ``report.json``.
        figures: The figures of filters, already drawn, with the page.
        scores: Scores on the test split.
        log: The training log.
        recorded: The probabilities of the test split, and of a validation split that the model was
            not trained on.

    Returns:
        The main results in one line.
    """
    test, floor, metric = report["test"], report["floor"], report["metric"]
    classes = recorded["test"].classes
    if (confusion := scores.confusion) is not None:
        figure, shown = "confusion", 1
        figures.draw(figure, lambda path: plot_confusion(confusion, classes, path))
    else:
        figure, shown = "per_class", min(_SHOWN, len(classes))
        figures.draw(figure, lambda path: plot_per_class(test["per_class"], path))
    figures.draw("curves", lambda path: plot_curves(log, path, metric))
    _write_predictions(run, recorded["test"], shown)
    write_probabilities(run / PROBABILITIES, recorded)
    lines = _markdown(run, report, scores.detail)
    drawn = (figure, "curves", "filters", "modulation", "frontend", "mask", "trajectory")
    write_files(run, report, lines, figures, *drawn)
    return (
        f"test {metric} {test[metric]:.4f} ({scores.detail}); classical floor "
        f"{floor['svm']:.4f}; {TRIVIAL[metric]} {floor['majority']:.4f}"
    )


def _write_predictions(run: Path, test: ClipProbabilities, shown: int) -> None:
    """Writes ``predictions.csv`` with the ``shown`` most probable classes of each clip."""
    rows = []
    for clip, label, row in zip(test.clips, test.labels, test.values, strict=True):
        chances, best = (part[:shown] for part in row.sort(descending=True, stable=True))
        names = LABEL_SEPARATOR.join(test.classes[i] for i in best.tolist())
        numbers = LABEL_SEPARATOR.join(f"{chance:.6f}" for chance in chances.tolist())
        given = {"clip": clip, "true": label, "predicted": names}
        safe = {column: for_csv(text) for column, text in given.items()}
        rows.append({**safe, "probability": numbers})
    write_rows(run / PREDICTIONS, rows[0], rows)


def _markdown(run: Path, report: Mapping[str, Any], detail: str) -> list[str]:
    """Returns the lines of ``report.md``, without figures; ``detail`` qualifies the main score."""
    test, floor, metric = report["test"], report["floor"], report["metric"]
    if metric == "accuracy":
        method = "RBF-SVM"
        more = f"macro F1: {test['macro_f1']:.4f}; balanced accuracy (macro recall): "
        more += f"{test['balanced_accuracy']:.4f}"
        columns = {"precision": "Precision", "recall": "Recall", "f1": "F1"}
    else:
        method = "one-vs-rest kernel ridge regression"
        more = f"macro AUC: {shown_auc(test)}; mAP is the macro mean"
        columns = {"ap": "Average precision", "auc": "AUC"}
    results = {
        "**transformer**": f"**{test[metric]:.4f}** ({detail})",
        **_aligned(report),
        floor_name(method, floor): f"{floor['svm']:.4f}",
        TRIVIAL[metric]: f"{floor['majority']:.4f}",
    }
    per_class = [
        {
            "Class": for_markdown(name),
            **{title: score_text(row[key]) for key, title in columns.items()},
            "Clips": str(int(row["support"])),
        }
        for name, row in test["per_class"].items()
    ]
    clips, tokens, calibration = report["clips"], report["tokens"], report["calibration"]
    inputs = f"Tokens `{tokens['front_end']}`, normalised by `{tokens['normalise']}`"
    if tokens["front_end"] == "pretrained":
        inputs = f"Input of the pretrained encoder, `adapt={report['adapt']}`"
    refitted = report["valid_held_out"] and report["trained_on_valid"]
    measured = "before the head was refitted" if refitted else "of these weights"
    return [
        f"# {for_markdown(report['recipe'])}: {for_markdown(run.name)}",
        "",
        f"{inputs}, filter {filter_choice(report)}, seed {report['seed']}. "
        f"{_selection_sentence(report)}; the test split was used once, at the end.",
        "",
        markdown_table([{"On the test split": k, metric: v} for k, v in results.items()]),
        "",
        *([f"[{PAGE}]({PAGE}) lets you hear the errors.", ""] if (run / PAGE).is_file() else []),
        "The transformer is above the classical floor."
        if test[metric] > floor["svm"]
        else "**The transformer does not beat the classical floor.**",
        "",
        f"- {more}",
        f"- clips: {clips['train']} training, {clips['valid']} validation, {clips['test']} test; "
        f"validation {metric} {measured}: {report['valid'][metric]:.4f}",
        *(f"- {for_markdown(line)}" for line in report["split"]),
        *([f"- {balance}"] if (balance := report["balance"]["text"]) else []),
        f"- expected calibration error: {calibration['after']['ece']:.4f} with temperature "
        f"{calibration['temperature']:.3f}, {calibration['before']['ece']:.4f} without; "
        f"{source_of(calibration)}",
        *(f"- {for_markdown(note)}" for note in report["notes"]),
        *([f"- {ALIGNED}"] if "aligned" in report else []),
        *cost_lines(report),
        "",
        markdown_table(per_class),
    ]


def _selection_sentence(report: Mapping[str, Any]) -> str:
    chosen = selection(report)
    if not report["valid_held_out"]:
        return (
            "The model was also trained on the validation split, so its score there says little "
            f"({chosen})"
        )
    return f"The model: {chosen}"


def _aligned(report: Mapping[str, Any]) -> dict[str, str]:
    if "aligned" not in report:
        return {}
    groups, accuracy = report["aligned"]["groups"], report["aligned"]["accuracy"]
    counted = f"{groups:,} group{'s' * (groups != 1)}"
    return {f"the same, with test groups aligned ({counted})": f"{accuracy:.4f}"}
