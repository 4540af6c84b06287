"""Sweeps: all combinations of values, resumed, side by side, compared."""

import shutil
from pathlib import Path

import pytest

import spaudio.experiment.launch
from spaudio.errors import ConfigError
from spaudio.experiment.check_data import check_some_data
from spaudio.experiment.compose import compose
from spaudio.experiment.entry import main as run_script
from spaudio.experiment.run_folder import create_run_folder, read_run_settings
from spaudio.experiment.tasks import open_task
from tests import RECIPES, ROOT
from tests.conftest import RunRecipe
from tests.fixtures.tiny_recipes import TINY, tiny_folder
from tests.fixtures.tiny_run import rows

pytestmark = pytest.mark.usefixtures("blank_figures")


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
    next((tmp_path / "late").rglob("*.wav")).unlink()  # else the data would be the same
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


@pytest.mark.parametrize("several", [["-m", "filter.num_filters=4,0"], ["filter.num_filters=0"]])
def test_a_filter_is_checked_before_data_are_prepared(
    several: list[str], tmp_path: Path, run_recipe: RunRecipe
) -> None:
    done = run_recipe("folder", *tiny_folder(tmp_path), "filter=bank", *several)
    assert done.code == 1
    assert "num_filters and kernel_size must be whole numbers, at least 1; got num_filters=0" in (
        done.err
    )
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()


def test_all_folds_and_one_of_them_are_refused(tmp_path: Path, run_recipe: RunRecipe) -> None:
    done = run_recipe("esc50", "-m", f"source={tmp_path}", "fold=1,2", "folds=all")
    assert (done.code, done.err) == (1, "error: folds=all runs every fold; leave fold=1 out\n")
    assert not (tmp_path / "runs").exists()


def test_data_that_one_run_of_a_sweep_can_use_are_not_refused(tmp_path: Path) -> None:
    given = [*tiny_folder(tmp_path), "preset=debug", f"data={tmp_path}", "model.max_tokens=5"]
    rotary, learned = (
        compose(RECIPES / "folder", [*given, f"model.positions={one}"])
        for one in ("rotary", "learned")
    )
    with pytest.raises(ConfigError, match=r"only model\.max_tokens=5 "):
        check_some_data([learned], RECIPES / "folder")
    check_some_data([rotary, learned], RECIPES / "folder")


def test_a_stopped_sweep_says_how_it_is_continued(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spaudio.experiment.launch, "_here", stop)
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
    check_some_data(settings, tmp_path / "recipes" / "text8")
    assert [one.prep_options["corpus"] for one in settings] == ["auto", "auto"]
    run = create_run_folder(settings[0])
    open_task(read_run_settings(run), tmp_path / "recipes" / "text8").begin(run)
    assert read_run_settings(run).prep_options["corpus"] == "found"
