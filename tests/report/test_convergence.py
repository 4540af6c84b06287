"""Convergence: crossings by hand, pairs by seed, and what is not reached said so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from spaudio.errors import DataError
from spaudio.report.compare import group_runs
from spaudio.report.convergence import lay_out, measure_convergence
from spaudio.report.convergence_plots import plot_convergence
from spaudio.report.step_costs import StepCosts


def make_run(
    folder: Path, name: str, losses: list[float], seed: int = 0, second: float = 1.0, **extra: Any
) -> Path:
    """A run measured every 10 steps; a step takes so many seconds and 5 operations.

    Its loss on the test split is the last one of validation and a quarter.
    """
    folder.mkdir()
    settings = {"seed": seed, "filter": {"name": name}, "positions": "rotary", **extra}
    OmegaConf.save(OmegaConf.create(settings), folder / "config.yaml")
    report = {"recipe": "toy", "seed": seed, "filter": {"name": name}, "num_params": 9,
              "step_flops": 5, "test": {"loss": losses[-1] + 0.25}}  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    lines = [
        {"epoch": i, "step": 10 * i, "seconds": 10 * i * second, "valid_loss": loss}
        for i, loss in enumerate(losses, 1)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_steps_and_seconds_to_the_baseline_s_best_loss(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "n0", "none", [3.0, 2.5, 2.0, 1.5]),
        make_run(tmp_path / "n1", "none", [3.0, 2.0, 1.0, 1.2], seed=1),
        make_run(tmp_path / "b0", "bank", [3.0, 2.0, 1.0, 0.9], second=2.0),
        make_run(tmp_path / "b1", "bank", [3.0, 0.5, 0.4, 0.4], seed=1, second=2.0),
    ]
    none, bank = measure_convergence(group_runs(runs))
    assert none.ratios["steps"] == [1.0, 1.0]
    assert bank.differences == pytest.approx([-0.6, -0.6])
    # seed 0 comes to 1.5 halfway between steps 20 and 30; the baseline took 40
    # seed 1 comes to 1.0 after 4/5 of steps 10 to 20; the baseline took 30
    assert bank.ratios["steps"] == pytest.approx([25 / 40, 18 / 30])
    assert bank.ratios["seconds"] == pytest.approx([50 / 40, 36 / 30])
    assert bank.ratios["FLOPs"] == pytest.approx([25 / 40, 18 / 30])
    assert bank.step_ratio["seconds"] == pytest.approx(2.0)
    # of the test split, which is measured once: 1.15 against 1.75, 0.65 against 1.45
    assert bank.test_differences == pytest.approx([-0.6, -0.8])
    _, markdown = lay_out([none, bank])
    assert "| -0.6000 ± 0.0000 | -0.7000 ± 0.1414 |" in markdown
    assert "0.61 ± 0.02" in markdown
    plot_convergence([none, bank], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_seconds_can_be_those_of_the_benchmark(tmp_path: Path) -> None:
    bank = {"name": "bank", "layers": [0, 1]}
    runs = [
        make_run(tmp_path / "n", "none", [3.0, 2.0, 1.0], second=9.0),
        make_run(tmp_path / "b", "bank", [2.0, 1.0, 0.9], second=0.1),
        make_run(tmp_path / "c", "bank", [2.5, 2.0, 1.0], filter=bank),
    ]
    rows = group_runs(runs)
    file = tmp_path / "costs.json"
    timed = {"none": 0.2, "bank": 0.3, "bank,filter.layers=[0,1]": 0.25}
    entries = [{"filter": name, "seconds": seconds} for name, seconds in timed.items()]
    file.write_text(json.dumps({"rows": entries}))
    found = measure_convergence(rows, StepCosts.read(file))
    assert [one.name for one in found][2] == "filter=bank, filter.layers=[0, 1]"
    # the baseline takes 30 steps of 0.2 s, the bank 20 of 0.3 s; the runs' own clock is not read
    assert found[0].curves[0].spent["seconds"] == pytest.approx([2.0, 4.0, 6.0])
    assert found[1].ratios["seconds"] == pytest.approx([20 * 0.3 / (30 * 0.2)])
    assert found[2].step_ratio["seconds"] == pytest.approx(1.25)
    assert "CPU" not in lay_out(found)[1]
    file.write_text(json.dumps({"rows": entries[:2]}))
    with pytest.raises(DataError, match=r'no step of .*--filter "bank,filter.layers=\[0,1\]"'):
        measure_convergence(rows, StepCosts.read(file))
    file.write_text("[]")
    with pytest.raises(DataError, match=r"is not what .*bench step"):
        StepCosts.read(file)
    with pytest.raises(DataError, match="cannot be read"):
        StepCosts.read(tmp_path / "nowhere.json")


def test_the_baseline_can_be_another_filter(tmp_path: Path) -> None:
    longer = {"name": "depthwise", "kernel_size": 32}
    runs = [
        make_run(tmp_path / "n", "none", [3.0, 2.5, 2.0]),
        make_run(tmp_path / "d", "depthwise", [3.0, 2.0, 1.0]),
        make_run(tmp_path / "e", "depthwise", [3.0, 2.0, 1.5], filter=longer),
        make_run(tmp_path / "b", "bank", [3.0, 1.0, 0.5]),
    ]
    rows = group_runs(runs)
    found = measure_convergence(rows, baseline="depthwise")
    assert {one.baseline for one in found} == {"filter=depthwise"}
    differences = [one.differences[0] for one in found]
    assert differences == pytest.approx([1.0, 0.0, 0.5, -0.5])
    assert found[3].ratios["steps"] == pytest.approx([20 / 30])
    assert lay_out(found)[1].count("not reached (1 of 1)") == 2 * 3
    found = measure_convergence(rows, baseline="depthwise, filter.kernel_size=32")
    assert {one.baseline for one in found} == {"filter=depthwise, filter.kernel_size=32"}
    with pytest.raises(DataError, match=r"no baseline: .*filter=depthwise,filter.kernel_size=4 "):
        measure_convergence(rows, baseline="depthwise,filter.kernel_size=4")


def test_what_is_not_reached_has_no_ratio(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "n0", "none", [2.0, 1.0]),
        make_run(tmp_path / "n1", "none", [2.0, 1.0], seed=1),
        make_run(tmp_path / "f0", "fir", [2.0, 0.9]),
        make_run(tmp_path / "f1", "fir", [2.0, 1.1], seed=1),
    ]
    _, markdown = lay_out(measure_convergence(group_runs(runs)))
    line = next(line for line in markdown.splitlines() if "fir" in line)
    assert line.count("not reached (1 of 2)") == 3  # no run counted its CPU seconds: no column


def test_each_setting_has_a_baseline_of_its_own_positions(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "nr", "none", [2.0, 1.0]),
        make_run(tmp_path / "nl", "none", [2.0, 1.5], positions="learned"),
        make_run(tmp_path / "bl", "bank", [2.0, 1.4], positions="learned"),
    ]
    bank = measure_convergence(group_runs(runs))[2]
    assert bank.baseline == "filter=none, positions=learned"
    assert bank.differences == pytest.approx([-0.1])
    with pytest.raises(DataError, match="no baseline"):
        measure_convergence(group_runs([runs[0], runs[2]]))


def test_runs_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    none = make_run(tmp_path / "n", "none", [2.0])
    other = make_run(tmp_path / "b", "bank", [2.0], seed=1)
    with pytest.raises(DataError, match="no seed"):
        measure_convergence(group_runs([none, other]))
    again = make_run(tmp_path / "n2", "none", [2.0])
    with pytest.raises(DataError, match="repeats seed 0"):
        measure_convergence(group_runs([none, again]))
