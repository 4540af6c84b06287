"""The benchmark of training steps: its report and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spaudio.bench.__main__ import main
from tests.fixtures.tiny_audio import make_fsdd
from tests.fixtures.tiny_run import RECIPES
from tests.fixtures.tiny_text import write_text

FSDD = str(RECIPES / "fsdd")


@pytest.mark.parametrize("recipe", ["fsdd", "text8"])
def test_rows_hold_each_filter_beside_the_first(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if recipe == "fsdd":
        data = [f"source={make_fsdd(tmp_path / 'fsdd', digits=range(3), clips=6)}"]
        filter = "bank,filter.num_filters=7"
        parameters = 2 * 7 * 17  # two layers, seven filters of 16 taps and a gain
    else:
        data = [f"corpus={write_text(tmp_path / 'tiny.txt.xz')}", "eval.stride=16", "context=32"]
        filter = "multiscale,filter.scales=[[3,2],[1,5]],model.filter_layers=[0]"
        parameters = 3 * 2 + 1 * 5 + 4
    main(["step", str(RECIPES / recipe), "preset=debug", *data, "--rounds", "1", "--threads", "1",
          "--filter", "none", "--filter", filter])  # fmt: skip
    none, other = json.loads((tmp_path / "runs" / "bench_step.json").read_text())["rows"]
    assert none["times_the_first"] == 1
    assert other["parameters"] - none["parameters"] == parameters
    assert other["seconds"] / none["seconds"] == pytest.approx(other["times_the_first"])
    assert f"| {filter} |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a recipe's folder"),
        ([str(RECIPES / "fsd")], "unknown recipe 'fsd'; did you mean fsdd"),
        ([FSDD, "--filter", "bonk"], "unknown filter 'bonk'"),
        ([FSDD, "trainer.epoch=3"], "trainer.epoch"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["step", *arguments])
