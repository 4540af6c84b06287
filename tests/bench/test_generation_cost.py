"""The benchmark of generation: its report and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spaudio.bench.__main__ import main


def test_rows_hold_both_speeds_and_their_ratio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "bench.json"
    main(["generate", "--context", "8", "--rounds", "1", "--filter", "none", "--filter",
          "depthwise", "--output", str(file)])  # fmt: skip
    report = json.loads(file.read_text())
    assert [row["name"] for row in report["rows"]] == ["none", "depthwise"]
    for row in report["rows"]:
        assert row["length"] == row["context"] == 8
        assert row["rounds"] == 1
        speeds = row["cached_per_second"] / row["full_per_second"]
        assert row["times_faster"] == pytest.approx(speeds)
    assert capsys.readouterr().out.count("| 4 x 128 | rotary | 8 |") == 2


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .*not a run's folder"):
        main(["generate", str(tmp_path)])
