"""Reads the results of a study's finished runs."""

import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from spaudio.errors import ConfigError, DataError, some
from spaudio.experiment.compose import GROUPS
from spaudio.experiment.run_folder import differences, read_run_settings
from spaudio.experiment.settings import FILE_SETTINGS, INPUT_SETTINGS, NEUTRAL_SETTINGS
from spaudio.experiment.study_plan import StudyRun
from spaudio.io.messages import say, warn
from spaudio.io.plain import flatten, read_json
from spaudio.model.pretrained.encoder_source import is_folder
from spaudio.report.comparison import check_same_data, trained_on_more
from spaudio.report.records import (
    DESCRIBING,
    LAUNCHING,
    OF_BASE,
    OF_PRETRAINING,
    Record,
    read_records,
)
from spaudio.report.report_files import valid_held_out
from spaudio.report.run_files import REPORT
from spaudio.report.study_records import Result

# Settings that are local paths, or that do not change results.
_NOT_SHOWN = INPUT_SETTINGS | LAUNCHING | DESCRIBING | {"data"}
# Settings that choose an encoder or the audio to pretrain on, besides naming a folder.
_MODELS_AND_AUDIO = sorted(INPUT_SETTINGS - FILE_SETTINGS)


def finished_runs(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Returns the finished runs, and prints their number if some are missing.

    Overrides that were given when the runs were made need not be given again.

    Raises:
        ConfigError: If none is finished, or a run has other settings than the study or than other
            runs on the same dataset.
    """
    found = [run for run in runs if (run.folder / REPORT).is_file()]
    if others := _other_settings(found):
        named = some([f"{name}={value}" for name, value in others.items()])
        warn(f"runs have settings that are neither in the study nor given here: {named}")
    if not found:
        raise ConfigError(
            f"none of the {len(runs)} runs is finished, such as {runs[0].folder}; run the study, "
            "or give the folder of runs with runs=FOLDER"
        )
    if len(found) < len(runs):
        say(f"{len(runs)} runs, of which {len(found)} are finished")
    return found


def _other_settings(runs: Sequence[StudyRun]) -> dict[str, Any]:
    """Returns the settings in which finished runs differ from the study, which does not set them.

    Raises:
        ConfigError: If the study sets one of them, or runs on one dataset differ in one.
    """
    others: dict[str, Any] = {}
    values: dict[tuple[str, str], tuple[Any, StudyRun]] = {}
    made = [read_run_settings(run.folder) for run in runs]
    for run, settings in zip(runs, made, strict=True):
        for group in GROUPS:
            chosen, planned = (one.given.get(group) for one in (settings, run.settings))
            if planned not in (None, chosen):
                raise ConfigError(
                    f"{run.folder} was run with {group}={chosen or 'its default'}, but "
                    f"{run.setting} has {group}={planned}; rename the configuration"
                )
        for name, (there, wanted) in differences(settings, run.settings).items():
            if _may_be_equal(name, there, wanted):
                continue
            if name in run.settings.given:
                raise ConfigError(
                    f"{run.folder} was run with {name}={there}, but {run.setting} has "
                    f"{name}={wanted}; give the same overrides as then, or rename the configuration"
                )
            others[name] = there
    for run, settings in zip(runs, made, strict=True):
        had = dict(flatten(settings.as_dict()))
        for name in (name for name in others if name not in run.settings.given):
            there = had.get(name)
            first, one = values.setdefault((run.data, name), (there, run))
            if there != first and not _may_be_equal(name, there, first):
                raise ConfigError(
                    f"{one.folder} was run with {name}={first}, {run.folder} with {name}={there}, "
                    "and the study does not set it; run all with the same overrides"
                )
    return others


def _may_be_equal(name: str, one: Any, other: Any) -> bool:
    """Whether two values of a setting may have the same results.

    Local folders may have moved; their contents are compared when the runs are read.
    """
    if name not in NEUTRAL_SETTINGS:
        return False
    if name not in _MODELS_AND_AUDIO:
        return True
    if one is None or other is None:
        return False
    if name == "pretrain.source":  # never a Hub id
        return True
    # A relative path may look like a Hub id.
    return all(map(is_folder, (one, other))) or Path(one).parts[-2:] == Path(other).parts[-2:]


def read_runs(runs: Sequence[StudyRun]) -> list[Result]:
    """Reads the results of finished runs, and warns if some were trained on more clips.

    Args:
        runs: Runs of a study of classifiers.

    Raises:
        DataError: If a run cannot be read, is not measured by its accuracy, or was made on other
            data or splits than another run on the dataset, or with another pretrained encoder of
            the same name.
    """
    found = []
    firsts: dict[tuple[str | None, ...], Record] = {}
    # For each dataset, a setting whose runs were trained on the validation clips, and another.
    trained: defaultdict[str, dict[bool, str]] = defaultdict(dict)
    for run in runs:
        (record,) = read_records([run.folder])
        check_same_data(firsts.setdefault((run.title,), record), record)
        fold = firsts.setdefault((run.title, "fold", run.fold), record)
        check_same_data(fold, record, ["splits_sha256"])
        # A study may compare encoders; those of one name must have the same weights.
        encoder = str(getattr(run.settings.model, "source", None))
        check_same_data(firsts.setdefault(("encoder", encoder), record), record, [OF_BASE])
        audio = getattr(getattr(run.settings, "pretrain", None), "source", None)
        own = () if audio else (run.title, run.setting)  # not named by the study
        same = firsts.setdefault(("pretraining", audio, *own), record)
        check_same_data(same, record, [OF_PRETRAINING])
        trained[run.title].setdefault(bool(record.settings.get("validation.train")), run.setting)
        if not record.log:
            raise DataError(f"{run.folder} has no log.jsonl; train it again")
        try:
            found.append(_result(run, record))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{run.folder / REPORT} is damaged ({type(error).__name__}: {error}); train it "
                "again"
            ) from error
    for title, settings in trained.items():
        if len(settings) > 1:
            warn(f"{title}: {trained_on_more(settings[True], settings[False])}")
    return found


def _result(run: StudyRun, record: Record) -> Result:
    """Reads the result of a finished run.

    Raises:
        DataError: If it is not measured by its accuracy.
        KeyError: If its report is damaged.
        TypeError: Likewise.
    """
    facts, report = record.facts, read_json(run.folder / REPORT)
    if facts["metric"] != "accuracy":
        raise DataError(f"{run.folder}: {facts['metric']} cannot be compared with accuracies")
    shown = [one for one in record.overrides if one.partition("=")[0] not in _NOT_SHOWN]
    layers = [both for both in report.get("modulation", {}).values() if both]
    before, after = map(fmean, zip(*layers, strict=True)) if layers else (math.nan, math.nan)
    return Result(
        data=run.title,
        recipe=facts["recipe"],
        setting=run.setting,
        fold=run.fold or "",
        seed=facts["seed"],
        accuracy=facts["test.accuracy"],
        valid=report["valid"]["accuracy"] if valid_held_out(report) else math.nan,
        floor=facts["floor.svm"],
        clips=report["clips"]["test"],
        token_rate=1 / report["token_seconds"],
        parameters=facts["num_params"],
        filter_parameters=facts["filter_params"],
        trained_parameters=facts.get("trained_params", facts["num_params"]),
        steps=int(record.log[-1]["step"]) if "step_seconds" in facts else 0,
        step_seconds=facts.get("step_seconds", math.nan),
        train_seconds=facts["seconds.train"] + facts.get("pretrain.seconds", 0),
        modulation_before=before,
        modulation_after=after,
        baseline=run.baseline or "",
        control=run.control or "",
        overrides=shlex.join(shown),
        git_commit=str(facts.get("git_commit", "")),
        instruction_set=report.get("machine", {}).get("instruction_set", ""),  # not in older runs
    )
