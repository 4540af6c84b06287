"""The command and the settings of a run as text, without folders of the user's machine."""

import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from spaudio.io.escape import printable

_QUOTES = "'\""  # that may enclose a value
# Values that are read as the same text if the quotation marks are left out.
_WORD = re.compile(r"(?!(null|true|false|inf|nan)$)[a-z][\w.-]*", re.ASCII | re.IGNORECASE)
# An absolute path in a list or mapping that is given as text.
_INNER_PATH = re.compile(r"""(?<=[\[{,:\s'"])(/(?!/)|~|[A-Za-z]:[\\/])[^,\]}'"]*""")


def command(settings: Mapping[str, Any]) -> str:
    """The command that made a run; folders are shortened to their last part.

    It can be typed in the working directory if the environment is there or has been activated.
    """
    words = []
    for override in settings["overrides"]:
        name, _, value = override.partition("=")
        bare = value.strip(_QUOTES)
        if shortened(bare, name) != printable(bare) or _WORD.fullmatch(bare):
            override = f"{name}={shortened(bare, name)}"
        words.append(shlex.quote(printable(override)))
    # A recipe that `spaudio new` wrote has its script, prep.py, in its own folder.
    folder = "" if settings.get("prep") == "prep" else "recipes/"
    script = f"{folder}{settings['recipe']}/run.py"
    here = Path(sys.executable).is_relative_to(Path.cwd())
    if script == "recipes/folder/run.py" and not Path(script).is_file():  # not in a clone
        train = Path(this_python()).with_name("spaudio") if here else "spaudio"
        return " ".join([str(train), "train", *words])
    return " ".join([this_python() if here else "python", script, *words])


def this_python() -> str:
    """The interpreter as a command: relative to the working directory if it is there."""
    path, here = Path(sys.executable), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def is_expression(setting: str) -> bool:
    """Whether a setting is a regular expression, which may begin with a slash as a path does."""
    return setting.endswith("_regex")


def without_folders(value: Any, setting: str = "") -> Any:
    """Shortens absolute paths in the value of a setting, also in lists and mappings."""
    if isinstance(value, str):
        return shortened(value, setting)
    if isinstance(value, list | tuple):
        return [without_folders(item, setting) for item in value]
    if isinstance(value, Mapping):
        return {key: without_folders(item, str(key)) for key, item in value.items()}
    return value


def shortened(value: object, setting: str = "") -> str:
    """Returns the value of a setting as text; absolute paths are shortened to their last part."""
    if not isinstance(value, str):
        return printable(without_folders(value, setting))
    text = printable(value)
    if is_expression(setting):
        return text
    if text[:1] in ("[", "{"):
        return _INNER_PATH.sub(lambda found: shortened(found[0]), text)
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if posix.is_absolute() or text.startswith("~"):
        return f"…/{posix.name}"
    return f"…/{windows.name}" if windows.is_absolute() else text
