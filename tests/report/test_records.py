"""Records of runs: from folders to one CSV and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from spaudio.cli import main
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.compare import compare_runs
from spaudio.report.records import read_records, write_records
from tests import RECIPES

TEXT8 = RECIPES / "text8"


def make_run(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    config = {
        "seed": 0, "run_id": folder.name, "runs": str(folder.parent), "data": folder.name,
        "about": {"title": "toy"}, "recipe": "toy", "fold": None, "folder": "${oc.env:HOME}",
        "filter": {"name": "multiscale", "scales": [[1, 2]]}, "trainer": {"precision": "no"},
        **settings,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    report = {
        "recipe": "toy", "seed": 0, "metric": "accuracy", "num_params": 1000, "filter_params": 10,
        "test": {"accuracy": 0.1 + 0.2, "macro_f1": 0.5, "per_class": {"a": {"f1": 1.0}}},
        "floor": {"svm": 0.5}, "seconds": {"train": 7.0}, "step_seconds": 0.1,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    lines = [
        {"epoch": i, "step": 10 * i, "seconds": 0.1 * i, "valid_loss": 2 - i / 3, "lr": 0.1}
        for i in (1, 2)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_csv_holds_what_the_folders_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"corpus": "007", "title": '"a, b"\n', "empty": "", "tags": ["x"], "causal": True}
    runs = [make_run(tmp_path / "first", **odd), make_run(tmp_path / "second", seed=1)]
    file = tmp_path / "runs.csv"
    compare_runs(runs, table=file)
    printed = capsys.readouterr().out
    records, again = read_records(runs), read_records([file])
    first = records[0]
    assert first.settings["folder"] == "${oc.env:HOME}"  # nothing is resolved
    assert first.settings.items() >= odd.items()
    assert not {"seed", "run_id", "runs", "data", "about.title", "fold"} & set(first.settings)
    assert first.facts["test.accuracy"] == 0.1 + 0.2
    assert "test.per_class.a.f1" not in first.facts
    for here, there in zip(records, again, strict=True):
        assert (there.name, there.settings, there.facts) == (here.name, here.settings, here.facts)
        assert [entry | {"lr": 0.1} for entry in there.log] == here.log
        assert there.folder is None
    compare_runs([file])
    assert capsys.readouterr().out == printed
    file.write_text(f"\ufeff{file.read_text('utf-8')}", encoding="utf-8")  # as spreadsheets save it
    assert [one.name for one in read_records([file], only=["f*", "x"])] == ["first"]


def test_folds_of_two_runs_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    runs = [make_run(tmp_path / name / "fold-1", corpus=name) for name in ("a", "b")]
    file = tmp_path / "runs.csv"
    write_records(read_records(runs), file)
    assert [one.name for one in read_records([file])] == ["a/fold-1", "b/fold-1"]
    file.write_text(file.read_text().replace("a/fold-1", "b/fold-1"))
    with pytest.raises(DataError, match="rows of the run b/fold-1 differ"):
        read_records([file])
    write_records(read_records(runs), file)  # results that differ between rows of one run
    file.write_text(file.read_text().replace("0.30000000000000004", "0.9", 1))
    with pytest.raises(DataError, match="rows of the run a/fold-1 differ"):
        read_records([file])
    with pytest.raises(DataError, match="two runs are called a/fold-1"):
        write_records(read_records([*runs[:1], *runs[:1]]), file)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "log.jsonl").unlink()
    with pytest.raises(DataError, match=r"run has no log.jsonl"):
        write_records(read_records([run]), tmp_path / "runs.csv")
    (run / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"is damaged"):
        read_records([run])
    (run / "report.json").unlink()
    with pytest.raises(DataError, match=r"not a finished run.*resume="):
        read_records([run])
    with pytest.raises(DataError, match=r"it holds no config.yaml; name the runs in it, .*/\*/$"):
        read_records([tmp_path])
    with pytest.raises(DataError, match=r"nowhere: there is no such run; check the path"):
        read_records([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no run to compare"):
        read_records([])
    with pytest.raises(DataError, match="no run's name matches x"):
        read_records([TEXT8 / "study.csv"], ["x"])
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"other.csv is not a file that"):
        read_records([tmp_path / "other.csv"])
    with pytest.raises(DataError, match=r"nowhere.csv: cannot be read"):
        read_records([tmp_path / "nowhere.csv"])


@pytest.mark.parametrize(
    ("baseline", "only", "settings"),
    [
        ("none", ["study-*"], 21),
        ("depthwise", ["study-depthwise-?", "study-bank*-k4-?", "study-bank-?"], 5),
        ("none", ["learned-*"], 2),
        ("none", ["sotu-*"], 2),
        ("none", ["twice-*"], 3),
    ],
)
def test_the_study_prints_the_tables_of_its_results(
    baseline: str, only: list[str], settings: int, tmp_path: Path, blank_figures: None
) -> None:
    costs = ["--step-costs", str(TEXT8 / "step_costs.json")] if settings > 2 else []
    command = ["compare", str(TEXT8 / "study.csv"), "--only", ",".join(only), *costs]
    main([*command, "--baseline", baseline, "--output", str(tmp_path / "table.md")])
    lines = (tmp_path / "table.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + settings
    assert set(table) <= set((TEXT8 / "RESULTS.md").read_text().splitlines())


def test_a_baseline_is_for_losses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["study-none-0", "study-depthwise-0"]
    compare_runs([TEXT8 / "study.csv"], only=given, baseline="depthwise")
    assert "loss" in capsys.readouterr().out
    make_run(tmp_path / "audio")
    with pytest.raises(ConfigError, match="--baseline and --step-costs need --convergence"):
        compare_runs([tmp_path / "audio"], baseline="bank")
    audio = ["compare", str(tmp_path / "audio")]
    with pytest.raises(SystemExit, match="no baseline: add runs that differ only in filter=none"):
        main([*audio, "--convergence"])
    with pytest.raises(SystemExit, match="no run has a setting 'speaker' to average over"):
        main([*audio, "--over", "speaker"])
