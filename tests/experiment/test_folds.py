from __future__ import annotations

import csv
import json
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import spaudio.experiment.folds
import spaudio.experiment.training
from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.data import load_data
from spaudio.experiment.folds import _run_beside, is_fold_run, run_folds
from spaudio.experiment.main import _check_overrides
from spaudio.report.comparison import compare, group_runs
from spaudio.report.fold_report import FOLD_FILES
from spaudio.report.classification_report import FILES
from tests.experiment.conftest import ROOT, Run
from tests.experiment.test_recipes import compose
from tests.fixtures.tiny_audio import SPEAKERS, make_fsdd
from tests.fixtures.tiny_folds import make_esc50

SCRIPT = ROOT / "recipes" / "fsdd" / "run.py"


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a tiny run that leaves each of three speakers out."""
    source = make_fsdd(tmp_path_factory.mktemp("fsdd"), digits=range(3), clips=5)
    data = tmp_path_factory.mktemp("data")
    return [
        "preset=debug", f"source={source}", f"data={data}", "split=speaker", "folds=all",
        "filter=none", f"fold_by.values=[{','.join(SPEAKERS)}]",
    ]  # fmt: skip


def settings(fsdd: list[str], runs: Path, *overrides: str) -> DictConfig:
    return compose("fsdd", *fsdd, f"runs={runs}", *overrides)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_report_is_what_the_folds_predictions_give(fsdd: list[str], tmp_path: Path) -> None:
    folder = run_folds(settings(fsdd, tmp_path), SCRIPT)
    report = read(folder / "report.json")
    accuracies, floors, pairs = [], [], Counter[tuple[str, str]]()
    for speaker in SPEAKERS:
        run = folder / f"fold-{speaker}"
        assert all((run / name).stat().st_size > 0 for name in FILES)
        with (run / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 15
        assert all(f"_{speaker}_" in row["clip"] for row in rows)
        accuracies.append(sum(row["true"] == row["predicted"] for row in rows) / len(rows))
        pairs.update((row["true"], row["predicted"]) for row in rows)
        floors.append(read(run / "report.json")["floor"]["svm"])
    assert report["test"]["accuracy"] == pytest.approx(statistics.fmean(accuracies))
    assert report["test"]["std"] == pytest.approx(statistics.stdev(accuracies))
    assert report["floor"]["svm"] == pytest.approx(statistics.fmean(floors))
    assert report["floor"]["svm_std"] == pytest.approx(statistics.stdev(floors))
    assert report["test"]["pooled_accuracy"] == pytest.approx(statistics.fmean(accuracies))
    assert report["confusion"] == [[pairs[a, b] for b in "012"] for a in "012"]
    assert [row["fold"] for row in report["folds"]] == list(SPEAKERS)
    assert [row["accuracy"] for row in report["folds"]] == pytest.approx(accuracies)
    assert all((folder / name).stat().st_size > 0 for name in FOLD_FILES)
    assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + 45
    text = (folder / "report.md").read_text()
    assert f"{report['test']['accuracy']:.4f} ± {report['test']['std']:.4f}" in text
    assert "[theo](fold-theo/report.md)" in text
    # Runs over folds are compared as any others.
    table = compare(group_runs([folder]))[1].splitlines()
    assert table[2].startswith(f"| fsdd | 1 | {report['test']['accuracy']:.4f} |")


def test_an_interrupted_run_goes_on_with_the_folds_that_are_left(
    fsdd: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, calls = spaudio.experiment.training.fit, []

    def interrupted(model: Any, train: Any, valid: Any, **options: Any) -> Any:
        # Selection is by other voices than the tested one.
        calls.append({clip.group for part in (train, valid) for clip in part.loader.dataset.clips})
        if len(calls) == 2:  # stopped after one of two epochs
            options["trainer"] = replace(options["trainer"], epochs=1)
            fit(model, train, valid, **options)
            raise KeyboardInterrupt
        return fit(model, train, valid, **options)

    monkeypatch.setattr(spaudio.experiment.training, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_folds(settings(fsdd, tmp_path, "run_id=x"), SCRIPT)
    folder = tmp_path / "fsdd" / "x"
    assert not (folder / "report.json").exists()
    first = folder / "fold-george"
    before = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.is_file()}
    broken = (folder / "fold-jackson" / "log.jsonl").read_text()
    assert len(broken.splitlines()) == 1

    resumed = OmegaConf.create({"resume": str(folder), "jobs": 1})
    assert is_fold_run(resumed)
    assert run_folds(resumed, SCRIPT) == folder
    after = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.is_file()}
    assert after == before
    finished = (folder / "fold-jackson" / "log.jsonl").read_text()
    assert finished.startswith(broken)
    assert len(finished.splitlines()) == 2
    left_out = ["george", "jackson", "jackson", "theo"]
    assert calls == [set(SPEAKERS) - {speaker} for speaker in left_out]

    # The same command once more finds all done; with other settings it is refused.
    run_folds(settings(fsdd, tmp_path, "run_id=x"), SCRIPT)
    assert len(calls) == 4
    with pytest.raises(ConfigError, match=r"run_id=x exists .*other settings"):
        run_folds(settings(fsdd, tmp_path, "run_id=x", "seed=1"), SCRIPT)


def test_folds_run_beside_each_other_in_their_own_processes(
    fsdd: list[str], tmp_path: Path, run_recipe: Run
) -> None:
    done = run_recipe("fsdd", *fsdd, "jobs=2", "run_id=two", "trainer.epochs=1",
                      "fold_by.values=[george,theo]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "fsdd" / "two"
    report = read(folder / "report.json")
    assert [row["fold"] for row in report["folds"]] == ["george", "theo"]
    assert "over 2 folds" in done.stderr
    for name in ("george", "theo"):
        assert "report:" in (folder / f"fold-{name}" / "output.txt").read_text()


def test_a_fold_that_fails_stops_the_others_and_is_named(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, time\n"
        "if 'good' in sys.argv[1]: time.sleep(60)\n"
        "sys.exit('error: no such luck')\n"
    )
    left = {name: tmp_path / name for name in ("good", "bad")}
    for folder in left.values():
        folder.mkdir()
    with pytest.raises(SpaudioError, match=r"fold bad ended with code 1.*no such luck.*bad/output"):
        _run_beside(left, script, 2, Console(stderr=True))


def test_the_fold_before_validates_and_the_test_fold_selects_nothing(tmp_path: Path) -> None:
    source = make_esc50(tmp_path / "esc", clips=1)
    options = [f"source={source}", "subset=esc10", f"data={tmp_path / 'data'}"]
    for fold, before in zip((1, 2, 3, 4, 5), (5, 1, 2, 3, 4), strict=True):
        config = compose("esc50", *options, f"fold={fold}")
        data = load_data(config, ROOT / "data_prep")
        assert {clip.fold for clip in data.test.clips} == {fold}
        assert {clip.fold for clip in data.valid.clips} == {before}
        assert {clip.fold for clip in data.train.clips} == {1, 2, 3, 4, 5} - {fold, before}
    assert len(list((tmp_path / "data" / "esc50" / "features").glob("*/index.json"))) == 1
    with pytest.raises(ConfigError, match="fold=6; expected one of 1, 2, 3, 4, 5"):
        load_data(compose("esc50", *options, "fold=6"), ROOT / "data_prep")
    with pytest.raises(ConfigError, match="test split of esc50 is empty; see fold"):
        load_data(compose("esc50", *options, "fold=null"), ROOT / "data_prep")


def test_a_resumed_run_may_take_another_number_of_jobs() -> None:
    _check_overrides(SCRIPT.parent, ["resume=runs/fsdd/x", "jobs=2"])
    with pytest.raises(ConfigError, match="seed cannot be changed"):
        _check_overrides(SCRIPT.parent, ["resume=runs/fsdd/x", "jobs=2", "seed=1"])


def test_what_is_no_run_over_folds_is_said(fsdd: list[str], tmp_path: Path) -> None:
    assert not is_fold_run(compose("fsdd"))
    with pytest.raises(ConfigError, match="folds=5; expected all or null"):
        is_fold_run(compose("fsdd", "folds=5"))
    with pytest.raises(ConfigError, match="notes has no folds"):
        run_folds(compose("notes", "folds=all"), ROOT / "recipes" / "notes" / "run.py")
    with pytest.raises(ConfigError, match="jobs=0"):
        run_folds(settings(fsdd, tmp_path, "jobs=0"), SCRIPT)
