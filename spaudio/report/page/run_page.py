"""The page of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from spaudio.audio.manifest import class_names
from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.calibration import count_above
from spaudio.report.nearest import find_nearest
from spaudio.report.page.decided import find_decided
from spaudio.report.page.filter_section import make_filter_section
from spaudio.report.page.judged import (
    TOP,
    Judged,
    errors_first,
    labels_to_check,
    write_judged,
)
from spaudio.report.page.media import Media
from spaudio.report.page.render import Page, Row, write_page
from spaudio.report.page.sections import (
    calibration_lines,
    learning_curves,
    reliability_chart,
    rows_of_one_label,
    score_bars,
    warnings_of,
)
from spaudio.report.run_command import command
from spaudio.report.scores import shown_auc
from spaudio.report.tables import score_text
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd

MOST_NEAREST = 200  # test clips whose similar training clips are searched for


@dataclass(frozen=True)
class RunResults:
    """Inputs of a page.

    Args:
        before: The model before training.
        after: The trained model, in evaluation mode.
        train: The training split.
        test: The test split.
        classes: Class names.
        root: Folder that the clips' paths are relative to.
        multi_label: A clip may have several classes.
        raw: (clips, classes), probabilities of the test split before temperature scaling.
        probabilities: The same after it.
        labels: (clips,), or (clips, classes) for several labels.
        front_end: Front-end of the run.
        description: Sentences about data, split and model, by name.
        settings: All settings.
        log: The training log.
        corrected: As for `Page`.
    """

    before: AnyClassifier
    after: AnyClassifier
    train: TokenDataset
    test: TokenDataset
    classes: Sequence[str]
    root: Path
    multi_label: bool
    raw: Tensor
    probabilities: Tensor
    labels: Tensor
    front_end: FrontEnd
    description: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    corrected: Sequence[tuple[str, str, str]] = ()


def write_run_page(run: Path, results: RunResults, report: Mapping[str, Any]) -> None:
    """Writes ``report.html`` and ``clips.jsonl``.

    Args:
        run: The run's folder.
        results: Results of the run.
        report: Content of ``report.json``.
    """
    clips = _judge(results)
    write_judged(run, clips)
    test, metric = report["test"], report["metric"]
    several, calibration = results.multi_label, report["calibration"]
    if several:
        detail = f"macro AUC {shown_auc(test)}"
    else:
        low, high = test["interval"]
        detail = f"95 % interval {low:.3f} to {high:.3f}"
    page = Page(
        title=report["recipe"],
        run=run.name,
        metric=metric,
        score=f"{test[metric]:.3f}",
        detail=detail,
        bars=score_bars(report),
        description=results.description,
        warnings=warnings_of(report),
        classes=results.classes,
        multi_label=several,
        clips=clips,
        columns=["Average precision", "AUC"] if several else ["Precision", "Recall", "F1"],
        rows=_rows_of_several(results, test["per_class"])
        if several
        else rows_of_one_label(results.classes, clips),
        calibration=calibration_lines(calibration, several, len(clips)),
        reliability=reliability_chart(calibration),
        curves=learning_curves({"": results.log}, metric),
        settings=results.settings,
        command=command(results.settings),
        filters=make_filter_section(
            results.before,
            results.after,
            results.test,
            results.classes,
            several,
            results.front_end.config.token_seconds,
            report["filters"],
            calibration["temperature"],
        ),
        corrected=results.corrected,
        decided=find_decided(
            results.after,
            results.front_end,
            results.test,
            clips,
            several,
            calibration["temperature"],
        ),
    )
    highest = max(clip.sample_rate for clip in results.test.clips) / 2
    write_page(run, page, Media(results.root, run, highest))


def _judge(results: RunResults) -> list[Judged]:
    """Collects the predictions for the test clips, and finds similar training clips."""
    index = {name: i for i, name in enumerate(results.classes)}
    clips: list[Judged] = []
    for clip, row, raw in zip(results.test.clips, results.probabilities, results.raw, strict=True):
        names = class_names(clip.label, results.multi_label)
        labels = tuple(sorted((index[name] for name in names), key=lambda label: float(row[label])))
        # Stable, as `predictions.csv`: of equally probable classes, the first is predicted.
        chances, best = (part[:TOP] for part in row.sort(descending=True, stable=True))
        top = tuple(zip(best.tolist(), chances.tolist(), strict=True))
        own, confidence = float(row[labels[0]]), float(raw.max())
        clips.append(Judged(clip.path, clip.group, clip.seconds, labels, top, own, confidence))
    return _with_nearest(results, clips)


def _with_nearest(results: RunResults, clips: list[Judged]) -> list[Judged]:
    wrong = [clip for clip in errors_first(clips) if not clip.is_right]
    suspects = labels_to_check(clips, multi_label=results.multi_label)
    chosen = {clip.path for clip in [*wrong, *suspects][:MOST_NEAREST]}
    names = results.classes
    wanted = {
        i: [names[clip.labels[0]], names[clip.predicted]]
        for i, clip in enumerate(clips)
        if clip.path in chosen
    }
    near = find_nearest(results.after, results.train, results.test, wanted, results.multi_label)
    for i, (label, predicted) in wanted.items():
        clips[i] = replace(
            clips[i],
            near_label=near.get((i, label)),
            near_predicted=near.get((i, predicted)),
        )
    return clips


def _rows_of_several(results: RunResults, per_class: Mapping[str, Any]) -> list[Row]:
    rows = []
    for number, (name, scores) in enumerate(per_class.items()):
        chances = results.probabilities[:, number].double().numpy()
        above = count_above(chances, results.labels[:, number].double().numpy())
        texts = [score_text(scores[key]) for key in ("ap", "auc")]
        rows.append(Row(name, int(scores["support"]), texts, above))
    return rows
