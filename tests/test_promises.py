"""The page of promises: each names a test, and each test that is named exists."""

import ast
import re
from pathlib import Path

from tests import ROOT

PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/\S+?\.py)::(\w+)`", PAGE)


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 40
    missing = [
        f"{file}::{name}"
        for file, name in NAMED
        if not (ROOT / file).is_file() or name not in defined_in(ROOT / file)
    ]
    assert not missing


def test_every_promise_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    promises = [r for r in rows if not r.startswith(("|---", "| Promise", "| Error"))]
    assert len(promises) > 20
    for row in promises:
        _, promise, tests, _ = row.split("|")
        assert promise.strip()
        assert re.fullmatch(r"(`tests/\S+?\.py::test_\w+` ?)+", tests.strip()), row
