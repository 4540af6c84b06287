from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from spaudio.errors import DataError
from spaudio.report.compare import compare, group_runs, setting_name


def make_run(folder: Path, accuracy: float, **settings: Any) -> Path:
    folder.mkdir()
    config = {"seed": 0, "run_id": None, "filter": {"name": "none"}, "optim": {"lr": 0.1}}
    OmegaConf.save(OmegaConf.create({**config, **settings}), folder / "config.yaml")
    report = {
        "recipe": "toy",
        "seed": settings.get("seed", 0),
        "test": {"accuracy": accuracy, "macro_f1": accuracy},
        "floor": {"svm": 0.5},
        "num_params": 1000,
        "filter_params": 10,
        "seconds": {"train": 7.0},
        "step_seconds": 0.1,
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_seeds_are_grouped_and_the_settings_that_differ_named(tmp_path: Path) -> None:
    bank = {"name": "bank", "num_filters": 144, "kernel_size": 16}
    runs = [
        make_run(tmp_path / "a", 0.70, seed=0),
        make_run(tmp_path / "b", 0.80, seed=1),
        make_run(tmp_path / "c", 0.90, seed=0, filter=bank),
    ]
    rows = group_runs(runs)
    # bank's own options go with its name: they tell nothing apart
    assert [row.settings for row in rows] == [{"filter.name": "none"}, {"filter.name": "bank"}]
    mean, std = rows[0].spread("test", "accuracy")
    assert mean == pytest.approx(0.75)
    assert std == pytest.approx(math.sqrt(0.005))
    assert math.isnan(rows[1].spread("test", "accuracy")[1])
    table, markdown = compare(rows)
    assert "| filter=none | 2 | 0.7500 ± 0.0707 |" in markdown
    assert "| filter=bank | 1 | 0.9000 |" in markdown
    console = Console(record=True, width=200)
    console.print(table)
    assert "0.7500 ± 0.0707" in console.export_text()


def test_options_count_where_one_name_has_two(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "n", 0.6)] + [
        make_run(tmp_path / str(k), 0.7, filter={"name": "bank", "kernel_size": k}) for k in (4, 8)
    ]
    assert [row.settings for row in group_runs(runs)] == [
        {"filter.name": "none"},
        {"filter.name": "bank", "filter.kernel_size": 4},
        {"filter.name": "bank", "filter.kernel_size": 8},
    ]


def test_an_option_as_it_comes_goes_without_saying_beside_its_choice(tmp_path: Path) -> None:
    sizes = [4, 8, 16]
    runs = [
        make_run(tmp_path / str(k), 0.7, filter={"name": "bank", "kernel_size": k}) for k in sizes
    ]
    defaults = {"filter=bank": {"name": "bank", "kernel_size": 16}}
    # No row names its filter, so each must say what it is.
    rows = group_runs(runs, None, defaults)
    assert [row.settings for row in rows] == [{"filter.kernel_size": k} for k in sizes]
    rows = group_runs([make_run(tmp_path / "n", 0.6), *runs], None, defaults)
    assert [setting_name(row) for row in rows] == [
        "filter=none",
        "filter=bank, filter.kernel_size=4",
        "filter=bank, filter.kernel_size=8",
        "filter=bank",
    ]
    # and another choice's default is no default
    other = make_run(tmp_path / "f", 0.7, filter={"name": "fir", "kernel_size": 16})
    again = make_run(tmp_path / "g", 0.7, filter={"name": "fir", "kernel_size": 4})
    names = [setting_name(row) for row in group_runs([other, again, *runs], None, defaults)]
    assert names[:2] == ["filter=fir, filter.kernel_size=16", "filter=fir, filter.kernel_size=4"]
    assert len(set(names)) == 5


def test_a_setting_can_be_averaged_over_within_each_seed(tmp_path: Path) -> None:
    accuracies = {(0, "ann"): 0.5, (0, "bob"): 0.7, (1, "ann"): 0.9, (1, "bob"): 0.7}
    runs = [
        make_run(tmp_path / f"{seed}{who}", accuracy, seed=seed, speaker=who,
                 prep_options={"speaker": who})
        for (seed, who), accuracy in accuracies.items()
    ]  # fmt: skip
    assert [row.settings for row in group_runs(runs)] == [{"speaker": "ann"}, {"speaker": "bob"}]
    (row,) = group_runs(runs, over="speaker")
    assert row.settings == {}
    assert row.seeds == [0, 1]
    # means of the seeds are 0.6 and 0.8
    assert row.spread("test", "accuracy") == pytest.approx((0.7, math.sqrt(0.02)))
    with pytest.raises(DataError, match=r"seed 1 .* no run with speaker=bob"):
        group_runs(runs[:-1], over="speaker")


def test_where_data_and_runs_lie_is_no_setting(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / n, 0.7, data=n, runs=n, run_id=n) for n in "ab"]
    assert [row.settings for row in group_runs(runs)] == [{}]


def test_an_unfinished_run_is_named_with_the_remedy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", 0.7)
    (run / "report.json").unlink()
    with pytest.raises(DataError, match=r"not a finished run.*resume="):
        group_runs([run])
    with pytest.raises(DataError, match="no run was named"):
        group_runs([])


def test_runs_of_several_labels_are_compared_by_map_and_by_no_other(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, 0.5, filter={"name": name}) for name in ("none", "bank")]
    for run in runs[1:]:
        report = json.loads((run / "report.json").read_text())
        report |= {"metric": "mAP", "test": {"mAP": 0.25, "auc": 0.75, "d_prime": None}}
        (run / "report.json").write_text(json.dumps(report))
    _, markdown = compare(group_runs(runs[1:]))
    assert "test mAP | macro AUC" in markdown
    assert "0.2500 | 0.7500" in markdown
    with pytest.raises(DataError, match="accuracy and mAP cannot be compared"):
        compare(group_runs(runs))
