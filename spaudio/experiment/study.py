"""Runs a study: configurations over seeds or folds, on one recipe or on several datasets.

:mod:`spaudio.experiment.study_file` describes the file.
"""

import math
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from spaudio.errors import ConfigError, DataError, SpaudioError, some
from spaudio.experiment.check_data import check_some_data
from spaudio.experiment.compose import GROUPS, compose, unknown
from spaudio.experiment.launch import Launcher, failed_runs
from spaudio.experiment.recipes import data_prep_folder
from spaudio.experiment.run_folder import (
    differences,
    folder_of,
    open_run_folder,
    read_run_settings,
)
from spaudio.experiment.settings import (
    INPUT_SETTINGS,
    NEUTRAL_SETTINGS,
    AudioSettings,
    Settings,
)
from spaudio.experiment.start import execute_run
from spaudio.experiment.study_file import DataSet, all_seeds, check_names, read_study
from spaudio.io.messages import say, warn
from spaudio.io.plain import flatten, read_json
from spaudio.report.comparison import check_same_data
from spaudio.report.records import DESCRIBING, LAUNCHING, REPORT, Record, read_records
from spaudio.report.study_records import Result

# Settings that are local paths, or that do not change results.
_NOT_SHOWN = INPUT_SETTINGS | LAUNCHING | DESCRIBING | {"data"}


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Args:
        data: Name of its dataset in the study; empty in a study of one recipe.
        title: Name of the dataset in tables and figures.
        setting: Name of its configuration.
        fold: The fold that it is tested on, if the study names folds.
        baseline: The configuration that it is compared with.
        control: A configuration of similar cost that it is also compared with.
        script: The ``run.py`` of its recipe.
        settings: Its settings.
    """

    data: str
    title: str
    setting: str
    fold: str | None
    baseline: str | None
    control: str | None
    script: Path
    settings: Settings

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return folder_of(self.settings)


def run_study(runs: Sequence[StudyRun], jobs: int = 1) -> None:
    """Executes the runs that are not finished yet.

    Args:
        runs: From :func:`plan_study`.
        jobs: Number of parallel runs.

    Raises:
        ConfigError: If a run of the same name exists with other settings.
        SpaudioError: If the data of a dataset cannot be used, or a run has failed.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1; got {jobs}")
    left = [run for run in runs if not (run.folder / REPORT).is_file()]
    for name in dict.fromkeys(run.data for run in left):
        of = [run for run in left if run.data == name]
        try:
            check_some_data([run.settings for run in of], data_prep_folder(of[0].script.parent))
        except SpaudioError as error:
            raise SpaudioError(f"dataset {name}: {error}" if name else str(error)) from error
    folders = {open_run_folder(run.settings): run.script for run in runs}
    if failed := Launcher(execute_run, jobs)(folders):
        raise SpaudioError(failed_runs(failed, len(folders), "the same command"))


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
    """Returns the settings of runs that the study has with another value and does not set itself.

    Raises:
        ConfigError: If the study sets one of them, or runs on one dataset differ in one.
    """
    others: dict[str, Any] = {}
    values: dict[tuple[str, str], tuple[Any, StudyRun]] = {}
    made = [read_run_settings(run.folder) for run in runs]
    for run, settings in zip(runs, made, strict=True):
        for group in GROUPS:
            chosen, planned = (_choice(one, group) for one in (settings, run.settings))
            if planned not in (None, chosen):
                raise ConfigError(
                    f"{run.folder} was run with {group}={chosen or 'its default'}, but "
                    f"{run.setting} has {group}={planned}; rename the configuration"
                )
        for name, (there, wanted) in differences(settings, run.settings).items():
            if name in NEUTRAL_SETTINGS:
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
            if there != first:
                raise ConfigError(
                    f"{one.folder} was run with {name}={first}, {run.folder} with {name}={there}, "
                    "and the study does not set it; run all with the same overrides"
                )
    return others


def _choice(settings: Settings, group: str) -> str | None:
    """What a run chooses for a group of settings, such as ``pretrained`` for ``model``."""
    pairs = (one.partition("=") for one in settings.overrides)
    return {key: value for key, _, value in pairs}.get(group)


def read_runs(runs: Sequence[StudyRun]) -> list[Result]:
    """Reads the results of finished runs.

    Args:
        runs: Runs of a study of classifiers.

    Raises:
        DataError: If a run cannot be read, is not measured by its accuracy, or was made on other
            data than another run on the dataset.
    """
    found = []
    firsts: dict[str, Record] = {}
    for run in runs:
        (record,) = read_records([run.folder])
        check_same_data(firsts.setdefault(run.title, record), record)
        if not record.log:
            raise DataError(f"{run.folder} has no log.jsonl; train it again")
        try:
            found.append(_result(run, record))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{run.folder / REPORT} is damaged ({type(error).__name__}: {error}); train it "
                "again"
            ) from error
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
        valid=math.nan if report["trained_on_valid"] else report["valid"]["accuracy"],
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


def plan_study(
    file: Path,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    data: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[StudyRun]:
    """Returns the runs of a study: the first seed and fold of each configuration, then the next.

    A run in a study of one recipe is called ``<study>-<setting>-<seed>``. With datasets, it is
    called ``<study>-<setting>-s<seed>``, followed by ``/fold-<fold>`` if there are folds; the
    dataset's name precedes the setting if it differs from that of the recipe's folder.

    Args:
        file: The study.
        overrides: Additional overrides for every run, or for those of one dataset, as in
            ``fsdd:source=DIR``; those of a configuration take precedence.
        only: Names of configurations; None for all.
        data: Names of datasets; None for all.
        seeds: Seeds to run, out of those of the study; None for all.

    Raises:
        ConfigError: If the file, a name or a setting is wrong.
    """
    study = read_study(file)
    sets = study.data or {"": DataSet(".")}
    check_names(file, "setting", only, study.settings)
    check_names(file, "dataset", data, sets)
    known = {seed for own in all_seeds(study) for seed in own or ()}
    if missing := sorted(set(seeds or ()) - known):
        raise ConfigError(f"{file}: the study has no seed {missing[0]}; it has {sorted(known)}")
    general, special = _by_data(overrides, sets)
    planned: list[tuple[int, StudyRun]] = []
    unheard: dict[str, list[str]] = {}  # configurations that set what is given here themselves
    for name in dict.fromkeys(data or sets):
        for setting in dict.fromkeys(only or study.settings):
            own, of = study.settings[setting], sets[name]
            if own.data is not None and name not in own.data:
                continue
            given = [*general, *special.get(name, ())]
            last = [*own.overrides, *(own.data or {}).get(name, ())]
            for override in given:
                key = override.partition("=")[0]
                if override not in last and any(one.startswith(f"{key}=") for one in last):
                    where = f"{setting} on {name}" if name else setting
                    unheard.setdefault(override, []).append(where)
            every = [*study.overrides, *of.overrides, *given, *last]
            recipe, baseline = file.parent / of.recipe, own.baseline or study.baseline
            settings = _compose(file, recipe, every, setting, name)
            prefix = f"{file.stem}-{setting}-" + ("s" if name else "")
            if name and name != recipe.resolve().name:
                prefix = f"{file.stem}-{name}-{setting}-s"
            chosen = dict.fromkeys(own.seeds or of.seeds or study.seeds)
            for rank, (seed, fold) in enumerate(product(chosen, of.folds or [None])):
                if seeds is not None and seed not in seeds:
                    continue
                run = StudyRun(
                    data=name,
                    title=of.title or name,
                    setting=setting,
                    fold=None if fold is None else str(fold),
                    baseline=None if setting == baseline else baseline,
                    control=own.control,
                    script=recipe / "run.py",
                    settings=_of_fold(settings, f"{prefix}{seed}", seed, fold),
                )
                planned.append((rank, run))
    for override, names in unheard.items():
        warn(f"{override} has no effect on configurations that set it themselves: {some(names)}")
    if not planned:
        raise ConfigError(f"{file}: no run has these settings, datasets and seeds")
    folders = Counter(run.folder for _, run in planned)
    if twice := [folder for folder, count in folders.items() if count > 1]:
        raise ConfigError(
            f"{file}: two runs would be named {twice[0]}; rename a setting or dataset"
        )
    return [run for _, run in sorted(planned, key=lambda pair: pair[0])]


def _compose(
    file: Path, recipe: Path, overrides: Sequence[str], setting: str, data: str
) -> Settings:
    """Composes the settings of a configuration.

    Args:
        file: The study.
        recipe: Folder of the recipe.
        overrides: All overrides.
        setting: Name of the configuration, for messages.
        data: Name of the dataset; empty in a study of one recipe.

    Raises:
        ConfigError: If an override is wrong, or one that a study replaces.
    """
    try:
        _check_given(overrides)
        settings = compose(recipe, overrides)
    except ConfigError as error:
        where = f"{file}, setting {setting}" + (f", dataset {data}" if data else "")
        raise ConfigError(f"{where}: {error}") from error
    if data and isinstance(settings, AudioSettings) and settings.folds:
        raise ConfigError(
            f"{file}: folds={settings.folds} is for single recipes; list the folds of dataset "
            f"{data} as folds: [...]"
        )
    return settings


def _of_fold(settings: Settings, run_id: str, seed: int, fold: Any) -> Settings:
    """Returns the settings for a seed and a fold. Composing each would take a tenth of a second."""
    overrides = [*settings.overrides, f"seed={seed}"]
    one = replace(settings, seed=seed, run_id=run_id, overrides=overrides)
    if fold is None:
        return one
    if not isinstance(one, AudioSettings):
        raise ConfigError(f"{settings.recipe} has no folds")
    if given := [own for own in settings.overrides if own.startswith(f"{one.fold_by.key}=")]:
        raise ConfigError(f"{given[0]}: the study lists the folds; leave it out")
    return replace(one.with_fold(fold), run_id=f"{run_id}/fold-{fold}")


def _check_given(overrides: Sequence[str]) -> None:
    """Refuses overrides that a study replaces by its own values."""
    remedies = {"seed": "--seeds, or seeds: in its file", "jobs": "--jobs", "run_id": "runs=FOLDER"}
    for override in overrides:
        key = override.partition("=")[0]
        if key in remedies:
            raise ConfigError(f"{override}: a study sets {key} itself; see {remedies[key]}")
        if key.startswith("cluster"):
            raise ConfigError(f"{override}: a study runs on this machine; leave it out")


def _by_data(
    overrides: Sequence[str], names: Collection[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Splits overrides into those of all runs, and those of each dataset (``NAME:KEY=VALUE``)."""
    general: list[str] = []
    special: dict[str, list[str]] = {}
    for override in overrides:
        name, colon, rest = override.partition(":")
        if not colon or "=" in name:
            general.append(override)
        elif name not in names:
            raise ConfigError(f"{override}: {unknown('dataset', name, list(names))}")
        else:
            special.setdefault(name, []).append(rest)
    return general, special
