"""The benchmark of generation: what it measures and how it tells it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spaudio.bench import __main__ as command


def test_rows_hold_both_speeds_and_their_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out" / "bench.json"
    arguments = "generate --context 16 --rounds 3 --filter none --filter depthwise --output"
    monkeypatch.setattr(sys, "argv", ["bench", *arguments.split(), str(file)])
    command.main()
    report = json.loads(file.read_text())
    assert [row["name"] for row in report["rows"]] == ["none", "depthwise"]
    for row in report["rows"]:
        assert row["length"] == row["context"] == 16
        assert row["rounds"] == 3
        # The ratio is the median of each round's, which need not be that of the medians.
        speeds = row["cached_per_second"] / row["full_per_second"]
        assert row["times_faster"] == pytest.approx(speeds, rel=0.9)
    printed = capsys.readouterr().out
    assert printed.count("| 4 x 128 | rotary | 16 |") == 2


def test_a_folder_that_is_no_run_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "generate", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"error: .*not a run's folder"):
        command.main()
