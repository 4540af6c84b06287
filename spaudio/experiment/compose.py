"""Composes a recipe's YAML and overrides into checked settings.

Hydra composes and checks names and types against the tree of :mod:`spaudio.experiment.settings`.
This module adds the nearest name and a remedy to its errors.
"""

import difflib
import itertools
import json
import operator
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    OmegaConfBaseException,
    ValidationError,
)

from spaudio.errors import ConfigError, first_line
from spaudio.experiment.pretrained_defaults import pretrained_defaults
from spaudio.experiment.recipes import prep_function
from spaudio.experiment.schemas import KINDS, filter_schemas, prep_schema
from spaudio.experiment.settings import (
    AudioSettings,
    ClassifierConfig,
    PretrainConfig,
    PretrainedConfig,
    Settings,
)
from spaudio.io.paths import user_path
from spaudio.io.plain import read_yaml
from spaudio.report.records import LAUNCHING
from spaudio.tokens.augment import AugmentConfig

SEARCH_PATH = "hydra.searchpath=[pkg://spaudio.conf]"
#: Hydra's settings of its own application, which take a quarter of the time and are not used.
_NOT_COMPOSED = [
    f"~hydra/{group}"
    for group in ("output", "launcher", "sweeper", "help", "hydra_help", "hydra_logging",
                  "job_logging", "env")
]  # fmt: skip
_EXPECTED = {
    "Integer": "a whole number",
    "Float": "a number",
    "bool": "true or false",
    "ListConfig": "a list",
}
#: Groups of settings that one name chooses together, such as ``model=pretrained``.
GROUPS = ("filter", "tokens", "model", "pretrain", "augment", "preset")
#: Settings that a choice of a group sets, together with the defaults of that choice.
_CHOSEN = {"filter.name": "filter", "tokens.front_end": "tokens", "pretrain.objective": "pretrain"}
MOST_RUNS = 10_000  # of a sweep
_SYNTAX = ",:[]{}()'\""  # of Hydra's lists, sweeps and quoted values
_FEW = 12  # up to this many names are listed even if one is similar


def compose(recipe: Path, overrides: Sequence[str] = ()) -> Settings:
    """Composes the settings of a run.

    Args:
        recipe: Folder ``recipes/<name>`` of a checkout, with a ``config.yaml``.
        overrides: ``key=value`` in Hydra's grammar.

    Raises:
        ConfigError: If the folder is not a recipe, or a setting is unknown, of the wrong type or
            out of range.
    """
    if not (recipe / "config.yaml").is_file():
        known = sorted(path.parent.name for path in recipe.parent.glob("*/config.yaml"))
        if known:
            raise unknown("recipe", recipe.name, known)
        raise ConfigError(
            f"{recipe} is not a recipe's folder: it has no config.yaml; name one, such as "
            "recipes/folder, or move the YAML file of a study into one"
        )
    parsed = [parse(override) for override in overrides]
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line} lists several values; add -m to run them all")
        if isinstance(override.value(), dict) and override.key_or_group != "cluster_options":
            raise ConfigError(
                f"{override.input_line}: give each setting by its own name, {override.key_or_group}"
                ".NAME=VALUE"
            )
    keys = {override.key_or_group for override in parsed}
    if {"filter.milliseconds", "filter.kernel_size"} <= keys:
        raise ConfigError("filter.milliseconds and filter.kernel_size set the same size; give one")
    if "resume" in keys and (others := sorted(map(str, keys - {"resume", "jobs"}))):
        raise ConfigError(
            f"resume takes every setting from the run: leave {others[0]} out, or start a new run"
        )
    for key, group in _CHOSEN.items():
        if key in keys:
            raise ConfigError(f"{key} is set by the choice of {group}; give {group}=NAME")
    file = _read_file(recipe)
    schemas = _register(recipe, file, parsed)
    config = _compose(recipe, file, [_as_text(override, schemas) for override in parsed])
    try:
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{recipe / 'config.yaml'}: {first_line(error)}") from error
    if not isinstance(settings, Settings):
        raise ConfigError(
            f"{recipe / 'config.yaml'} has no list defaults: that begins with audio or text"
        )
    if isinstance(settings.model, PretrainedConfig) and "model" not in keys:
        # Its defaults would replace settings of the file that were chosen on purpose, or be absent.
        raise ConfigError(
            f"{recipe / 'config.yaml'} chooses a pretrained model; leave it out there and give "
            "model=pretrained model.source=... with the command, which sets its other defaults too"
        )
    if isinstance(settings, AudioSettings):
        settings.replaced = _replaced(file, parsed, settings)
    settings.overrides = list(overrides)
    _resolve_folders(settings)
    _check_cluster(settings)
    return settings


def _check_cluster(settings: Settings) -> None:
    """Refuses settings of a cluster that would stop every run early, or have no effect."""
    cluster, options = settings.cluster, settings.cluster_options
    if cluster is None:
        return
    if settings.jobs > 1:
        raise ConfigError(
            f"jobs={settings.jobs} has no effect with cluster={cluster}, which submits every run "
            "as a job; leave it out"
        )
    limits = ["timeout_min", f"{cluster}_timeout_min"]
    given = {name: options[name] for name in limits if options.get(name) is not None}
    if cluster == "slurm" and options.get("slurm_time") is not None:
        return
    if not given:  # submitit's defaults, 2 and 5 minutes, would stop nearly every run
        raise ConfigError(
            f"cluster={cluster} needs the minutes after which a job is stopped; give "
            "cluster_options.timeout_min=MINUTES"
        )
    for name, value in given.items():
        if not (isinstance(value, int) and value > 0):
            raise ConfigError(f"cluster_options.{name}={value}; expected a whole number of minutes")


def _replaced(
    file: Mapping[str, Any], overrides: Sequence[Override], settings: AudioSettings
) -> list[str]:
    """Returns the settings of a recipe's file that ``model=pretrained`` replaces, and by what."""
    content = OmegaConf.create(dict(file))
    found = []
    for change in pretrained_defaults(overrides, file):
        key = change.partition("=")[0]
        before = OmegaConf.select(content, key, throw_on_resolution_failure=False)
        now = operator.attrgetter(key)(settings)
        if before not in (None, now) and key != "augment":
            found.append(f"{key}={json.dumps(before)} by {json.dumps(now)}")
    return found


def _resolve_folders(settings: Settings) -> None:
    """Expands ``~``, and makes folders that a run needs later absolute.

    The run may be used from another folder, and not every shell expands the ``~`` of ``data=~``.
    """
    settings.data, settings.runs = str(user_path(settings.data)), str(user_path(settings.runs))
    parts = (settings.model, getattr(settings, "pretrain", None))
    for part in parts:
        source = getattr(part, "source", None)
        if source is not None and (folder := user_path(source)).is_dir():
            part.source = str(folder.resolve())  # type: ignore[union-attr]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Expands the overrides of a sweep into those of each run, in Hydra's order.

    Raises:
        ConfigError: If an override cannot be read, gives a range without an end, or lists values
            of a setting that all runs share.
    """
    choices = []
    for override in map(parse, overrides):
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
            continue
        name = override.key_or_group.partition(".")[0]
        if name in LAUNCHING - {"resume"}:  # which no sweep takes at all
            raise ConfigError(
                f"{override.input_line}: all runs of a sweep have the same {name}; give one value"
            )
        try:
            values = list(itertools.islice(override.sweep_string_iterator(), MOST_RUNS))
        except (HydraException, ValueError) as error:  # a step of 0 is a ValueError of `range`
            raise ConfigError(
                f"{override.input_line}: {first_line(error)}; list the values, "
                f"{override.key_or_group}=a,b,c"
            ) from error
        if not values:
            raise ConfigError(
                f"{override.input_line} holds no value; list some, {override.key_or_group}=a,b,c"
            )
        written = (override.input_line or "").partition("=")[2].split(",")
        if len(written) == len(values) and not any(set(_SYNTAX) & set(one) for one in written):
            values = [one.strip() for one in written]  # Hydra would make 2024_05 202405
        choices.append([f"{override.key_or_group}={value}" for value in values])
    runs = [list(run) for run in itertools.islice(itertools.product(*choices), MOST_RUNS)]
    if len(runs) == MOST_RUNS:
        raise ConfigError(f"the sweep has {MOST_RUNS} runs or more; list fewer values")
    return runs


def parse(override: str) -> Override:
    """Reads one override.

    Raises:
        ConfigError: If it is not ``key=value``.
    """
    key, _, value = override.partition("=")
    if not key.strip():
        raise ConfigError(f"{override!r} names no setting; expected key=value")
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        if value and not set(value) & set(_SYNTAX):  # such as a path with letters beyond ASCII
            return parse(f"{key}={quoted(value)}")
        raise ConfigError(
            f"cannot read {override!r}; expected key=value, quoted where the value holds one of "
            f"{_SYNTAX} as in 'key=\"value\"' ({first_line(error)})"
        ) from error
    if parsed.is_delete() or parsed.is_add() or parsed.is_force_add():
        raise ConfigError(f"{override}: settings cannot be added or removed; give key=value")
    if parsed.key_or_group.startswith("hydra"):
        raise ConfigError(
            f"{override}: Hydra's own settings are not used; run a sweep's runs side by side with "
            "jobs=N, or on a cluster with cluster=slurm"
        )
    return parsed


def quoted(value: object) -> str:
    """Quotes a string as the value of an override."""
    # In Hydra's grammar a backslash is escaped only where a quotation mark follows.
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), str(value))
    return f"'{escaped}'"


def unknown(what: str, name: str, known: Sequence[str]) -> ConfigError:
    """Returns the error for an unknown name, with the nearest known names."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if not near or len(known) <= _FEW:
        hints.append(f"known: {', '.join(known) or 'none'}")
    return ConfigError(f"unknown {what} {name!r}; {' '.join(hints)}")


def _read_file(recipe: Path) -> Mapping[str, Any]:
    """Reads a recipe's ``config.yaml``."""
    path = recipe / "config.yaml"
    try:
        content = read_yaml(path) or {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} cannot be read (it is not a mapping of settings)")
    return content


def _register(recipe: Path, file: Mapping[str, Any], overrides: Iterable[Override]) -> list[type]:
    """Registers the settings with Hydra; returns their classes, with those of the dataset."""
    name = str(file.get("prep", file.get("recipe", recipe.name)))
    for override in overrides:
        if override.key_or_group == "prep":
            name = str(override.value())
    prepare = prep_function(recipe, name)
    schemas = tuple(prep_schema(schema, prepare) for schema in KINDS.values())
    _register_schemas(schemas)
    _register_choices()
    return list(schemas)


@lru_cache(maxsize=1)  # a process has one store, which keeps those of the last recipe
def _register_schemas(schemas: tuple[type, ...]) -> None:
    """Registers the classes of settings, in the order of `KINDS`."""
    for kind, schema in zip(KINDS, schemas, strict=True):
        ConfigStore.instance().store(f"{kind}_schema", schema)


@cache
def _register_choices() -> None:
    """Registers, once, the choices of the groups, which are the same for all recipes."""
    store = ConfigStore.instance()
    for choice, options in filter_schemas().items():
        store.store(choice, options, group="filter")
    store.store("none", AugmentConfig, group="augment")
    for objective in ("none", "masked"):
        store.store(objective, PretrainConfig(objective), group="pretrain")
    store.store("pretrained", PretrainedConfig, group="model")


def _as_text(override: Override, schemas: Iterable[type]) -> Override:
    """Keeps the value of a text setting as it was written, even if it is a number, as 2024_05."""
    if not isinstance(override.value(), bool | int | float):
        return override
    key, _, text = (override.input_line or "").partition("=")
    kinds: set[Any] = set(schemas)
    for name in key.split("."):
        kinds = {typing.get_type_hints(kind).get(name) for kind in kinds if is_dataclass(kind)}
        if ClassifierConfig in kinds:  # which a pretrained encoder replaces
            kinds.add(PretrainedConfig)
    return parse(f"{key}={quoted(text)}") if kinds & {str, str | None} else override


def _compose(recipe: Path, file: Mapping[str, Any], overrides: Sequence[Override]) -> DictConfig:
    lines = [_line(override) for override in overrides]
    try:
        with hydra.initialize_config_dir(str(recipe.resolve()), version_base="1.3"):
            changed = pretrained_defaults(overrides, file)
            return hydra.compose("config", [SEARCH_PATH, *_NOT_COMPOSED, *changed, *lines])
    except MissingConfigException as error:
        raise _unknown_choice(error) from error
    except HydraException as error:
        raise _explained(recipe, file, overrides, error) from error


def _line(override: Override) -> str:
    """Returns an override in the form that Hydra takes."""
    line = override.input_line or ""
    if override.key_or_group in GROUPS and not isinstance(override.value(), str):
        # Hydra raises a bare ValueError for these, even for the `preset: null` of the recipes.
        if override.key_or_group == "preset" and override.value() is None:
            return "~preset"
        return f"{override.key_or_group}={quoted(line.partition('=')[2])}"  # an unknown choice
    # `cluster_options` takes any names; to Hydra, these are added settings.
    return re.sub(r"^(?=cluster_options[.=])", "++", line)


def _unknown_choice(error: MissingConfigException) -> ConfigError:
    """Returns the error for an unknown choice of a group, with the known ones."""
    found = re.search(r"Could not find '(?:(\w+)/)?([^']*)'", str(error))
    known = re.findall(r"^\t(\w+)$", str(error), re.M)
    if not found or not found[1] or not known:
        return ConfigError(first_line(error))
    return unknown(found[1], found[2], known)


def _explained(
    recipe: Path, file: Mapping[str, Any], overrides: Sequence[Override], error: HydraException
) -> ConfigError:
    """Returns an error that names the wrong override and what is expected."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        groups = [o for o in overrides if o.key_or_group in GROUPS and isinstance(o.value(), str)]
        known = sorted(_setting_names(OmegaConf.to_container(_compose(recipe, file, groups))))
        key = str(cause.full_key)
        if "adapt" in known and key in {f"model.{one.name}" for one in fields(PretrainedConfig)}:
            return ConfigError(f"{key} is a setting of model=pretrained; give that, too")
        return unknown("setting", key, known)
    if isinstance(cause, ValidationError):
        expected = re.search(r"(?:converted to|not a valid|is not a(?! valid)) (\w+)", str(cause))
        wanted = _EXPECTED.get(expected[1], expected[1]) if expected else _by_type(cause)
        key = str(cause.full_key)
        keys = {o.key_or_group: o.input_line for o in overrides}
        near = [k for k in sorted(keys, key=len) if key == k or key.startswith((f"{k}.", f"{k}["))]
        # Items of a list are named by their number alone.
        lists = [o.input_line for o in overrides if isinstance(o.value(), list)]
        given = keys[near[-1]] if near else lists[0] if key.isdigit() and len(lists) == 1 else key
        return ConfigError(f"{given}; expected {wanted} ({first_line(cause)})")
    if isinstance(error.__context__, OmegaConfBaseException):  # of a setting in the file
        return _wrong_in_file(recipe / "config.yaml", file, error.__context__)
    return ConfigError(f"{recipe / 'config.yaml'}: {first_line(cause or error)}")


def _by_type(error: ValidationError) -> str:
    """Returns what a setting expects, where OmegaConf's text does not say it."""
    if "to string" in str(error):
        return "text, quoted where it holds brackets"
    return "a mapping" if "Dict" in str(error) else "a value, not null"


def _wrong_in_file(
    path: Path, file: Mapping[str, Any], error: OmegaConfBaseException
) -> ConfigError:
    """Returns an error that names the wrong setting of a recipe's file."""
    for group in GROUPS:
        if isinstance(file.get(group), str):
            return ConfigError(
                f"{path}: {group}: {file[group]} is a choice; make it under defaults:, as "
                f"- override {group}: {file[group]}"
            )
    key = str(error.full_key)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        kind = error.object_type  # of the group of settings that the key is in
        if is_dataclass(kind):
            known = [f"{key.rpartition('.')[0]}.{one.name}".lstrip(".") for one in fields(kind)]
            return ConfigError(f"{path}: {unknown('setting', key, known)}")
    return ConfigError(f"{path}: {key}: {first_line(error)}")


def _setting_names(settings: Any, prefix: str = "") -> Iterable[str]:
    """Yields the dotted names of all settings."""
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _setting_names(value, f"{prefix}{key}.")
