"""Command line of the scripts in ``data_prep/``: takes ``key=value``, prints a summary."""

import inspect
import json
import math
import sys
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from spaudio.audio.prepare import Prepared, SourceClips, prepare
from spaudio.errors import ConfigError
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.io.escape import printable
from spaudio.io.paths import user_path

_COMMON: dict[str, Any] = {
    "folder": "data",
    "skip_bad": False,
    "duplicates": "refuse",
    "workers": 2,
}
#: What Ctrl-C prints.
INTERRUPTED = "interrupted; run the same command again to continue\n"


def main(
    name: str, listing: Callable[..., SourceClips], arguments: Sequence[str] | None = None
) -> None:
    """Prepares a dataset from ``key=value`` arguments and prints a summary.

    Ends on errors as :func:`spaudio.io.command_line.errors_in_one_line` does.

    Args:
        name: Name of the dataset.
        listing: The ``prepare`` function of its script; its keyword arguments are the options, and
            their annotations say what is accepted.
        arguments: None takes those of the process.
    """
    set_up_terminal()
    with errors_in_one_line(interrupted=INTERRUPTED):
        prepared = run(name, listing, sys.argv[1:] if arguments is None else arguments)
        sys.stderr.writelines(f"warning: {printable(warning)}\n" for warning in prepared.warnings)
        counts = Counter(clip.split for clip in prepared.clips)
        splits = ", ".join(f"{split} {number}" for split, number in sorted(counts.items()))
        sys.stdout.write(
            f"{len(prepared.clips)} clips ({splits}), {len(prepared.labels)} labels, "
            f"{len(prepared.skipped)} skipped\n"
            f"manifest {prepared.manifest}\nsha256 {prepared.hash}\n"
        )


def run(name: str, listing: Callable[..., SourceClips], arguments: Sequence[str]) -> Prepared:
    """Prepares a dataset from ``key=value`` arguments.

    Raises:
        ConfigError: If an argument is not ``key=value``, its key is unknown, or its value is of
            the wrong type.
        DataError: For the reasons of `spaudio.audio.prepare`.
    """
    parameters = inspect.signature(listing).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    common = dict(_COMMON)
    kinds = {key: type(value) for key, value in common.items()} | typing.get_type_hints(listing)
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"argument {argument!r}; expected key=value")
        owner = options if key in options else common
        if key not in owner:
            raise ConfigError(f"unknown key {key!r}; known: {', '.join([*options, *common])}")
        owner[key] = _value(key, text, kinds[key])
    if missing := [key for key, value in options.items() if value is inspect.Parameter.empty]:
        raise ConfigError(f"{missing[0]}= is required")
    return prepare(
        name,
        lambda work: listing(work, **options),
        options=options,
        **common | {"folder": user_path(common["folder"])},
    )


def _value(key: str, text: str, annotation: Any) -> Any:
    """Reads a value by its annotation; text is taken as it is, even if it is a number."""
    kind = next(kind for kind in _READERS if annotation in (kind, kind | None))
    read, expected = _READERS[kind]
    optional = annotation != kind
    if optional and text == "null":
        return None
    try:
        return read(text)
    except (ValueError, KeyError) as error:
        also = " or null" if optional else ""
        raise ConfigError(f"{key}={text!r}; expected {expected}{also}") from error


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _items(text: str, kind: type) -> list[Any]:
    items = json.loads(text)
    if not isinstance(items, list) or any(type(item) is not kind for item in items):
        raise ValueError(text)
    return items


# For each annotation: the function that reads a value, and what is accepted.
_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "text"),
    bool: (_truth, "true or false"),
    int: (int, "a whole number"),
    float: (_number, "a number"),
    list[str]: (partial(_items, kind=str), 'a list such as ["a", "b"]'),
    list[int]: (partial(_items, kind=int), "a list such as [1, 2]"),
}
#: Annotations that an option of a dataset may have.
ANNOTATIONS = (*_READERS, *(kind | None for kind in _READERS))
