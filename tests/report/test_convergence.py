"""Convergence: crossings, pairs of equal seeds, and losses that are not reached."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spaudio.errors import DataError
from spaudio.report.comparison import group_runs
from spaudio.report.convergence import lay_out, measure_convergence, read_step_costs
from spaudio.report.convergence_plot import plot_convergence
from spaudio.report.records import Record


def run(
    filter: str, losses: list[float], seed: int = 0, second: float = 1.0, **settings: Any
) -> Record:
    """A run measured every 10 steps. A step takes ``second`` seconds and 5 operations.

    Its loss on the test split is the last one of validation plus 0.25.
    """
    named = {key.replace("__", "."): value for key, value in settings.items()}
    facts = {"recipe": "toy", "seed": seed, "num_params": 9, "step_flops": 5,
             "test.loss": losses[-1] + 0.25}  # fmt: skip
    log = [
        {"epoch": i, "step": 10 * i, "seconds": 10 * i * second, "valid_loss": loss}
        for i, loss in enumerate(losses, 1)
    ]
    return Record("run", {"filter.name": filter, **named}, facts, log)


def test_steps_and_seconds_to_the_baseline_s_best_loss(tmp_path: Path) -> None:
    runs = [
        run("none", [3.0, 2.5, 2.0, 1.5]),
        run("none", [3.0, 2.0, 1.0, 1.2], seed=1),
        run("bank", [3.0, 2.0, 1.0, 0.9], second=2.0),
        run("bank", [3.0, 0.5, 0.4, 0.4], seed=1, second=2.0),
    ]
    none, bank = measure_convergence(group_runs(runs))
    assert none.ratios("steps") == [1.0, 1.0]
    assert bank.differences == pytest.approx([-0.6, -0.6])
    # Seed 0 reaches 1.5 halfway between steps 20 and 30; the baseline took 40.
    # Seed 1 reaches 1.0 after 4/5 of steps 10 to 20; the baseline took 30.
    assert bank.ratios("steps") == pytest.approx([25 / 40, 18 / 30])
    assert bank.ratios("seconds") == pytest.approx([50 / 40, 36 / 30])
    assert bank.ratios("FLOPs") == pytest.approx([25 / 40, 18 / 30])
    assert bank.step_ratio("seconds") == pytest.approx(2.0)
    # Test losses are 1.15 and 1.75, 0.65 and 1.45.
    assert bank.test_differences == pytest.approx([-0.6, -0.8])
    _, markdown = lay_out([none, bank])
    assert "| -0.6000 ± 0.0000 | -0.7000 ± 0.1414 |" in markdown
    assert "0.61 ± 0.02" in markdown
    plot_convergence([none, bank], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_seconds_can_be_those_of_the_benchmark(tmp_path: Path) -> None:
    groups = group_runs([
        run("none", [3.0, 2.0, 1.0], second=9.0),
        run("bank", [2.0, 1.0, 0.9], second=0.1),
        run("bank", [2.5, 2.0, 1.0], filter__layers=[0, 1]),
    ])  # fmt: skip
    file = tmp_path / "costs.json"
    timed = {"none": 0.2, "bank": 0.3, "bank,filter.layers=[0,1]": 0.25}
    entries = [{"filter": name, "seconds": seconds} for name, seconds in timed.items()]
    file.write_text(json.dumps({"rows": entries}))
    found = measure_convergence(groups, read_step_costs(file))
    assert found[2].name == "filter=bank, filter.layers=[0, 1]"
    # The baseline takes 30 steps of 0.2 s, the bank 20 of 0.3 s; the runs' seconds are not read.
    assert found[0].curves[0].spent["seconds"] == pytest.approx([2.0, 4.0, 6.0])
    assert found[1].ratios("seconds") == pytest.approx([20 * 0.3 / (30 * 0.2)])
    assert found[2].step_ratio("seconds") == pytest.approx(1.25)
    assert "CPU" not in lay_out(found)[1]
    file.write_text(json.dumps({"rows": entries[:2]}))
    with pytest.raises(DataError, match=r'lack .*--filter "bank,filter.layers=\[0,1\]"'):
        measure_convergence(groups, read_step_costs(file))
    file.write_text("[]")
    with pytest.raises(DataError, match=r"is not what .*bench step"):
        read_step_costs(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_step_costs(tmp_path / "nowhere.json")


def test_the_baseline_can_be_another_filter() -> None:
    groups = group_runs([
        run("none", [3.0, 2.5, 2.0]),
        run("depthwise", [3.0, 2.0, 1.0], filter__kernel_size=4),
        run("depthwise", [3.0, 2.0, 1.5], filter__kernel_size=32),
        run("bank", [3.0, 1.0, 0.5]),
    ])  # fmt: skip
    found = measure_convergence(groups, baseline="depthwise")
    assert {one.baseline for one in found} == {"filter=depthwise"}
    differences = [one.differences[0] for one in found]
    assert differences == pytest.approx([1.0, 0.0, 0.5, -0.5])
    assert found[3].ratios("steps") == pytest.approx([20 / 30])
    assert lay_out(found)[1].count("not reached (1 of 1)") == 2 * 3
    found = measure_convergence(groups, baseline="depthwise, filter.kernel_size=32")
    assert {one.baseline for one in found} == {"filter=depthwise, filter.kernel_size=32"}
    with pytest.raises(DataError, match=r"no baseline: .*filter=depthwise,filter.kernel_size=8 "):
        measure_convergence(groups, baseline="depthwise,filter.kernel_size=8")


def test_a_loss_that_a_seed_did_not_reach_has_no_mean_ratio() -> None:
    runs = [
        run("none", [2.0, 1.0]),
        run("none", [2.0, 1.0], seed=1),
        run("fir", [2.0, 0.9]),
        run("fir", [2.0, 1.1], seed=1),
    ]
    _, markdown = lay_out(measure_convergence(group_runs(runs)))
    line = next(line for line in markdown.splitlines() if "fir" in line)
    assert line.count("not reached (1 of 2)") == 3  # steps, seconds, FLOPs


def test_a_baseline_shares_the_other_settings() -> None:
    runs = [
        run("none", [2.0, 1.0], positions="rotary"),
        run("none", [2.0, 1.5], positions="learned"),
        run("bank", [2.0, 1.4], positions="learned", model__filter_layers=[0]),
    ]
    bank = measure_convergence(group_runs(runs))[2]
    assert bank.baseline == "filter=none, positions=learned"
    assert bank.differences == pytest.approx([-0.1])
    with pytest.raises(DataError, match="no baseline"):
        measure_convergence(group_runs([runs[0], runs[2]]))


def test_runs_that_cannot_be_paired_are_refused() -> None:
    none, other = run("none", [2.0]), run("bank", [2.0], seed=1)
    with pytest.raises(DataError, match="no seed"):
        measure_convergence(group_runs([none, other]))
    with pytest.raises(DataError, match="repeats seed 0"):
        measure_convergence(group_runs([none, none]))
    none.log.clear()
    with pytest.raises(DataError, match="has no log"):
        measure_convergence(group_runs([none]))
