"""Plans a study: which runs its file asks for.

:mod:`spaudio.experiment.study_file` describes the file.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from spaudio.errors import ConfigError, some
from spaudio.experiment.compose import compose, unknown
from spaudio.experiment.run_folder import folder_of
from spaudio.experiment.settings import AudioSettings, Settings
from spaudio.experiment.study_file import DataSet, Study, all_seeds, check_names, read_study
from spaudio.io.messages import warn
from spaudio.report.run_files import fold_folder


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
    unheard: defaultdict[str, list[str]] = defaultdict(list)
    for name, setting in product(
        dict.fromkeys(data or sets), dict.fromkeys(only or study.settings)
    ):
        own = study.settings[setting]
        if own.data is not None and name not in own.data:
            continue
        given = [*general, *special.get(name, ())]
        last = [*own.overrides, *(own.data or {}).get(name, ())]
        for override in given:
            key = override.partition("=")[0]
            if override not in last and any(one.startswith(f"{key}=") for one in last):
                unheard[override].append(f"{setting} on {name}" if name else setting)
        every = [*study.overrides, *sets[name].overrides, *given, *last]
        runs = _of_configuration(file, study, sets[name], name, setting, every)
        planned += [
            (rank, run)
            for rank, run in enumerate(runs)
            if seeds is None or run.settings.seed in seeds
        ]
    for override, where in unheard.items():
        warn(f"{override} has no effect on configurations that set it themselves: {some(where)}")
    if not planned:
        raise ConfigError(f"{file}: no run has these settings, datasets and seeds")
    folders = Counter(run.folder for _, run in planned)
    if twice := [folder for folder, count in folders.items() if count > 1]:
        raise ConfigError(
            f"{file}: two runs would be named {twice[0]}; rename a setting or dataset"
        )
    return [run for _, run in sorted(planned, key=lambda pair: pair[0])]


def _of_configuration(
    file: Path, study: Study, of: DataSet, name: str, setting: str, overrides: Sequence[str]
) -> Iterator[StudyRun]:
    """Yields the runs of a configuration on a dataset, one per seed and fold.

    Args:
        file: The study's file.
        study: Its content.
        of: The dataset.
        name: Its name; empty in a study of one recipe.
        setting: Name of the configuration.
        overrides: All overrides of the runs.
    """
    own, recipe = study.settings[setting], file.parent / of.recipe
    baseline = own.baseline or study.baseline
    settings = _compose(file, recipe, overrides, setting, name)
    prefix = f"{file.stem}-{setting}-" + ("s" if name else "")
    if name and name != recipe.resolve().name:
        prefix = f"{file.stem}-{name}-{setting}-s"
    seeds = dict.fromkeys(own.seeds or of.seeds or study.seeds)
    if of.folds and isinstance(settings, AudioSettings) and settings.fold_by.key == "split_seed":
        raise ConfigError(
            f"{file}, dataset {name}: folds of split_seed share test clips, which the intervals of "
            "a study do not allow for; list seeds, or use spaudio compare --over split_seed"
        )
    folds: Iterable[str | int | None] = dict.fromkeys(of.folds or [None])
    for seed, fold in product(seeds, folds):
        yield StudyRun(
            data=name,
            title=of.title or name,
            setting=setting,
            fold=None if fold is None else str(fold),
            baseline=None if setting == baseline else baseline,
            control=own.control,
            script=recipe / "run.py",
            settings=_of_fold(settings, f"{prefix}{seed}", seed, fold),
        )


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
    key = one.fold_by.key
    if (given := settings.given.get(key)) is not None:
        raise ConfigError(f"{key}={given}: the study lists the folds; leave it out")
    return replace(one.with_fold(fold), run_id=f"{run_id}/{fold_folder(fold)}")


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
