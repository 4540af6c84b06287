"""Reads YAML and JSON as plain data of bounded size and depth; writes JSON; flattens data."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from spaudio.errors import first_line
from spaudio.io.atomic import write_atomic

MAX_YAML = 1 << 20  # bytes; a run's settings take a few thousand
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """A safe loader that refuses aliases: with them, a few lines can expand to gigabytes."""

    depth = 0

    @override
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it has an alias (*name); write the value out")
        if self.depth == MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    @override
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        content = super().construct_mapping(node, deep)
        if len(content) < len(node.value):  # later values have replaced earlier ones
            keys = [self.construct_object(key) for key, _ in node.value]
            twice = next(key for i, key in enumerate(keys) if key in keys[:i])
            raise ValueError(f"it has {twice} twice; leave one out")
        return content


def read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged, too large or too deep, or has aliases or repeated keys. The
            message is one line.
    """
    with path.open("rb") as file:
        content = file.read(MAX_YAML + 1)
    if len(content) > MAX_YAML:
        raise ValueError(f"it is larger than {MAX_YAML:,} bytes")
    loader = None
    try:
        loader = _Loader(content.decode("utf-8"))
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise ValueError(f"{error.problem or first_line(error)}{line}") from error
    except (yaml.YAMLError, ValueError, ArithmeticError, TypeError, AttributeError) as error:
        raise ValueError(first_line(error)) from error
    finally:
        if loader is not None:
            loader.dispose()


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is damaged or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_json(path: Path, content: Any, indent: int = 1) -> None:
    """Writes a JSON file, whole or not at all."""
    write_atomic(path, (json.dumps(content, indent=indent) + "\n").encode())


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names, such as ``filter.name``, and values of nested mappings."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
