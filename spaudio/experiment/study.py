"""Runs a study: configurations over seeds or folds, on one recipe or on several datasets.

A study is a YAML file. Beside a recipe's ``run.py``, it is a study of that recipe::

    seeds: [0, 1, 2]
    overrides: [preset=tiny]            # of every run
    settings:
      none: [filter=none]               # name of the configuration: its overrides
      bank: [filter=bank]
      check: {overrides: [filter=bank, corpus=sotu], seeds: [0]}

With ``data``, it covers several datasets, whose recipes are folders relative to the file::

    seeds: [0]
    baseline: none                      # what configurations are compared with
    data:
      fsdd: {recipe: ../fsdd, overrides: [split=speaker], folds: [george, jackson]}
      arabic: {recipe: ../folder, title: Arabic commands, seeds: [0, 1, 2]}
    settings:
      none: [filter=none]
      depthwise: [filter=depthwise]
      bank: {overrides: [filter=bank], control: depthwise}   # of equal cost
      longer: {overrides: [filter=none], data: {arabic: [trainer.min_steps=3000]}}

``folds`` lists values of the setting by which the recipe chooses a fold (``fold_by.key``). ``data``
in a configuration restricts it to these datasets, each with further overrides.
"""

import math
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from spaudio.errors import ConfigError, DataError, SpaudioError, first_line, some
from spaudio.experiment.compose import compose, unknown
from spaudio.experiment.launch import Launcher, failed_runs
from spaudio.experiment.run_folder import (
    REPORT,
    differences,
    open_run_folder,
    read_run_settings,
)
from spaudio.experiment.settings import (
    INPUT_SETTINGS,
    NEUTRAL_SETTINGS,
    AudioSettings,
    Settings,
)
from spaudio.io.messages import say, warn
from spaudio.io.plain import flatten, read_json, read_yaml
from spaudio.report.comparison import check_same_data
from spaudio.report.records import DESCRIBING, LAUNCHING, Record, read_records
from spaudio.report.study_records import Result

# Settings that are local paths, or that do not change results.
_NOT_SHOWN = INPUT_SETTINGS | LAUNCHING | DESCRIBING | {"data"}


@dataclass
class DataSet:
    """A dataset of a study.

    Args:
        recipe: Folder of its recipe, relative to the study.
        title: Name in tables and figures; None uses its name in the study.
        overrides: Overrides of its runs.
        seeds: Seeds that replace those of the study.
        folds: Values of the setting by which the recipe chooses a fold.
    """

    recipe: str = MISSING
    title: str | None = None
    overrides: list[str] = field(default_factory=list)
    seeds: list[int] | None = None
    folds: list[Any] | None = None


@dataclass
class Configuration:
    """A configuration of a study: a combination of settings.

    Args:
        overrides: Overrides of its runs.
        seeds: Seeds that replace those of the dataset and the study.
        baseline: The configuration that it is compared with, instead of that of the study; its own
            name if it is a baseline itself.
        control: A configuration of similar cost that it is also compared with.
        data: The datasets on which it runs, each with further overrides; None for all.
    """

    overrides: list[str] = MISSING
    seeds: list[int] | None = None
    baseline: str | None = None
    control: str | None = None
    data: dict[str, list[str]] | None = None


@dataclass
class Study:
    """Content of a study's file.

    Args:
        seeds: Seeds of every configuration.
        settings: Configurations by name.
        overrides: Overrides of every run.
        baseline: The configuration that the others are compared with; required with datasets.
        data: Datasets by name; None for the recipe beside the file.
    """

    seeds: list[int] = MISSING
    settings: dict[str, Configuration] = MISSING
    overrides: list[str] = field(default_factory=list)
    baseline: str | None = None
    data: dict[str, DataSet] | None = None


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
        return Path(self.settings.runs, self.settings.recipe, str(self.settings.run_id))


def run_study(runs: Sequence[StudyRun], jobs: int = 1) -> None:
    """Executes the runs that are not finished yet.

    Args:
        runs: From :func:`plan_study`.
        jobs: Number of parallel runs.

    Raises:
        ConfigError: If a run of the same name exists with other settings.
        SpaudioError: If a run has failed.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1; got {jobs}")
    folders = {open_run_folder(run.settings): run.script for run in runs}
    if failed := Launcher(jobs)(folders):
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
        for name, (there, wanted) in differences(settings, run.settings).items():
            if name in NEUTRAL_SETTINGS:
                continue
            if _sets(run, name):
                raise ConfigError(
                    f"{run.folder} was run with {name}={there}, but {run.setting} has "
                    f"{name}={wanted}; give the same overrides as then, or rename the configuration"
                )
            others[name] = there
    for run, settings in zip(runs, made, strict=True):
        had = dict(flatten(settings.as_dict()))
        for name in (name for name in others if not _sets(run, name)):
            there = had.get(name)
            first, one = values.setdefault((run.data, name), (there, run))
            if there != first:
                raise ConfigError(
                    f"{one.folder} was run with {name}={first}, {run.folder} with {name}={there}, "
                    "and the study does not set it; run all with the same overrides"
                )
    return others


def _sets(run: StudyRun, name: str) -> bool:
    """Whether the study sets a setting of a run; a group, such as a filter, by its name only."""
    return name.removesuffix(".name") in run.settings.given or name in run.settings.given


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
        train_seconds=facts["seconds.train"],
        modulation_before=before,
        modulation_after=after,
        baseline=run.baseline or "",
        control=run.control or "",
        overrides=shlex.join(shown),
        git_commit=str(facts.get("git_commit", "")),
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
    study = _read_study(file)
    sets = study.data or {"": DataSet(".")}
    _check_names(file, "setting", only, study.settings)
    _check_names(file, "dataset", data, sets)
    general, special = _by_data(overrides, sets)
    planned: list[tuple[int, StudyRun]] = []
    _check_given(overrides, sets)
    for name in data or sets:
        for setting in only or study.settings:
            own, of = study.settings[setting], sets[name]
            if own.data is not None and name not in own.data:
                continue
            every = [*study.overrides, *of.overrides, *general, *special.get(name, ()),
                     *own.overrides, *(own.data or {}).get(name, ())]  # fmt: skip
            recipe, baseline = file.parent / of.recipe, own.baseline or study.baseline
            try:
                settings = compose(recipe, every)
            except ConfigError as error:
                where = f"{file}, setting {setting}" + (f", dataset {name}" if name else "")
                raise ConfigError(f"{where}: {error}") from error
            if name and isinstance(settings, AudioSettings) and settings.folds:
                raise ConfigError(
                    f"{file}: folds={settings.folds} is for single recipes; list the folds of "
                    f"dataset {name} as folds: [...]"
                )
            prefix = f"{file.stem}-{setting}-" + ("s" if name else "")
            if name and name != recipe.resolve().name:
                prefix = f"{file.stem}-{name}-{setting}-s"
            chosen = own.seeds or of.seeds or study.seeds
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
    if not planned:
        raise ConfigError(f"{file}: no run has these settings, datasets and seeds")
    folders = Counter(run.folder for _, run in planned)
    if twice := [folder for folder, count in folders.items() if count > 1]:
        raise ConfigError(
            f"{file}: two runs would be named {twice[0]}; rename a setting or dataset"
        )
    return [run for _, run in sorted(planned, key=lambda pair: pair[0])]


def _of_fold(settings: Settings, run_id: str, seed: int, fold: Any) -> Settings:
    """Returns the settings for a seed and a fold. Composing each would take a tenth of a second."""
    overrides = [*settings.overrides, f"seed={seed}"]
    one = replace(settings, seed=seed, run_id=run_id, overrides=overrides)
    if fold is None:
        return one
    if not isinstance(one, AudioSettings):
        raise ConfigError(f"{settings.recipe} has no folds")
    return replace(one.with_fold(fold), run_id=f"{run_id}/fold-{fold}")


def _check_given(overrides: Sequence[str], sets: Mapping[str, DataSet]) -> None:
    """Refuses overrides that a study replaces by its own values."""
    remedies = {"seed": "--seeds", "jobs": "--jobs", "run_id": "runs=FOLDER"}
    for override in overrides:
        name, colon, rest = override.partition(":")
        key = (rest if colon and name in sets else override).partition("=")[0]
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


def _check_names(
    file: Path | str, what: str, chosen: Iterable[str] | None, known: Collection[str]
) -> None:
    if missing := sorted(set(chosen or ()) - set(known)):
        raise ConfigError(f"{file}: {unknown(what, missing[0], list(known))}")


def _read_study(file: Path) -> Study:
    try:
        content = read_yaml(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); check the path") from error
    if not isinstance(content, dict) or not {"seeds", "settings"} <= set(content):
        raise ConfigError(f"{file} is not a study: it needs seeds and settings")
    settings = content["settings"]
    if not isinstance(settings, dict) or not all(
        isinstance(own, list | dict) for own in settings.values()
    ):
        raise ConfigError(f"{file}: settings must map names to lists of overrides")
    named = {k: {"overrides": own} if isinstance(own, list) else own for k, own in settings.items()}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Study), {**content, "settings": named})
        study = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        known = [one.name for one in fields(error.object_type)]  # type: ignore[arg-type]
        raise ConfigError(f"{file}: {unknown('key', str(error.full_key), known)}") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{file}, {error.full_key or 'study'}: {first_line(error)}") from error
    assert isinstance(study, Study)
    lists = [study.overrides, *(one.overrides for one in study.settings.values())]
    lists += [one.overrides for one in (study.data or {}).values()]
    lists += [own for one in study.settings.values() for own in (one.data or {}).values()]
    if wrong := [one for own in lists for one in own if not isinstance(one, str)]:
        raise ConfigError(f"{file}: {wrong[0]} is not an override; write key=value")
    others = [name for one in study.settings.values() for name in (one.baseline, one.control)]
    compared = [name for name in (study.baseline, *others) if name is not None]
    _check_names(file, "setting", compared, study.settings)
    if study.data and study.baseline is None:
        raise ConfigError(
            f"{file} has datasets and nothing to compare with; add baseline: SETTING, one of "
            f"{[*study.settings]}"
        )
    for name, own in study.settings.items():
        _check_names(f"{file}, setting {name}", "dataset", own.data, study.data or ())
    return study
