"""The examples of filters in README.md and on the pages of docs run as printed."""

import re
from pathlib import Path

import pytest

from tests import ROOT

README = ROOT / "README.md"
MARKED = re.compile(
    r"<!-- filters-example -->\s*```python\n(.*?)```\s*<!-- filters-example -->", re.DOTALL
)
# The other examples are run by tests/inference/test_audio_model.py and tests/export/test_write.py.
EXAMPLES = [
    pytest.param(block, id=page.relative_to(ROOT).as_posix())
    for page in (README, *sorted((ROOT / "docs").rglob("*.md")))
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    if "spaudio.filters" in block
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_the_example_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchaudio")
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    exec(block, {})


def test_the_readme_has_one_short_example() -> None:
    found = MARKED.findall(README.read_text(encoding="utf-8"))
    assert len(found) == 1, "README.md must hold one example between two marks"
    assert len([line for line in found[0].splitlines() if line.strip()]) <= 15
