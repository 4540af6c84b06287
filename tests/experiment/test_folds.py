"""One run, or one per fold: resumed, submitted, joined in one report."""

import csv
import json
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import spaudio.experiment.data
import spaudio.experiment.folds
import spaudio.experiment.launch
import spaudio.experiment.start
import spaudio.experiment.tasks.task
from spaudio.audio.manifest import Clip
from spaudio.audio.split import split_by_fold
from spaudio.errors import CheckpointError, ConfigError, DataError
from spaudio.experiment.compose import compose
from spaudio.experiment.data import load_data
from spaudio.experiment.folds import _refuse_other_samples, run_folds
from spaudio.experiment.inputs import Inputs
from spaudio.experiment.launch import launch_runs
from spaudio.experiment.load import load_best
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.start import start_run
from spaudio.report.comparison import compare, group_runs
from spaudio.report.records import read_records
from tests import RECIPES
from tests.conftest import RunRecipe
from tests.fixtures.run_files import AUDIO_FILES, FOLD_FILES
from tests.fixtures.tiny_audio import SPEAKERS, make_fsdd
from tests.fixtures.tiny_recipes import tiny_esc50
from tests.fixtures.tiny_run import read

SCRIPT = RECIPES / "fsdd" / "run.py"
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def fsdd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a tiny run that leaves each of three speakers out."""
    source = make_fsdd(tmp_path_factory.mktemp("fsdd"), digits=range(3), clips=5)
    data = tmp_path_factory.mktemp("data")
    return [
        "preset=debug", f"source={source}", f"data={data}", "split=speaker", "folds=all",
        "filter=none", f"fold_by.values=[{','.join(SPEAKERS)}]",
    ]  # fmt: skip


def settings(*overrides: str, recipe: str = "fsdd") -> AudioSettings:
    composed = compose(RECIPES / recipe, overrides)
    assert isinstance(composed, AudioSettings)
    return composed


def test_the_report_is_what_the_folds_predictions_give(fsdd: list[str], tmp_path: Path) -> None:
    folder = run_folds(settings(*fsdd, f"runs={tmp_path}"), SCRIPT)
    report = read(folder / "report.json")
    accuracies, aligned, floors, pairs = [], [], [], Counter[tuple[str, str]]()
    for speaker in SPEAKERS:
        run = folder / f"fold-{speaker}"
        assert all((run / name).stat().st_size > 0 for name in AUDIO_FILES)
        with (run / "predictions.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        assert len(found) == 15
        assert all(f"_{speaker}_" in row["clip"] for row in found)
        accuracies.append(sum(row["true"] == row["predicted"] for row in found) / len(found))
        pairs.update((row["true"], row["predicted"]) for row in found)
        floors.append(read(run / "report.json")["floor"]["svm"])
        aligned.append(read(run / "report.json")["aligned"]["accuracy"])
    assert report["aligned"] == {"accuracy": pytest.approx(statistics.fmean(aligned))}
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
    assert f"| the same, with test groups aligned | {report['aligned']['accuracy']:.4f} ± " in text
    assert "[theo](fold-theo/report.md)" in text
    # Runs over folds are compared as any others.
    (row,) = compare(group_runs(read_records([folder])))
    assert (row["setting"], row["seeds"]) == ("fsdd", "1")
    assert row["test accuracy"] == f"{report['test']['accuracy']:.4f}"


def test_an_interrupted_run_goes_on_with_the_folds_that_are_left(
    fsdd: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_recipe: RunRecipe
) -> None:
    loop, calls = spaudio.experiment.tasks.task.TrainingLoop, []

    def interrupted(model: Any, train: Any, valid: Any, run: Any, **options: Any) -> Any:
        # Selection is by other voices than the tested one.
        calls.append({clip.group for part in (train, valid) for clip in part.dataset.clips})
        if len(calls) == 2:  # stopped after one of two epochs
            options["trainer"] = replace(options["trainer"], epochs=1)
            loop(model, train, valid, run, **options).fit()
            raise KeyboardInterrupt
        return loop(model, train, valid, run, **options)

    monkeypatch.setattr(spaudio.experiment.tasks.task, "TrainingLoop", interrupted)
    command = [*fsdd, "run_id=x", "page=false"]
    stopped = run_recipe("fsdd", *command)
    assert stopped.code == 130
    assert "resume=runs/fsdd/x" in stopped.err
    folder = tmp_path / "runs" / "fsdd" / "x"
    assert not (folder / "report.json").exists()
    first = folder / "fold-george"
    before = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.is_file()}
    broken = (folder / "fold-jackson" / "log.jsonl").read_text()
    assert len(broken.splitlines()) == 1

    done = run_recipe("fsdd", "resume=runs/fsdd/x", "jobs=1")
    assert done.code == 0, done.err
    assert "over 3 folds" in done.err
    assert not [*folder.rglob("report.html")]
    after = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.is_file()}
    assert after == before
    finished = (folder / "fold-jackson" / "log.jsonl").read_text()
    assert finished.startswith(broken)
    assert len(finished.splitlines()) == 2
    left_out = ["george", "jackson", "jackson", "theo"]
    assert calls == [set(SPEAKERS) - {speaker} for speaker in left_out]

    # The same command once more finds all done; with other settings it is refused.
    assert run_recipe("fsdd", *command).code == 0
    assert len(calls) == 4
    assert "seed=0, not 1" in run_recipe("fsdd", *command, "seed=1").err

    # A run that was moved finds its folds. None is joined with folds of other data.
    (tmp_path / "moved").mkdir()
    folder = folder.rename(tmp_path / "moved" / "y")
    assert run_recipe("fsdd", f"resume={folder}").code == 0
    assert len(calls) == 4
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["y"]
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        start_run(settings("resume=."), SCRIPT)
    assert len(calls) == 4
    theo = folder / "fold-theo" / "report.json"
    before = theo.read_text()
    for fold in ("theo", "jackson"):
        file = folder / f"fold-{fold}" / "report.json"
        file.write_text(json.dumps(read(file) | {"base": {"sha256": fold}}))
    assert "encoder has changed between the folds" in run_recipe("fsdd", f"resume={folder}").err
    theo.write_text(before)
    for name, fact in (("report", "labels_sha256"), ("inputs", "samples_sha256")):
        file = folder / "fold-theo" / f"{name}.json"
        content = file.read_text()
        file.write_text(json.dumps(read(file) | {fact: "other"}))
        assert "the data have changed since" in run_recipe("fsdd", f"resume={folder}").err
        file.write_text(content)
    with pytest.raises(CheckpointError, match=r"name one, such as .*fold-george"):
        load_best(folder)


def test_the_fold_before_validates_and_the_test_fold_selects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*tiny_esc50(tmp_path), f"data={tmp_path / 'data'}"]
    scripts = RECIPES / "folder"
    for fold, before in zip((1, 2, 3, 4, 5), (5, 1, 2, 3, 4), strict=True):
        data = load_data(settings(*options, f"fold={fold}", recipe="esc50"), scripts)
        assert {clip.fold for clip in data.test.clips} == {fold}
        assert {clip.fold for clip in data.valid.clips} == {before}
        assert {clip.fold for clip in data.train.clips} == {1, 2, 3, 4, 5} - {fold, before}
    with pytest.raises(ConfigError, match="fold=6; expected one of 1, 2, 3, 4, 5"):
        load_data(settings(*options, "fold=6", recipe="esc50"), scripts)
    with pytest.raises(ConfigError, match="test split of esc50 is empty; see fold"):
        load_data(settings(*options, "fold=null", recipe="esc50"), scripts)

    def renamed(clips: list[Clip], fold: int) -> list[Clip]:
        return [replace(c, label="odd") if c.fold == 2 else c for c in split_by_fold(clips, fold)]

    monkeypatch.setattr(spaudio.experiment.data, "split_by_fold", renamed)
    with pytest.raises(DataError, match=r"class 'odd' of esc50 has no clip in .* of fold=2"):
        load_data(settings(*options, "fold=2", recipe="esc50"), scripts)


def test_what_has_no_folds_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="folds=5; expected all or null"):
        settings("folds=5")
    with pytest.raises(ConfigError, match="notes has no folds"):
        settings("folds=all", recipe="notes")
    both = settings("folds=all", "split=speaker", "test_speaker=theo")
    with pytest.raises(ConfigError, match="folds=all runs every fold; leave test_speaker=theo out"):
        run_folds(both, SCRIPT)
    seeds = settings("folds=all", "source=x", "fold_by.key=split_seed", "fold_by.values=[0,1]",
                     recipe="folder")  # fmt: skip
    with pytest.raises(ConfigError, match=r"share test clips.* -m split_seed=0,1, and compare"):
        run_folds(seeds, SCRIPT)
    with pytest.raises(ConfigError, match="jobs must be at least 1"):
        settings("jobs=0")
    monkeypatch.setattr(
        spaudio.experiment.folds, "load_data", lambda *_: SimpleNamespace(multi_label=True)
    )
    with pytest.raises(ConfigError, match="have several classes; run each fold with fold="):
        run_folds(settings("folds=all", "source=x", recipe="esc50"), SCRIPT)


def test_jobs_of_one_run_are_said_to_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spaudio.experiment.start, "train_and_report", lambda *given: Path())
    start_run(settings("jobs=2"), SCRIPT)
    assert "jobs=2 has no effect on one run" in capsys.readouterr().err


def test_folds_are_run_jobs_at_a_time(
    fsdd: list[str], run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How runs share a machine is tested with those of a sweep."""
    started: list[tuple[int, int]] = []
    monkeypatch.setattr(
        spaudio.experiment.launch, "_beside", lambda runs, jobs: started.append((jobs, len(runs)))
    )
    assert "3 of 3 runs" in run_recipe("fsdd", *fsdd, "run_id=x", "jobs=2").err
    assert "3 of 3 runs" in run_recipe("fsdd", "resume=runs/fsdd/x", "jobs=3").err
    assert started == [(2, 3), (3, 3)]


def test_folds_whose_data_changed_meanwhile_are_not_joined(
    fsdd: list[str], run_recipe: RunRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_other_samples(runs: Any, *given: Any, **options: Any) -> Any:
        failed = launch_runs(runs, *given, **options)
        file = next(run for run in runs if run.name == "fold-theo") / "inputs.json"
        file.write_text(json.dumps(read(file) | {"samples_sha256": "other"}))
        return failed

    monkeypatch.setattr(spaudio.experiment.folds, "launch_runs", on_other_samples)
    done = run_recipe("fsdd", *fsdd, "run_id=x", "page=false", "trainer.epochs=1")
    assert "the data have changed since runs/fsdd/x/fold-theo began" in done.err
    assert not (tmp_path / "runs" / "fsdd" / "x" / "report.json").exists()


def test_one_run_is_not_submitted_and_folds_are(
    fsdd: list[str], run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = ["cluster=local", "cluster_options.timeout_min=9"]
    done = run_recipe("fsdd", *fsdd, "folds=null", *cluster)
    assert done.code == 1
    assert "cluster=local submits the runs of a sweep (add -m)" in done.err
    submitted: list[Path] = []
    monkeypatch.setattr(
        spaudio.experiment.launch, "run_on_cluster", lambda runs, *_: submitted.extend(runs)
    )
    assert "3 of 3 runs" in run_recipe("fsdd", *fsdd, *cluster).err
    assert len(submitted) == 3
    both = run_recipe("fsdd", *fsdd, "-m", "seed=0,1", *cluster)
    assert "leave -m out, and start one command per combination" in both.err
    assert len(submitted) == 3
    with pytest.raises(ConfigError, match=r"give cluster_options\.timeout_min=MINUTES"):
        settings("cluster=slurm")  # submitit would stop its runs after five minutes
    with pytest.raises(ConfigError, match=r"timeout_min=1\.5; expected a whole number of minutes"):
        settings("cluster=slurm", "cluster_options.timeout_min=1.5")
    with pytest.raises(ConfigError, match="slurm_timeout_min=1h; expected a whole number"):
        settings("cluster=slurm", "cluster_options={timeout_min: 60, slurm_timeout_min: 1h}")
    with pytest.raises(ConfigError, match="jobs=2 has no effect with cluster=local"):
        settings("jobs=2", *cluster)
    # Runs of earlier versions can still be read.
    earlier = settings(*cluster).as_dict() | {"cluster_options": {}}
    assert read_settings(earlier).cluster == "local"


def test_folds_of_another_assignment_are_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has the fold of each clip; another one is expected where a setting splits."""
    before = SimpleNamespace(classes=("a",), samples_hash="s", manifest_hash="m")
    monkeypatch.setattr(Inputs, "load", lambda run: before)
    data: Any = SimpleNamespace(
        classes=("a",), prepared=SimpleNamespace(samples_hash="s", labels_hash="l", hash="other")
    )
    _refuse_other_samples(tmp_path, data, "test_speaker")
    with pytest.raises(CheckpointError, match="the data have changed since"):
        _refuse_other_samples(tmp_path, data, "fold")
