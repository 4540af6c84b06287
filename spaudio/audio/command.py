"""Command line of the scripts in ``data_prep/``: takes ``key=value``, prints a summary."""

import inspect
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spaudio.audio.prepare import Prepared, SourceClips, prepare
from spaudio.errors import ConfigError, SpaudioError

_COMMON: dict[str, Any] = {
    "folder": "data",
    "skip_bad": False,
    "duplicates": "refuse",
    "min_seconds": 0.0,
    "workers": 2,
}


def main(
    name: str, listing: Callable[..., SourceClips], arguments: Sequence[str] | None = None
) -> None:
    """Prepares a data set from ``key=value`` arguments and prints a summary.

    Exits with code 1 and one message on an error that the user can correct, with 130 on Ctrl-C.

    Args:
        name: Name of the data set.
        listing: Its script's ``prepare`` function; its keyword arguments are the options.
        arguments: None takes those of the process.
    """
    try:
        prepared = run(name, listing, sys.argv[1:] if arguments is None else arguments)
    except SpaudioError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to continue\n")
        sys.exit(130)
    sys.stderr.writelines(f"warning: {warning}\n" for warning in prepared.warnings)
    counts = Counter(clip.split for clip in prepared.clips)
    splits = ", ".join(f"{split} {number}" for split, number in sorted(counts.items()))
    sys.stdout.write(
        f"{len(prepared.clips)} clips ({splits}), {len(prepared.labels)} labels, "
        f"{len(prepared.skipped)} skipped\nmanifest {prepared.manifest}\nsha256 {prepared.hash}\n"
    )


def run(name: str, listing: Callable[..., SourceClips], arguments: Sequence[str]) -> Prepared:
    """Prepares a data set from ``key=value`` arguments.

    Raises:
        ConfigError: If an argument is not ``key=value`` or its key is unknown.
        DataError: For the reasons of `spaudio.audio.prepare`.
    """
    parameters = inspect.signature(listing).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    common = dict(_COMMON)
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals:
            raise ConfigError(f"argument {argument!r}; expected key=value")
        owner = options if key in options else common
        if key not in owner:
            raise ConfigError(f"unknown key {key!r}; known: {', '.join([*options, *common])}")
        owner[key] = _value(text)
    if missing := [key for key, value in options.items() if value is inspect.Parameter.empty]:
        raise ConfigError(f"{missing[0]}= is required")
    return prepare(
        name,
        lambda work: listing(work, **options),
        options=options,
        **common | {"folder": Path(common["folder"])},
    )


def _value(text: str) -> Any:
    """Parses JSON (a number, true, false, null or a list); other text is a string."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
