"""Sweeps, folds and studies: many runs as one, resumed, side by side, compared."""

import csv
import json
import shutil
import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import spaudio.experiment.data
import spaudio.experiment.launch
import spaudio.experiment.run
import spaudio.experiment.study
import spaudio.experiment.tasks.task
from spaudio.audio.manifest import Clip
from spaudio.audio.split import split_by_fold
from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError, DataError, SpaudioError
from spaudio.experiment.check_data import check_some_data
from spaudio.experiment.compose import compose
from spaudio.experiment.data import load_data
from spaudio.experiment.entry import main as run_script
from spaudio.experiment.launch import (
    Launcher,
    failed_runs,
    run_folds,
    start_run,
)
from spaudio.experiment.load import load_best
from spaudio.experiment.run_folder import create_run_folder, read_run_settings
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.study import plan_study
from spaudio.experiment.tasks import open_task
from spaudio.io.lock import claimed
from spaudio.report.comparison import compare, group_runs
from spaudio.report.records import read_records
from spaudio.training.log import read_log
from tests import RECIPES, ROOT
from tests.conftest import RunRecipe
from tests.fixtures.ctrl_c import ctrl_c
from tests.fixtures.run_files import AUDIO_FILES, FOLD_FILES
from tests.fixtures.tiny_audio import SPEAKERS, make_fsdd
from tests.fixtures.tiny_recipes import TINY, tiny_esc50, tiny_folder
from tests.fixtures.tiny_run import read

SCRIPT = RECIPES / "fsdd" / "run.py"
STUDY = RECIPES / "text8" / "study.yaml"
pytestmark = pytest.mark.usefixtures("blank_figures")


def rows(table: Path) -> list[str]:
    """First cells of a Markdown table, which may follow other text."""
    lines = [line for line in table.read_text().splitlines() if line.startswith("|")]
    return [line.split(" |")[0][2:] for line in lines[2:]]


def test_a_sweep_goes_on_and_compares_what_has_finished(
    tmp_path: Path, run_recipe: RunRecipe
) -> None:
    [source] = tiny_folder(tmp_path)
    sounds = source.removeprefix("source=")
    sweep = ["preset=debug", "trainer.epochs=1", f"source={sounds},{tmp_path}/late", "run_id=s",
             "-m", "filter=adaptive,none"]  # fmt: skip
    done = run_recipe("folder", *sweep)
    assert done.code == 1
    assert "2 of 4 runs failed" in done.err
    assert "late" in done.err
    home = tmp_path / "runs" / "folder"
    table = home / "compare-s-1.md"
    assert "parameters" in table.read_text().splitlines()[0]
    assert rows(table) == ["filter=adaptive", "filter=none"]
    for number in (0, 1):
        assert f"runs/folder/s-{number}/report.md" in done.out
    before = (home / "s-0" / "log.jsonl").stat().st_mtime_ns
    shutil.copytree(sounds, tmp_path / "late")
    done = run_recipe("folder", *sweep)
    assert done.code == 0, done.err
    assert "4 runs, of which 2 are finished" in done.err
    assert len(rows(home / "compare-s-3.md")) == 4
    assert (home / "s-0" / "log.jsonl").stat().st_mtime_ns == before
    refused = run_recipe("folder", *sweep, "seed=1")
    assert refused.code == 1
    assert "was run with seed=0, not 1" in refused.err


def test_a_sweep_of_which_no_run_finishes_is_an_error(
    tmp_path: Path, run_recipe: RunRecipe
) -> None:
    vast = ["filter=bank", "filter.num_filters=2000000000"]
    done = run_recipe("folder", "-m", *tiny_folder(tmp_path), "preset=debug", *vast, "seed=0,1")
    assert done.code == 1
    assert "2 of 2 runs failed" in done.err
    assert "continue with run_id=" in done.err
    shutil.rmtree(tmp_path / "runs")
    refused = run_recipe("folder", "-m", "source=nowhere", "seed=0,1")
    assert refused.code == 1
    assert refused.err.count("nowhere") == 1
    assert not (tmp_path / "runs").exists()


def test_a_stopped_sweep_says_how_it_is_continued(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Launcher, "_here", stop)
    sweep = ["folder", "-m", *tiny_folder(tmp_path), "preset=debug", "seed=0,1"]
    done = run_recipe(*sweep, "run_id=s")
    assert done.code == 130
    assert "Continue with run_id=s and the same settings" in done.err
    refused = run_recipe(*sweep, "run_id=a,b")
    assert "run_id=a,b: all runs of a sweep have the same run_id; give one value" in refused.err
    refused = run_recipe(*sweep, "cluster=local", "cluster_options.timeout_min=1,2")
    assert "all runs of a sweep have the same cluster_options" in refused.err


def test_texts_without_a_baseline_are_not_compared(tmp_path: Path, run_recipe: RunRecipe) -> None:
    tiny = [*TINY["text8"](tmp_path), "preset=debug", "trainer.epochs=1"]
    done = run_recipe("text8", "-m", *tiny, "filter=haar", "seed=0,1", "run_id=s")
    assert done.code == 0, done.err
    assert "the finished runs cannot be compared: text8 has no baseline" in done.err
    assert done.out.count("report: runs/text8/s-") == 2


def test_jobs_of_one_run_are_said_to_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spaudio.experiment.launch, "train_and_report", lambda *given: Path())
    start_run(settings("jobs=2"), SCRIPT)
    assert "jobs=2 has no effect on one run" in capsys.readouterr().err


# In place of a run: waits until the other one has started, and the first until the other has ended.
STAND_IN = """
import os, pathlib, shutil, sys, time

assert os.environ["SPAUDIO_PARENT"] == str(os.getppid())  # with which it ends

def wait(file):
    end = time.monotonic() + 60
    while not file.exists():
        if time.monotonic() > end: sys.exit(f"no {file}")
        time.sleep(0.02)

run = pathlib.Path(sys.argv[1].removeprefix("resume=").strip("'"))
(run / "started").touch()
wait(run.with_name("s-1") / "started")
wait(run.with_name("s-0") / "started")
if run.name == "s-0":
    wait(run.with_name("s-1") / "report.json")
for name in ("log.jsonl", "report.json"):
    shutil.copy(run.with_name("done") / name, run)
print("the output of", run.name)
"""


def test_a_sweep_runs_jobs_beside_each_other(
    tmp_path: Path, run_recipe: RunRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["preset=debug", "trainer.epochs=1", *tiny_folder(tmp_path)]
    done = run_recipe("folder", *tiny, "run_id=done")
    assert done.code == 0, done.err
    recipe = tmp_path / "recipes" / "folder"
    shutil.copytree(RECIPES / "folder", recipe)
    (recipe / "run.py").write_text(STAND_IN)
    (tmp_path / "data_prep").symlink_to(ROOT / "data_prep")
    run_script(str(recipe / "run.py"), ["filter=haar,none", "-m", "jobs=2", *tiny, "run_id=s"])
    assert "s-0/report.md" in capsys.readouterr().out
    home = tmp_path / "runs" / "folder"
    for name in ("s-0", "s-1"):
        assert (home / name / "output.txt").read_text() == f"the output of {name}\n"
    # Whichever ends first, the table has the order of the command.
    assert rows(home / "compare-s-1.md") == ["filter=haar", "filter=none"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A recipe's script that fails where the run is called "bad"."""
    file = tmp_path / "run.py"
    file.write_text(
        "import pathlib, sys\n"
        "run = pathlib.Path(sys.argv[1].removeprefix('resume=').strip(\"'\"))\n"
        "if run.name == 'bad': sys.exit('error: no such luck')\n"
        "(run / 'report.json').write_text('{}')\n"
    )
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    return file


def test_a_run_that_fails_is_named_and_stops_no_other(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [script.with_name(name) for name in ("bad", "good")]
    assert Launcher(jobs=2)(dict.fromkeys(runs, script)) == runs[:1]
    assert "FAILED" in capsys.readouterr().err
    assert "no such luck" in (runs[0] / "output.txt").read_text()


def test_ctrl_c_is_passed_on_until_the_runs_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python discards it at times, as this script discards the first."""
    script = tmp_path / "run.py"
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "run = pathlib.Path(sys.argv[1].removeprefix('resume=').strip(\"'\"))\n"
        "def later(*given): signal.signal(signal.SIGINT, lambda *given: sys.exit('stopped'))\n"
        "signal.signal(signal.SIGINT, later)\n"
        "(run / 'started').touch()\n"
        "time.sleep(60)\n"
        "(run / 'report.json').write_text('{}')\n"
    )
    runs = [tmp_path / name for name in ("one", "other")]
    for run in runs:
        run.mkdir()
    monkeypatch.setattr(spaudio.experiment.launch, "REPEAT", 0.2)
    started = [run / "started" for run in runs]
    with ctrl_c(lambda: all(map(Path.exists, started))), pytest.raises(KeyboardInterrupt):
        Launcher(jobs=2)(dict.fromkeys(runs, script))
    for run in runs:
        assert (run / "output.txt").read_text() == "stopped\n"
        assert not (run / "report.json").exists()


def test_a_fault_in_a_run_of_this_process_stops_no_other(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unread, bad, _ = runs = [script.with_name(name) for name in ("unread", "bad", "good")]
    unread.mkdir()  # holds no settings
    (unread / "output.txt").write_text("of an earlier attempt")

    def read_settings(run: Path) -> Any:
        return read_run_settings(run) if run == unread else SimpleNamespace()

    def start(settings: Any, script: Path) -> None:
        if settings.resume == str(bad):
            raise RuntimeError("no such luck")
        Path(settings.resume, "report.json").touch()

    monkeypatch.setattr(spaudio.experiment.launch, "read_run_settings", read_settings)
    monkeypatch.setattr(spaudio.experiment.launch, "start_run", start)
    assert Launcher()(dict.fromkeys(runs, script)) == [unread, bad]
    said = capsys.readouterr().err
    assert f"FAILED: {bad / 'output.txt'}" in said
    assert f"error: {unread} is not a run's folder" in said
    written = (bad / "output.txt").read_text()
    assert written.startswith("Traceback")
    assert written.endswith("RuntimeError: no such luck\n")
    assert "RuntimeError: no such luck; see" in failed_runs([bad], 3, "the same command")
    assert "earlier" not in failed_runs([unread], 3, "the same command")


def test_runs_are_submitted_to_a_cluster(script: Path) -> None:
    pytest.importorskip("submitit")
    runs = [script.with_name(name) for name in ("good", "bad")]
    options = {"timeout_min": 1}
    launcher = Launcher(cluster="local", cluster_options=options)
    (runs[1] / "output.txt").write_text("of an earlier attempt")
    assert launcher(dict.fromkeys(runs, script)) == runs[1:]
    assert "error: no such luck; see" in failed_runs(runs[1:], 2, "the same command")
    assert "earlier" not in (runs[1] / "output.txt").read_text()
    with ThreadPoolExecutor() as pool, claimed(runs[1]):  # as a job that is running does
        again = pool.submit(launcher, dict.fromkeys(runs, script))
        with pytest.raises(TimeoutError):
            again.result(timeout=1)
        (runs[1] / "report.json").touch()
    assert again.result() == []
    (runs[1] / "report.json").unlink()
    wrong = Launcher(cluster="local", cluster_options={"timeout": 1})
    with pytest.raises(ConfigError, match=r"cluster_options=.'timeout': 1.: .*timeout"):
        wrong(dict.fromkeys(runs, script))


def test_jobs_that_a_cluster_refuses_are_named(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    submit, given = submitit.AutoExecutor.submit, []

    def refuses_the_second(self: Any, *function: Any) -> Any:
        given.append(function)
        if len(given) == 2:
            raise submitit.core.utils.FailedJobError("sbatch: error: too many jobs")
        return submit(self, *function)

    monkeypatch.setattr(submitit.AutoExecutor, "submit", refuses_the_second)
    launcher = Launcher(cluster="local", cluster_options={"timeout_min": 1})
    runs = [script.with_name(name) for name in ("good", "bad")]
    with pytest.raises(SpaudioError, match=r"too many jobs\. These jobs go on: \d+\. When .*"):
        launcher(dict.fromkeys(runs, script))


def test_one_run_is_not_submitted_and_folds_are(
    fsdd: list[str], run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = ["cluster=local", "cluster_options.timeout_min=9"]
    done = run_recipe("fsdd", *fsdd, "folds=null", *cluster)
    assert done.code == 1
    assert "cluster=local submits the runs of a sweep; add -m" in done.err
    submitted: list[Path] = []
    monkeypatch.setattr(Launcher, "_submit", lambda self, runs, _: submitted.extend(runs))
    assert "3 of 3 runs" in run_recipe("fsdd", *fsdd, *cluster).err
    assert len(submitted) == 3
    both = run_recipe("fsdd", *fsdd, "-m", "seed=0,1", *cluster)
    assert "leave -m out, and start one command per combination" in both.err
    assert len(submitted) == 3
    with pytest.raises(ConfigError, match=r"give cluster_options\.timeout_min=MINUTES"):
        settings("cluster=slurm")  # submitit would stop its runs after five minutes
    with pytest.raises(ConfigError, match=r"timeout_min=1\.5; expected a whole number of minutes"):
        settings("cluster=slurm", "cluster_options.timeout_min=1.5")
    with pytest.raises(ConfigError, match="jobs=2 has no effect with cluster=local"):
        settings("jobs=2", *cluster)
    # Runs of earlier versions can still be read.
    earlier = settings(*cluster).as_dict() | {"cluster_options": {}}
    assert read_settings(earlier).cluster == "local"


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
    stopped = run_recipe("fsdd", *fsdd, "run_id=x")
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
    after = {file: file.stat().st_mtime_ns for file in first.rglob("*") if file.is_file()}
    assert after == before
    finished = (folder / "fold-jackson" / "log.jsonl").read_text()
    assert finished.startswith(broken)
    assert len(finished.splitlines()) == 2
    left_out = ["george", "jackson", "jackson", "theo"]
    assert calls == [set(SPEAKERS) - {speaker} for speaker in left_out]

    # The same command once more finds all done; with other settings it is refused.
    assert run_recipe("fsdd", *fsdd, "run_id=x").code == 0
    assert len(calls) == 4
    assert "seed=0, not 1" in run_recipe("fsdd", *fsdd, "run_id=x", "seed=1").err

    # A run that was moved finds its folds. None is joined with folds of other samples.
    (tmp_path / "moved").mkdir()
    folder = folder.rename(tmp_path / "moved" / "y")
    assert run_recipe("fsdd", f"resume={folder}").code == 0
    assert len(calls) == 4
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["y"]
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        start_run(settings("resume=."), SCRIPT)
    assert len(calls) == 4
    file = folder / "fold-theo" / "inputs.json"
    file.write_text(json.dumps(read(file) | {"samples_sha256": "other"}))
    assert "the data have changed since" in run_recipe("fsdd", f"resume={folder}").err
    with pytest.raises(CheckpointError, match=r"name one, such as .*fold-george"):
        load_best(folder)


def test_the_fold_before_validates_and_the_test_fold_selects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*tiny_esc50(tmp_path), f"data={tmp_path / 'data'}"]
    scripts = ROOT / "data_prep"
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
    with pytest.raises(ConfigError, match="jobs must be at least 1"):
        settings("jobs=0")
    monkeypatch.setattr(
        spaudio.experiment.launch, "load_data", lambda *_: SimpleNamespace(multi_label=True)
    )
    with pytest.raises(ConfigError, match="have several classes; run each fold with fold="):
        run_folds(settings("folds=all", "source=x", recipe="esc50"), SCRIPT)


def _copied_recipe(root: Path) -> Path:
    folder = root / "recipes" / "text8"
    shutil.copytree(RECIPES / "text8", folder)
    (root / "data_prep").symlink_to(ROOT / "data_prep")
    return folder


def test_the_plan_of_a_study_runs_the_first_seed_of_all_settings_first(tmp_path: Path) -> None:
    study = _copied_recipe(tmp_path) / "small.yaml"
    study.write_text(
        "seeds: [0, 1, 2]\noverrides: [preset=tiny]\nsettings:\n"
        "  half: [filter=bank, 'model.filter_layers=[0,1]']\n"
        "  none: [filter=none]\n"
        "  check: {overrides: [filter=none, corpus=sotu], seeds: [0]}\n"
    )
    runs = plan_study(study, ["corpus=books.txt"])
    assert [run.settings.run_id for run in runs] == [
        "small-half-0", "small-none-0", "small-check-0", "small-half-1", "small-none-1",
        "small-half-2", "small-none-2",
    ]  # fmt: skip
    for settings in (run.settings for run in runs):
        wanted = "sotu" if "check" in str(settings.run_id) else "books.txt"
        assert settings.prep_options["corpus"] == wanted
        assert str(settings.seed) == str(settings.run_id)[-1]
    assert runs[0].settings.model.filter_layers == [0, 1]
    planned = plan_study(STUDY, only=["bank"], seeds=[0, 2])
    assert [run.settings.seed for run in planned] == [0, 2]
    assert len(plan_study(STUDY, only=["bank", "bank"], seeds=[0])) == 1
    with pytest.raises(ConfigError, match="unknown setting 'bnak'; did you mean bank"):
        plan_study(STUDY, only=["bnak"])
    with pytest.raises(ConfigError, match="setting none"):
        plan_study(STUDY, ["modle.dim=3"], only=["none"])


def test_what_a_configuration_says_comes_before_data_set_and_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "seeds: [0]\nbaseline: none\noverrides: [preset=debug, source=x, optim.lr=0.1]\n"
        f"data: {{words: {{recipe: {RECIPES / 'folder'}, overrides: [optim.lr=0.2], "
        "seeds: [1, 2]}}\n"
        "settings:\n  none: []\n"
        "  own: {overrides: [trainer.epochs=5, optim.lr=0.3], seeds: [3], baseline: own}\n"
        "  last: {overrides: [optim.lr=0.4], data: {words: [optim.lr=0.5]}, baseline: own}\n"
    )
    runs = plan_study(file, ["trainer.epochs=6", "words:trainer.epochs=7"])
    assert {
        (run.setting, run.settings.seed, run.settings.optim.lr, run.settings.trainer.epochs,
         run.baseline)
        for run in runs
    } == {
        ("none", 1, 0.2, 7, None), ("none", 2, 0.2, 7, None), ("own", 3, 0.3, 5, None),
        ("last", 1, 0.5, 7, "own"), ("last", 2, 0.5, 7, "own"),
    }  # fmt: skip
    said = "trainer.epochs=6 has no effect on configurations that set it themselves: own on words\n"
    assert said in capsys.readouterr().err


def test_every_run_of_a_sweep_stores_the_text_that_auto_stands_for(tmp_path: Path) -> None:
    scripts = tmp_path / "data_prep"
    scripts.mkdir()
    (scripts / "text8.py").write_text(
        "from spaudio.text.corpus import SourceText\n"
        "def prepare(work, *, corpus='auto', source=None):\n"
        "    return SourceText('toy', 'found', True, 'key', lambda: [b'abc ' * 1000])\n"
    )
    given = ["preset=debug", f"data={tmp_path}", f"runs={tmp_path / 'runs'}"]
    settings = [compose(RECIPES / "text8", [*given, f"seed={seed}"]) for seed in (0, 1)]
    check_some_data(settings, scripts)
    assert [one.prep_options["corpus"] for one in settings] == ["auto", "auto"]
    run = create_run_folder(settings[0])
    open_task(read_run_settings(run), scripts).begin(run)
    assert read_run_settings(run).prep_options["corpus"] == "found"


def test_a_second_call_resumes_the_broken_and_skips_the_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = _copied_recipe(tmp_path) / "small.yaml"
    study.write_text(
        "seeds: [0]\noverrides: [preset=debug]\n"
        "settings:\n  none: [filter=none]\n  haar: [filter=haar]\n"
    )
    monkeypatch.chdir(tmp_path)
    tiny = TINY["text8"](tmp_path)
    main(["study", str(study), *tiny, "--only", "none"])
    run = tmp_path / "runs" / "text8" / "small-none-0"
    first = read_log(run)
    (run / "report.json").unlink()  # as if it had been stopped before its end
    states = {file: file.read_bytes() for file in run.glob("checkpoints/last-*/trainer.pt")}
    for file in states:
        file.write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="1 of 1 runs failed"):
        main(["study", str(study), *tiny, "--only", "none"])
    assert read_log(run) == first  # what was trained is not thrown away
    for file, content in states.items():
        file.write_bytes(content)
    table = tmp_path / "table.md"
    main(["study", str(study), *tiny, "--output", str(table)])
    assert read_log(run) == first  # nothing was trained again
    assert rows(table)[:2] == ["filter=none", "filter=haar"]
    assert (tmp_path / "table-curves.png").is_file()
    capsys.readouterr()
    main(["study", str(study), *tiny, "--only", "haar"])
    assert "cannot be compared: text8 has no baseline" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="text8 has no baseline"):
        main(["study", str(study), *tiny, "--only", "haar", "--csv", "none.csv"])
    main(["study", str(study), *tiny])
    assert "2 runs, of which 2 are finished" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="eval"):
        main(["study", str(study), *tiny, "eval.windows=4"])


def test_a_study_over_data_sets_is_run_resumed_and_printed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file, table, page = (tmp_path / name for name in ("both.yaml", "both.csv", "page.md"))
    file.write_text(
        f"""
        seeds: [0]
        overrides: [preset=debug]
        baseline: none
        data:
          fsdd: {{recipe: {RECIPES}/fsdd, overrides: [split=speaker], folds: [theo, jackson]}}
          words: {{recipe: {RECIPES}/folder, title: Words, seeds: [0, 1]}}
        settings:
          none: [filter=none]
          haar: {{overrides: [filter=haar], control: longer}}
          longer: {{overrides: [filter=none], data: {{words: [trainer.epochs=9]}}}}
        """
    )
    command = ["study", str(file), "fsdd:source=a.zip", "words:source=b", "trainer.batch_size=4"]
    started: list[AudioSettings] = []

    def stand_in(settings: AudioSettings, script: Path) -> None:
        settings = settings_of(Path(str(settings.resume)))
        if "words-haar-s1" in str(settings.run_id) and len(started) == 8:
            raise ConfigError("no such luck")
        assert script.parent.name == settings.recipe
        started.append(settings)
        report = {
            "recipe": settings.recipe, "seed": settings.seed, "metric": "accuracy",
            "num_params": 10, "filter_params": 2, "trained_params": 4, "step_seconds": 0.1,
            "seconds": {"train": 1.5}, "modulation": {"layer 0": [0.1, 0.3], "layer 1": []},
            "test": {"accuracy": 0.5 + 0.01 * len(started), "macro_f1": 0.5}, "token_seconds": 0.04,
            "floor": {"svm": 0.45}, "clips": {"test": 7}, "valid": {"accuracy": 0.25},
            "trained_on_valid": settings.recipe == "fsdd",
        }  # fmt: skip
        run = Path(settings.runs, settings.recipe, str(settings.run_id))
        entry = {"epoch": 1, "step": 3, "seconds": 1.0, "valid_loss": 1.0}
        (run / "log.jsonl").write_text(json.dumps(entry) + "\n")
        (run / "report.json").write_text(json.dumps(report))

    with pytest.raises(SystemExit, match=r"dataset fsdd: source='a\.zip'.* no such file"):
        main(command)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(spaudio.experiment.study, "check_some_data", lambda *given: None)
    settings_of: Any = spaudio.experiment.launch.read_run_settings
    monkeypatch.setattr(spaudio.experiment.launch, "start_run", stand_in)
    with pytest.raises(SystemExit, match=r"1 of 10 runs failed: .*words-haar-s1"):
        main(command)
    # The first fold and seed of all datasets and settings comes first.
    assert [f"{one.recipe}/{one.run_id}" for one in started] == [
        "fsdd/both-none-s0/fold-theo", "fsdd/both-haar-s0/fold-theo",
        "folder/both-words-none-s0", "folder/both-words-haar-s0", "folder/both-words-longer-s0",
        "fsdd/both-none-s0/fold-jackson", "fsdd/both-haar-s0/fold-jackson",
        "folder/both-words-none-s1", "folder/both-words-longer-s1",
    ]  # fmt: skip
    options = [one.prep_options | {"seed": one.seed} for one in started]
    assert (options[0]["test_speaker"], options[0]["source"]) == ("theo", "a.zip")
    assert (options[5]["test_speaker"], options[-1]["seed"]) == ("jackson", 1)
    assert [one.trainer.epochs for one in started[-2:]] == [2, 9]
    assert started[-1].trainer.batch_size == 4
    capsys.readouterr()
    main(["study", str(file), "--results", "--csv", str(table), "--output", str(page)])
    done = capsys.readouterr()
    assert "10 runs, of which 9 are finished" in done.err
    assert "neither in the study nor given here: trainer.batch_size=4\n" in done.err
    with table.open(newline="") as lines:
        kept = list(csv.DictReader(lines))
    haar = kept[3]
    assert (haar["data"], haar["setting"], haar["seed"]) == ("Words", "haar", "0")
    assert (haar["baseline"], haar["control"]) == ("none", "longer")
    assert haar["overrides"] == "preset=debug trainer.batch_size=4 filter=haar seed=0"
    assert [one["fold"] for one in kept[:3]] == ["theo", "theo", ""]
    assert (haar["valid"], kept[0]["valid"]) == ("0.25", "nan")
    assert (haar["accuracy"], haar["token_rate"], haar["steps"]) == ("0.54", "25.0", "3")
    assert (haar["floor"], haar["step_seconds"], haar["train_seconds"]) == ("0.45", "0.1", "1.5")
    sizes = [haar[f"{kind}parameters"] for kind in ("", "filter_", "trained_")]
    assert sizes == ["10", "2", "4"]
    assert (haar["modulation_before"], haar["modulation_after"]) == ("0.1", "0.3")
    main(["study", str(table)])
    assert capsys.readouterr().out == done.out
    written = file.read_text()
    file.write_text(written.replace("[filter=haar]", "[filter=none]"))
    with pytest.raises(SystemExit, match="was run with filter=haar, but haar has filter=none"):
        main(["study", str(file), "--results"])
    file.write_text(written.replace("=debug", "=debug, augment=sounds"))
    with pytest.raises(SystemExit, match="run with augment=its default, but none has augment=so"):
        main(["study", str(file), "--results"])
    file.write_text(written)
    # The folder of the prepared data may be another one.
    main(["study", str(file), "--results", "data=elsewhere"])
    assert "neither in the study nor given here: trainer.batch_size=4\n" in capsys.readouterr().err
    # An override that only some of the runs had.
    config = tmp_path / "runs" / "folder" / "both-words-haar-s0" / "config.yaml"
    kept_config = config.read_text()
    config.write_text(kept_config.replace("batch_size: 4", "batch_size: 5"))
    with pytest.raises(SystemExit, match=r"batch_size=4, .*batch_size=5, and the study does not"):
        main(["study", str(file), "--results"])
    config.write_text(kept_config)
    with pytest.raises(SystemExit, match="exists"):
        main(["study", str(table), "--output", str(page)])
    (tmp_path / "new-effects.png").write_text("precious")
    with pytest.raises(SystemExit, match=r"new-effects\.png exists"):
        main(["study", str(table), "--output", "new.md"])
    for wrong, error in (
        (["--data", "word"], "unknown dataset 'word'"),
        (["--only", "longer", "--data", "fsdd"], "no run has these"),
        (["--seeds", "0,7"], r"the study has no seed 7, but \[0, 1\]"),
        (["esc50:fold=1"], "unknown dataset 'esc50'"),
        (["fsdd:fold=x"], "setting none, dataset fsdd: fold=x"),
        (["fsdd:folds=all"], "list the folds of dataset fsdd"),
        (["seed=5"], "seed=5: a study sets seed itself; see --seeds"),
        (["fsdd:jobs=3"], "a study sets jobs itself; see --jobs"),
        (["cluster=slurm"], "a study runs on this machine"),
        (["--csv", "one", "--output", "one"], "--output and --csv both name one; name two files"),
    ):
        with pytest.raises(SystemExit, match=error):
            main(["study", str(file), "--results", *wrong])
    damaged = next((tmp_path / "runs").rglob("report.json"))
    report = read(damaged)
    del report["token_seconds"]
    damaged.write_text(json.dumps(report))
    with pytest.raises(SystemExit, match=r"report\.json is damaged \(KeyError: 'token_seconds'\)"):
        main(["study", str(file), "--results"])


def test_folds_of_a_study_are_of_the_type_of_the_recipe_s(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "seeds: [0]\nbaseline: x\nsettings: {x: [filter=none]}\n"
        f"data: {{esc50: {{recipe: {RECIPES / 'esc50'}, folds: [a]}}}}\n"
    )
    with pytest.raises(ConfigError, match="esc50: 'a' cannot be fold; folds must be of type int"):
        plan_study(file)


def test_a_study_of_no_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("seeds: [0]\n")
    with pytest.raises(SpaudioError, match="needs seeds and settings"):
        plan_study(tmp_path / "a.yaml")
    with pytest.raises(SpaudioError, match="check the path"):
        plan_study(tmp_path / "b.yaml")
    for text, word in (
        ("settings: [a]", "must map names"),
        ("settings: {x: 1}", "must map names"),
        ("settings: {x: {overrides: [], seeds: [a]}}", r"settings.x.seeds\[0\]: Value 'a'"),
        ("settings: {x: {overrides: [], seeds: []}}", "names no seed; list one, or leave it out"),
        ("settings: {x: {seeds: [0]}}", "missing mandatory value: overrides"),
        ("settings: {x: &a [b], y: *a}", "an alias"),
        ("settings: {x: [b], x: [c]}", "it has x twice; leave one out"),
        (
            "settings: {x: [b]}\nbaseline: x\ndata: {a: {recipe: b}, c: {recipe: b, title: a}}",
            "two datasets have the title a; change one",
        ),
        (
            "settings: {x: [b]}\ndata: {a: {recipe: b, fold: 3}}",
            "unknown key 'data.a.fold'; did you mean folds",
        ),
        ("settings: {x: [b]\nbaseline: x", r"a.yaml cannot be read: expected .* in line 3"),
        ("settings: {x: [b], y: [c]}\nbaseline: x", "baseline or control, which need datasets"),
        ("settings: {x: {overrides: [b], control: y}}", "unknown setting 'y'; known: x"),
        ("settings: {x: [b]}\nbaseline: y", "unknown setting 'y'; known: x"),
        ("settings: {x: {overrides: [b], baseline: y}}", "unknown setting 'y'; known: x"),
        ("settings: {x: [{b: 3}]}", "{'b': 3} is not an override; write key=value"),
        ("settings: {x: [b]}\ndata: {a: {recipe: b}}", r"add baseline: SETTING, one of \['x'\]"),
        ("settings: {x: {overrides: [b], data: {d: []}}}", "setting x: unknown dataset 'd'"),
        ("settings: {x: [filter=none, seed=3]}", "setting x: seed=3: a study sets seed itself"),
        (
            "settings: {x: [fold=2]}\nbaseline: x\ndata: {a: {recipe: "
            f"{RECIPES / 'esc50'}, folds: [1]}}}}",
            "fold=2: the study lists the folds",
        ),
    ):
        (tmp_path / "a.yaml").write_text(f"seeds: [0]\n{text}\n")
        with pytest.raises(ConfigError, match=word):
            plan_study(tmp_path / "a.yaml")
