"""The README's example of filters in another model runs as printed."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(
    r"<!-- filters-example -->\s*```python\n(.*?)```\s*<!-- filters-example -->", re.DOTALL
)


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchaudio")
    pytest.importorskip("huggingface_hub")
    found = MARKED.findall(README.read_text(encoding="utf-8"))
    assert len(found) == 1, "README.md must hold one example between two marks"
    lines = [line for line in found[0].splitlines() if line.strip()]
    assert len(lines) <= 15
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(lines), str(README), "exec"), {})
    assert (tmp_path / "my-filters" / "model.safetensors").exists()
