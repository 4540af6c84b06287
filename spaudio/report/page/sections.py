"""Parts of the page shared by a single run and a run over all folds."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from spaudio.errors import counted
from spaudio.report.calibration import count_above, source_of
from spaudio.report.floor import TRIVIAL
from spaudio.report.page.charts import Line, line_chart
from spaudio.report.page.judged import Judged
from spaudio.report.page.render import Bar, Row
from spaudio.report.tables import score_text

COLORS = 6  # in the style sheet


def score_bars(report: Mapping[str, Any]) -> list[Bar]:
    """The score beside those of the classical floor and of a trivial prediction."""
    floor, aligned = report["floor"], report.get("aligned")
    return [
        Bar("this model", report["test"][report["metric"]], 0),
        *([Bar("with groups aligned", aligned["accuracy"], 3)] if aligned else []),
        Bar("classical floor", floor["svm"], 1),
        Bar(TRIVIAL[report["metric"]], floor["majority"], 2),
    ]


def rows_of_one_label(classes: Sequence[str], clips: Sequence[Judged]) -> list[Row]:
    """The table of classes: precision, recall and F1; a prediction counts for its top class."""
    predicted: dict[int, list[Judged]] = {}
    for clip in clips:
        predicted.setdefault(clip.predicted, []).append(clip)
    labelled = Counter(label for clip in clips for label in set(clip.labels))
    rows = []
    for number, name in enumerate(classes):
        taken = predicted.get(number, [])
        confidence = np.array([clip.top[0][1] for clip in taken], dtype=np.float64)
        right = np.array([clip.is_right for clip in taken], dtype=np.float64)
        support = labelled[number]
        precision = right.sum() / len(taken) if taken else None
        recall = right.sum() / support if support else None
        f1 = 2 * right.sum() / (len(taken) + support) if taken or support else None
        scores = list(map(score_text, (precision, recall, f1)))
        rows.append(Row(name, support, scores, count_above(confidence, right)))
    return rows


def reliability_chart(calibration: Mapping[str, Any]) -> Markup:
    """Accuracy against probability, before and after temperature scaling."""
    lines = []
    for color, (key, name) in ((2, ("before", "as trained")), (0, ("after", "scaled"))):
        bins = calibration[key]["bins"]
        lines.append(
            Line(
                f"{name}: error {calibration[key]['ece']:.3f}",
                [(b["confidence"], b["accuracy"]) for b in bins],
                color,
                notes=[
                    f"{b['low']:.2f} to {b['high']:.2f}: {b['count']} predictions, mean "
                    f"probability {b['confidence']:.3f}, correct {b['accuracy']:.3f}"
                    for b in bins
                ],
            )
        )
    return line_chart(
        lines,
        title="Reliability diagram",
        x="confidence",
        y="fraction correct",
        xlim=(0, 1),
        ylim=(0, 1),
        diagonal=True,
    )


def learning_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> list[Markup]:
    """Losses and validation score against epochs, or against the penalties of a probe.

    Args:
        logs: Training log of each fold, or of the one run, by name.
        metric: Name of the score.
    """
    probe = any("penalty" in entry for log in logs.values() for entry in log)

    def points(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
        return [
            (math.log10(entry["penalty"]) if probe else entry["epoch"], entry[key])
            for entry in log
            if isinstance(entry.get(key), int | float)
        ]

    several = len(logs) > 1
    losses: list[Line] = []
    scores: list[Line] = []
    for i, (name, log) in enumerate(logs.items()):
        if not several:
            training = "training" if probe else "training (augmented)"
            losses.append(Line(training, points(log, "train_loss"), 1))
        for lines, key, alone in (
            (losses, "valid_loss", "validation"), (scores, f"valid_{metric}", ""),
        ):  # fmt: skip
            color, dashed = i % COLORS, i >= COLORS
            lines.append(Line(name if several else alone, points(log, key), color, dashed=dashed))
    x, title = ("log10 of the penalty", "penalties") if probe else ("epoch", "epochs")
    drawn = []
    for lines, label in ((losses, "cross-entropy (nats)"), (scores, f"validation {metric}")):
        if any(line.points for line in lines):
            y = f"validation {label}" if several and lines is losses else label
            drawn.append(line_chart(lines, title=f"{label} against {title}", x=x, y=y))
    return drawn


def calibration_lines(calibration: Mapping[str, Any], several: bool, clips: int) -> list[str]:
    """Sentences about calibration."""
    before, after = calibration["before"], calibration["after"]
    temperature = calibration["temperature"]
    found = [temperature] if isinstance(temperature, float) else temperature
    named = " to ".join(dict.fromkeys(f"{t:.3f}" for t in (min(found), max(found))))
    what = "the probability of each class of each clip" if several else "the largest probability"
    return [
        f"Expected calibration error on {clips:,} test clips, of {what} in 15 bins: "
        f"{before['ece']:.4f} as trained, {after['ece']:.4f} with temperature scaling.",
        f"Cross-entropy: {before['loss']:.4f} as trained, {after['loss']:.4f} with it (nats).",
        f"Temperature {named}, {source_of(calibration)}. All probabilities on this page, in "
        "predictions.csv and from spaudio predict are computed from logits divided by it.",
        "On the dashed line, a probability equals the share of predictions that are right; below "
        "it, the model is overconfident. Bins with few clips are noisy.",
    ]


def warnings_of(report: Mapping[str, Any]) -> list[str]:
    """What the user should look at first."""
    found = []
    metric = report["metric"]
    if report["test"][metric] <= report["floor"]["svm"]:
        found.append("The transformer does not beat the classical floor.")
    if report.get("skipped"):
        clips = counted(report["skipped"], "clip")
        found.append(f"Left out, as missing or unusable: {clips}.")
    return found
