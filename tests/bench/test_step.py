"""The benchmark of training steps: what it measures and how it tells it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from spaudio.bench import __main__ as command
from tests.experiment.test_recipes import tiny_text8
from tests.fixtures import tiny_audio
from tests.fixtures.tiny_run import RECIPES


def test_rows_hold_each_filter_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny_audio.make_fsdd_zip(tmp_path / "fsdd.zip")
    file = tmp_path / "bench.json"
    arguments = [str(RECIPES / "fsdd"), "preset=debug", f"source={source}", "--rounds", "3"]
    filters = ["--filter", "none", "--filter", "bank,filter.num_filters=7"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "step", *arguments, *filters, "--output", str(file)])
    command.main()
    none, bank = json.loads(file.read_text())["rows"]
    assert none["times_the_first"] == 1
    # Two layers, seven filters of 16 taps and a gain.
    assert bank["parameters"] - none["parameters"] == 2 * 7 * 17
    assert bank["seconds"] / none["seconds"] == pytest.approx(bank["times_the_first"], rel=0.9)
    assert "| bank,filter.num_filters=7 |" in capsys.readouterr().out


def test_a_text_recipe_is_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(RECIPES / "text8"), "preset=debug", *tiny_text8(tmp_path), "--rounds", "3"]
    multiscale = "multiscale,filter.scales=[[3,2],[1,5]],model.filter_layers=[0]"
    monkeypatch.chdir(tmp_path)
    filters = ["--filter", "none", "--filter", multiscale]
    monkeypatch.setattr(sys, "argv", ["bench", "step", *arguments, *filters])
    command.main()
    none, bank = json.loads((tmp_path / "runs" / "bench_step.json").read_text())["rows"]
    assert bank["parameters"] - none["parameters"] == 3 * 2 + 1 * 5 + 4
    assert f"| {multiscale} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a recipe's folder"),
        ([str(RECIPES / "fsd")], "unknown recipe 'fsd'; did you mean fsdd"),
        ([str(RECIPES / "fsdd"), "--filter", "bonk"], "Could not find 'filter/bonk'"),
        ([str(RECIPES / "fsdd"), "trainer.epoch=3"], "trainer.epoch"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "step", *arguments])
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        command.main()
