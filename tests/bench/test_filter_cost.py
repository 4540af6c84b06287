"""The benchmark of the filterbank's backends, on a tiny shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spaudio.bench import filter_cost
from spaudio.bench.__main__ import main
from spaudio.bench.shapes import Shape


def test_each_backend_has_a_row_per_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = Shape("tiny", 1, 32, 8, ((4, 4), (2, 3)))
    assert Shape.from_dict(json.loads(json.dumps(tiny.as_dict()))) == tiny
    monkeypatch.setattr(filter_cost, "SHAPES", (tiny,))
    monkeypatch.setattr(filter_cost, "peak_extra_bytes", lambda *_: 2**20)  # starts processes
    main(["filters", "--rounds", "1", "--threads", "1", "--output", str(tmp_path / "bench.json")])
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["pass"] for row in rows[:2]] == ["forward", "forward+backward"]
    assert {row["backend"] for row in rows} >= {"reference"}
    assert rows[0]["times_faster_than_reference"] == 1
    assert "| 1, 32, 8 | 4·4 + 2·3 | forward | reference |" in capsys.readouterr().out
