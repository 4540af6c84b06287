"""Convergence: crossings, pairs of equal seeds, and losses that are not reached."""

import json
from pathlib import Path
from typing import Any

import pytest

from spaudio.errors import DataError
from spaudio.report.comparison import group_runs
from spaudio.report.convergence import convergence_rows, measure_convergence, read_step_costs
from spaudio.report.figures.convergence_plot import plot_convergence
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


def rows_of(runs: list[Record], *options: Any) -> list[dict[str, str]]:
    return convergence_rows(measure_convergence(group_runs(runs), *options))


def test_steps_and_seconds_to_the_baseline_s_best_loss(tmp_path: Path) -> None:
    runs = [
        run("none", [3.0, 2.5, 2.0, 1.5]),
        run("none", [3.0, 2.0, 1.0, 1.2], seed=1),
        run("bank", [3.0, 2.0, 1.0, 0.9], second=2.0),
        run("bank", [3.0, 0.5, 0.4, 0.4], seed=1, second=2.0),
    ]
    # What a model fitted before training reaches takes no step, and does not count.
    runs[2].log.insert(0, {"epoch": 0, "step": 0, "seconds": 9.0, "valid_loss": 0.1})
    none, bank = rows_of(runs)
    assert none["minus baseline's"] == none["test loss minus baseline's"] == "baseline"
    assert none["steps to baseline's best"] == "1"
    assert bank["minus baseline's"] == "-0.6000 ± 0.0000"
    # Test losses are 1.15 and 1.75, 0.65 and 1.45.
    assert bank["test loss minus baseline's"] == "-0.7000 ± 0.1414"
    # Seed 0 reaches 1.5 halfway between steps 20 and 30; the baseline took 40.
    # Seed 1 reaches 1.0 after 4/5 of steps 10 to 20; the baseline took 30.
    assert bank["steps to baseline's best"] == "0.61 ± 0.02"  # 25/40 and 18/30
    assert bank["FLOPs to baseline's best"] == "0.61 ± 0.02"
    assert bank["seconds to baseline's best"] == "1.23 ± 0.04"  # 50/40 and 36/30
    assert bank["seconds/step"] == "2.00"
    plot_convergence(measure_convergence(group_runs(runs)), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_seeds_that_the_baseline_lacks_are_counted_apart() -> None:
    """The mean loss is over all of them, differences only over those that are paired."""
    runs = [run("none", [3.0, 2.0]), *(run("bank", [3.0, 1.0 + s], seed=s) for s in range(3))]
    none, bank = rows_of(runs)
    assert (none["seeds"], bank["seeds"]) == ("1", "3 (1 paired)")
    assert bank["best valid loss"] == "2.0000 ± 1.0000"
    assert bank["minus baseline's"] == "-1.0000"


def test_seconds_can_be_those_of_the_benchmark(tmp_path: Path) -> None:
    runs = [
        run("none", [3.0, 2.0, 1.0], second=9.0),
        run("bank", [2.0, 1.0, 0.9], second=0.1),
        run("bank", [2.5, 2.0, 1.0], filter__layers=[0, 1]),
    ]
    file = tmp_path / "costs.json"
    timed = {"none": 0.2, "bank": 0.3, "bank,filter.layers=[0, 1],filter.num_filters=36": 0.25}
    entries = [{"filter": name, "seconds": seconds} for name, seconds in timed.items()]
    file.write_text(json.dumps({"rows": entries}))
    rows = rows_of(runs, read_step_costs(file))
    assert rows[2]["setting"] == "filter=bank, filter.layers=[0, 1]"
    # The baseline takes 30 steps of 0.2 s, the bank 20 of 0.3 s; the runs' seconds are not read.
    assert [row["seconds/step"] for row in rows] == ["1.00", "1.50", "1.25"]
    assert rows[1]["seconds to baseline's best"] == "1.00"
    assert "CPU seconds/step" not in rows[0]
    # An option that all runs share belongs to no group's name, but to what must have been timed.
    small = [runs[0], run("bank", [2.0, 1.0, 0.9], filter__num_filters=8)]
    with pytest.raises(DataError, match=r"lack filter=bank; .*bank,filter.num_filters=8\""):
        rows_of(small, read_step_costs(file))
    file.write_text(json.dumps({"rows": entries[:2]}))
    with pytest.raises(DataError, match=r'lack .*--filter "bank,filter.layers=\[0,1\]"'):
        rows_of(runs, read_step_costs(file))
    file.write_text("[]")
    with pytest.raises(DataError, match=r"is not what .*bench step"):
        read_step_costs(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_step_costs(tmp_path / "nowhere.json")


def test_the_baseline_can_be_another_filter() -> None:
    runs = [
        run("none", [3.0, 2.5, 2.0]),
        run("depthwise", [3.0, 2.0, 1.0], filter__kernel_size=4),
        run("depthwise", [3.0, 2.0, 1.5], filter__kernel_size=32),
        run("bank", [3.0, 1.0, 0.5]),
    ]
    rows = rows_of(runs, None, "depthwise")
    differences = [row["minus baseline's"] for row in rows]
    assert differences == ["+1.0000", "baseline", "+0.5000", "-0.5000"]
    steps = [row["steps to baseline's best"] for row in rows]
    assert steps == ["not reached (1 of 1)", "1", "not reached (1 of 1)", "0.67"]
    rows = rows_of(runs, None, "depthwise, filter.kernel_size=32")
    assert rows[2]["minus baseline's"] == "baseline"
    with pytest.raises(DataError, match=r"no baseline: .*filter=depthwise,filter.kernel_size=8$"):
        rows_of(runs, None, "depthwise,filter.kernel_size=8")


def test_what_the_first_measurement_reaches_took_the_steps_until_then() -> None:
    rows = rows_of([run("none", [3.0, 2.0, 1.0]), run("bank", [0.5, 0.4, 0.3])])
    assert rows[1]["steps to baseline's best"] == "0.33"  # 10 of 30


def test_the_cost_of_a_step_does_not_depend_on_their_number() -> None:
    rows = rows_of([run("none", [3.0, 2.0]), run("bank", [3.0, 2.5, 2.2, 2.1], second=2.0)])
    assert (rows[1]["seconds/step"], rows[1]["FLOPs/step"]) == ("2.00", "1.00")


def test_a_loss_that_a_seed_did_not_reach_has_no_mean_ratio() -> None:
    losses = {"none": (1.0, 1.0), "fir": (0.9, 1.1)}
    runs = [run(name, [2.0, losses[name][seed]], seed) for name in losses for seed in (0, 1)]
    assert rows_of(runs)[1]["seconds to baseline's best"] == "not reached (1 of 2)"


def test_of_several_baselines_that_after_each_layer_is_taken() -> None:
    few = {"filter__num_filters": 8, "filter__kernel_size": 16}
    every = run("bank", [3.0, 2.0], **few, model__filter_layers=None)
    two = run("bank", [3.0, 1.5], **few, model__filter_layers=[0, 1])
    other = run("bank", [3.0, 1.0], filter__num_filters=36, filter__kernel_size=4)
    other.settings["model.filter_layers"] = None
    named = "bank,filter.num_filters=8,filter.kernel_size=16"  # in any order
    for runs in ([every, two, other], [two, every, other]):
        found = {row["best valid loss"]: row for row in rows_of(runs, None, named)}
        assert found["2.0000"]["minus baseline's"] == "baseline"
        assert found["1.5000"]["minus baseline's"] == "-0.5000"
    first = run("bank", [3.0, 1.5], **few, model__filter_layers=[0])
    with pytest.raises(DataError, match="could both be the baseline bank"):
        rows_of([first, two, other], None, named)


def test_a_baseline_on_other_data_is_refused() -> None:
    runs = [run("none", [3.0]), run("haar", [2.0])]
    for record, samples in zip(runs, "ab", strict=True):
        record.facts["samples_sha256"] = samples
    with pytest.raises(DataError, match="run and run were made on different data"):
        rows_of(runs)


def test_a_baseline_shares_the_other_settings() -> None:
    runs = [
        run("none", [2.0, 1.0], positions="rotary"),
        run("none", [2.0, 1.5], positions="learned"),
        run("bank", [2.0, 1.4], positions="learned", model__filter_layers=[0]),
    ]
    assert rows_of(runs)[2]["minus baseline's"] == "-0.1000"
    with pytest.raises(DataError, match="no baseline"):
        rows_of([runs[0], runs[2]])


def test_runs_that_cannot_be_paired_are_refused() -> None:
    none, other = run("none", [2.0]), run("bank", [2.0], seed=1)
    with pytest.raises(DataError, match="no seed"):
        rows_of([none, other])
    with pytest.raises(DataError, match="repeats seed 0"):
        rows_of([none, none])
    none.log.clear()
    with pytest.raises(DataError, match="has no log"):
        rows_of([none])
