"""Schemas of settings, against which recipes and the ``config.yaml`` of runs are checked.

They are the dataclasses of :mod:`spaudio.experiment.settings`, with the options of the filter and
of the dataset, which come from the signatures of the filter and of the prep function.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spaudio.audio.command import ANNOTATIONS
from spaudio.errors import ConfigError, first_line
from spaudio.experiment.settings import (
    AudioSettings,
    FilterConfig,
    PretrainedConfig,
    Settings,
    TextSettings,
)
from spaudio.filters import FILTERS

# Arguments of filters that are not settings, because the model decides them.
_NOT_SETTINGS = ("self", "dim", "causal", "zero_init", "device", "dtype")
KINDS: dict[str, type[Settings]] = {
    "audio": AudioSettings,
    "text": TextSettings,
}
_WITH_OPTIONS: dict[tuple[type[Settings], str], type[Settings]] = {}  # of prep_schema


@cache
def filter_schemas() -> dict[str, type[FilterConfig]]:
    """Returns a dataclass for the options of each filter, derived from its constructor."""
    return {name: _filter_schema(name) for name in FILTERS}


def _filter_schema(name: str) -> type[FilterConfig]:
    hints = typing.get_type_hints(FILTERS[name].__init__)
    options: list[tuple[str, Any, Any]] = [("name", str, name)]
    for parameter in inspect.signature(FILTERS[name].__init__).parameters.values():
        if parameter.name not in _NOT_SETTINGS:
            kind, default = hints[parameter.name], parameter.default
            if "Sequence" in str(kind):  # (num_filters, kernel_size) per scale
                kind = list[list[int]] if type(None) not in typing.get_args(kind) else (
                    list[list[int]] | None)  # fmt: skip
            options.append((parameter.name, kind, _default(default)))
    return make_dataclass(f"{name.title()}Config", options, bases=(FilterConfig,))


def prep_schema(kind: type[Settings], prepare: Callable[..., Any]) -> type[Settings]:
    """Adds the keyword-only arguments of a dataset's ``prepare`` function to a settings class.

    The same arguments give the same class.

    Args:
        kind: The settings class.
        prepare: The function; each keyword-only argument has an annotation and a default.

    Raises:
        ConfigError: If an argument has the name of another setting, no default, an annotation
            that settings cannot have, or a default that does not fit it.
    """
    hints = typing.get_type_hints(prepare)
    taken = {f.name for f in fields(kind)}
    options = []
    for parameter in inspect.signature(prepare).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name in taken:
                raise ConfigError(f"prepare's {parameter.name!r} is already a setting; rename it")
            if parameter.default is parameter.empty:
                raise ConfigError(f"prepare's {parameter.name!r} has no default; give it one")
            if hints.get(parameter.name) not in ANNOTATIONS:
                raise ConfigError(
                    f"prepare's {parameter.name!r} must be annotated as str, bool, int, float, "
                    "list[str] or list[int], or one of them and None"
                )
            options.append((parameter.name, hints[parameter.name], parameter.default))
    key = (kind, repr(options))
    if key not in _WITH_OPTIONS:
        given = [(name, hint, _default(default)) for name, hint, default in options]
        schema = make_dataclass(kind.__name__, given, bases=(kind,))
        try:
            OmegaConf.structured(schema)
        except OmegaConfBaseException as error:
            name = str(error.full_key)
            raise ConfigError(
                f"prepare's {name!r} has a default that does not fit its annotation "
                f"({first_line(error)}); annotate it as one of these types and None if it may be "
                "None"
            ) from error
        _WITH_OPTIONS[key] = schema
    return _WITH_OPTIONS[key]


def _default(value: Any) -> Any:
    """Returns a dataclass default: a field with a list factory if the value is a sequence."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = [list(item) if isinstance(item, tuple) else item for item in value]
        return field(default_factory=lambda: list(plain))
    return value


def read_settings(content: Mapping[str, Any]) -> Settings:
    """Builds the settings of a finished or interrupted run from its ``config.yaml``.

    The values are plain data: no interpolation is resolved. Unknown settings are assumed to be
    those of the dataset.

    Args:
        content: Settings by name, as :meth:`Settings.as_dict` returned them.

    Raises:
        ConfigError: If a setting is missing, of the wrong type or out of range.
    """
    names = {kind: {f.name for f in fields(kind)} for kind in KINDS.values()}
    kind = max(names, key=lambda kind: len(names[kind] & content.keys()))
    known = names[kind]
    # OmegaConf resolves `${`. A null character prevents this, and cannot occur in YAML.
    literal = _replace(dict(content), "${", "$\0{")
    own = [(str(key), Any, _default(value)) for key, value in literal.items() if key not in known]
    schema = make_dataclass(kind.__name__, own, bases=(kind,))
    name = content["filter"].get("name") if isinstance(content.get("filter"), dict) else None
    if not isinstance(name, str) or name not in FILTERS:
        raise ConfigError(f"filter.name must be one of {list(FILTERS)}; got {name!r}")
    key = "settings"
    try:
        config = OmegaConf.structured(schema)
        model = content.get("model")
        if isinstance(model, dict) and "source" in model:
            config.model = OmegaConf.structured(PretrainedConfig)
        config.filter = OmegaConf.structured(filter_schemas()[name])
        for key, value in literal.items():  # one by one, as not every error names its setting
            config.merge_with({key: value})
        settings = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or key}: {first_line(error)}") from error
    settings = _replace(settings, "$\0{", "${")
    assert isinstance(settings, Settings)
    return settings


def _replace(value: Any, old: str, new: str) -> Any:
    """Replaces text in all strings of a tree of dataclasses, dictionaries and lists."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_replace(item, old, new) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, old, new) for key, item in value.items()}
    if is_dataclass(value):
        for name, item in vars(value).items():
            setattr(value, name, _replace(item, old, new))
    return value
