"""The notebooks run from the first cell to the last, in their place in a checkout."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests import RECIPES, ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# Replaces what the cell with the tag "settings" defines, so that a notebook takes seconds.
SMALL: dict[str, dict[str, Any]] = {
    "own_sounds": {
        "SETTINGS": {"group_regex": r"([a-z]+)_\d+", "preset": "debug", "page": False,
                     "tokens.sample_rate": 8000, "trainer": {"epochs": 1, "batch_size": 64}}
    },
    "filters_in_your_model": {"STEPS": 15},
}  # fmt: skip


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").symlink_to(RECIPES)
    (tmp_path / "docs" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "docs" / "notebooks")
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert content["nbformat"] == 4
    names: dict[str, Any] = {"__name__": notebook.stem}
    tags = []
    for number, cell in enumerate(content["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert not cell["outputs"], "the outputs of a notebook are not kept"
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
        tags += cell["metadata"].get("tags", [])
        if "settings" in cell["metadata"].get("tags", []):
            assert SMALL[notebook.stem].keys() <= names.keys()
            names |= SMALL[notebook.stem]
    assert tags == ["settings"]


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)
