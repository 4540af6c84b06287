"""The file of a study: configurations, seeds or folds, and datasets.

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

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from spaudio.errors import ConfigError, first_line
from spaudio.experiment.compose import unknown
from spaudio.io.plain import read_yaml


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
        baseline: The configuration that the others are compared with. Required with datasets, and
            refused without.
        data: Datasets by name; None for the recipe beside the file.
    """

    seeds: list[int] = MISSING
    settings: dict[str, Configuration] = MISSING
    overrides: list[str] = field(default_factory=list)
    baseline: str | None = None
    data: dict[str, DataSet] | None = None


def read_study(file: Path) -> Study:
    """Reads and checks a study.

    Raises:
        ConfigError: If the file cannot be read, or a name or a value in it is wrong.
    """
    study = _parse(file)
    _check_lists(file, study)
    _check_comparisons(file, study)
    titles = Counter(one.title or name for name, one in (study.data or {}).items())
    if twice := [title for title, count in titles.items() if count > 1]:
        raise ConfigError(f"{file}: two datasets have the title {twice[0]}; change one")
    for name, own in study.settings.items():
        check_names(f"{file}, setting {name}", "dataset", own.data, study.data or ())
    return study


def _parse(file: Path) -> Study:
    """Reads a study, and checks the names and types of its keys."""
    try:
        content = read_yaml(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
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
    return study


def _check_lists(file: Path, study: Study) -> None:
    """Checks the lists of seeds and of overrides."""
    if not all(one is None or one for one in all_seeds(study)):
        raise ConfigError(f"{file}: seeds: [] names no seed; list one, or leave it out")
    for name, one in (study.data or {}).items():
        if one.folds == []:
            raise ConfigError(
                f"{file}, dataset {name}: folds: [] names no fold; list one, or leave it out"
            )
    lists = [study.overrides, *(one.overrides for one in study.settings.values())]
    lists += [one.overrides for one in (study.data or {}).values()]
    lists += [own for one in study.settings.values() for own in (one.data or {}).values()]
    if wrong := [one for own in lists for one in own if not isinstance(one, str)]:
        raise ConfigError(f"{file}: {wrong[0]} is not an override; write key=value")


def _check_comparisons(file: Path, study: Study) -> None:
    """Checks what configurations are compared with."""
    others = [name for one in study.settings.values() for name in (one.baseline, one.control)]
    compared = [name for name in (study.baseline, *others) if name is not None]
    check_names(file, "setting", compared, study.settings)
    if study.data and study.baseline is None:
        raise ConfigError(
            f"{file} has datasets and nothing to compare with; add baseline: SETTING, one of "
            f"{[*study.settings]}"
        )
    if not study.data and compared:
        raise ConfigError(
            f"{file} has baseline or control, which need datasets; leave them out, and compare the "
            "finished runs with spaudio compare RUN... --convergence --baseline FILTER"
        )


def all_seeds(study: Study) -> list[list[int] | None]:
    """Returns the lists of seeds of a study, its configurations and its datasets."""
    own = [one.seeds for one in study.settings.values()]
    return [study.seeds, *own, *(one.seeds for one in (study.data or {}).values())]


def check_names(
    file: Path | str, what: str, chosen: Iterable[str] | None, known: Collection[str]
) -> None:
    """Refuses names that a study does not have.

    Args:
        file: The study, or a place in it.
        what: What has these names, such as ``dataset``.
        chosen: The names; None for none.
        known: The names that exist.

    Raises:
        ConfigError: If a name is unknown.
    """
    if missing := sorted(set(chosen or ()) - set(known)):
        raise ConfigError(f"{file}: {unknown(what, missing[0], list(known))}")
