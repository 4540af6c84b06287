"""The page of a run over all folds: every clip is judged by a model that was not trained on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from spaudio.errors import DataError, some
from spaudio.report.calibration import calibration_error, reliability
from spaudio.report.fold_report import Folds
from spaudio.report.page.judged import CLIPS, Judged, read_judged
from spaudio.report.page.media import Media
from spaudio.report.page.render import Page, write_page
from spaudio.report.page.sections import (
    calibration_lines,
    learning_curves,
    reliability_chart,
    rows_of_one_label,
    score_bars,
    warnings_of,
)
from spaudio.report.run_command import command
from spaudio.report.run_files import PAGE, fold_folder
from spaudio.training.log import read_log


def write_fold_page(
    folder: Path,
    runs: Mapping[str, Path],
    folds: Folds,
    *,
    root: Path,
    highest: float,
    settings: Mapping[str, Any],
    description: Mapping[str, Sequence[str]],
    corrected: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Writes ``report.html`` from the clips that the folds have judged.

    Args:
        folder: Folder of the run over all folds.
        runs: Folder of the run of each fold, by the fold's name.
        folds: These runs, joined.
        root: Folder that the clips' paths are relative to.
        highest: Highest frequency of the clips, in Hz.
        settings: All settings.
        description: Sentences about data, split and model, by name.
        corrected: As for `Page`.

    Raises:
        DataError: If a fold was run without a page.
    """
    if without := [name for name, run in runs.items() if not (run / CLIPS).is_file()]:
        raise DataError(
            f"the folds {some(without)} were run with page=false, so their clips are not known; "
            "start a new run"
        )
    judged = {name: read_judged(run, name) for name, run in runs.items()}
    clips = [clip for found in judged.values() for clip in found]
    report = folds.report
    test = report["test"]
    calibration = _calibration(clips, [one["calibration"] for one in folds.reports])
    page = Page(
        title=report["recipe"],
        run=f"{folder.name}, all folds",
        metric="accuracy",
        score=f"{test['accuracy']:.3f}",
        detail=f"mean over {len(runs)} folds, ± {test['std']:.3f}; all clips together "
        f"{test['pooled_accuracy']:.3f}"
        if test["std"] is not None
        else "one fold",
        bars=score_bars(report),
        description=description,
        warnings=warnings_of(report),
        classes=report["classes"],
        multi_label=False,
        clips=clips,
        columns=["Precision", "Recall", "F1"],
        rows=rows_of_one_label(report["classes"], clips),
        calibration=calibration_lines(calibration, False, len(clips)),
        reliability=reliability_chart(calibration),
        curves=learning_curves({name: read_log(run) for name, run in runs.items()}, "accuracy"),
        settings=settings,
        corrected=corrected,
        command=command(settings),
        folds=[
            (name, f"{quote(fold_folder(name))}/{PAGE}", f"{row['accuracy']:.3f}")
            for name, row in zip(runs, report["folds"], strict=True)
        ],
    )
    write_page(folder, page, Media(root, folder, highest))


def _calibration(
    clips: Sequence[Judged], calibrations: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Joins the folds: the bins of all clips, and the mean cross-entropy."""
    right = np.array([clip.is_right for clip in clips], dtype=np.float64)
    sizes = [sum(b["count"] for b in one["after"]["bins"]) for one in calibrations]
    sources = list({one["source"] for one in calibrations})
    caveats = [caveat for one in calibrations if (caveat := one.get("caveat"))]
    fitted = any(source.startswith("fitted") for source in sources)
    found: dict[str, Any] = {
        "temperature": [one["temperature"] for one in calibrations],
        "source": "one per fold, fitted on its validation clips" if fitted else sources[0],
        "caveat": caveats[0] if caveats else "",
    }
    for name, chances in (
        ("before", [clip.confidence for clip in clips]),
        ("after", [clip.top[0][1] for clip in clips]),
    ):
        bins = reliability(np.array(chances, dtype=np.float64), right)
        losses = [one[name]["loss"] for one in calibrations]
        loss = float(np.average(losses, weights=sizes))
        found[name] = {"ece": calibration_error(bins), "loss": loss, "bins": bins}
    return found
