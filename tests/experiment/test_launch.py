"""Launching: runs here, side by side, and as jobs of a cluster."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import spaudio.experiment.launch
import spaudio.experiment.run_folder
from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.compose import compose
from spaudio.experiment.launch import failed_runs, launch_runs
from spaudio.experiment.run_folder import (
    create_run_folder,
    read_run_config,
    read_run_settings,
)
from spaudio.experiment.start import execute_run
from spaudio.io.lock import claimed
from tests import RECIPES
from tests.fixtures.ctrl_c import ctrl_c


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
    assert launch_runs(dict.fromkeys(runs, script), execute_run, jobs=2) == runs[:1]
    assert "FAILED" in capsys.readouterr().err
    assert "no such luck" in (runs[0] / "output.txt").read_text()


def test_a_run_that_is_killed_says_so(script: Path) -> None:
    runs = [script.with_name(name) for name in ("bad", "good")]
    script.write_text(
        "import os, signal\nprint('a warning', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    failed = launch_runs(dict.fromkeys(runs, script), execute_run, jobs=2)
    assert failed == runs
    assert "(the process was ended by SIGKILL; memory may have run out" in failed_runs(
        failed, 2, "x"
    )


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
        launch_runs(dict.fromkeys(runs, script), execute_run, jobs=2)
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

    def start(settings: Any, script: Path, run: Path) -> None:
        if run == bad:
            raise RuntimeError("no such luck")
        (run / "report.json").touch()

    monkeypatch.setattr(spaudio.experiment.launch, "read_run_settings", read_settings)
    assert launch_runs(dict.fromkeys(runs, script), start) == [unread, bad]
    said = capsys.readouterr().err
    assert f"FAILED: {bad / 'output.txt'}" in said
    assert f"error: {unread} is not a run's folder" in said
    written = (bad / "output.txt").read_text()
    assert written.startswith("Traceback")
    assert written.endswith("RuntimeError: no such luck\n")
    assert "RuntimeError: no such luck; see" in failed_runs([bad], 3, "the same command")
    assert "earlier" not in failed_runs([unread], 3, "the same command")


def test_the_settings_of_a_run_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose(RECIPES / "folder", [f"source={tmp_path}/gone", f"runs={tmp_path}"])
    run = create_run_folder(settings)
    found: list[Path] = []

    def counted(folder: Path) -> Any:
        found.append(folder)
        return read_run_config(folder)

    monkeypatch.setattr(spaudio.experiment.run_folder, "read_run_config", counted)
    assert launch_runs({run: RECIPES / "folder" / "run.py"}, execute_run) == [run]
    assert f"{tmp_path}/gone" in capsys.readouterr().err  # as far as its data
    assert found == [run]


def test_runs_are_submitted_to_a_cluster(script: Path) -> None:
    pytest.importorskip("submitit")
    runs = [script.with_name(name) for name in ("good", "bad")]
    options = {"timeout_min": 1}
    launcher = partial(launch_runs, start=execute_run, cluster="local", cluster_options=options)
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
    wrong = partial(launch_runs, start=execute_run, cluster="local", cluster_options={"timeout": 1})
    with pytest.raises(ConfigError, match=r"cluster_options=.'timeout': 1.: .*timeout"):
        wrong(dict.fromkeys(runs, script))


# In place of SLURM: jobs wait in the queue until a test says otherwise.
SBATCH = """#!/bin/sh
cd {folder} && echo >> submitted && echo "Submitted batch job $(wc -l < submitted)"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
cd {folder}
for job in $(seq $(wc -l < submitted)); do echo "$job|$(cat state-$job || echo PENDING)|"; done
"""


def test_jobs_in_the_queue_are_not_submitted_again(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submitit = pytest.importorskip("submitit")
    folder = script.parent
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("srun", "")):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    while_waiting: list[Callable[[], object]] = []

    def wait(seconds: float) -> None:
        if seconds < 1:  # between two jobs that it submits
            time.sleep(seconds)
            return
        submitit.SlurmJob.watcher.clear()  # it asks seldom
        if not while_waiting:
            raise KeyboardInterrupt
        while_waiting.pop()()

    clock = SimpleNamespace(time=time.time, sleep=wait)
    monkeypatch.setattr(submitit.core.core, "_time", clock)
    good, bad = runs = [folder / name for name in ("good", "bad")]
    launcher = partial(
        launch_runs, start=execute_run, cluster="slurm", cluster_options={"timeout_min": 1}
    )

    def launch() -> str:
        with pytest.raises(KeyboardInterrupt):
            launcher(dict.fromkeys(runs, script))
        return capsys.readouterr().err

    assert "These jobs go on: 1, 2." in launch()
    (folder / "state-2").write_text("RUNNING")
    said = launch()
    assert "go on, and are not submitted again: 1 (PENDING), 2 (RUNNING)" in said
    assert "These jobs go on: 1, 2." in said
    # One that has ended, here without a report, is submitted again.
    (folder / "state-1").write_text("CANCELLED by 7")
    said = launch()
    assert "go on, and are not submitted again: 2 (RUNNING)" in said
    assert "These jobs go on: 2, 3." in said
    (folder / "state-2").write_text("COMPLETED")
    (bad / "report.json").touch()
    while_waiting.append(lambda: (folder / "state-3").write_text("TIMEOUT"))
    assert launcher(dict.fromkeys(runs, script)) == [good]
    assert len((folder / "submitted").read_text()) == 3
    assert (good / "output.txt").read_text() == "job 3: TIMEOUT\n"
    assert not (good / "job.txt").exists()


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
    launcher = partial(
        launch_runs, start=execute_run, cluster="local", cluster_options={"timeout_min": 1}
    )
    runs = [script.with_name(name) for name in ("good", "bad")]
    with pytest.raises(SpaudioError, match=r"too many jobs\. These jobs go on: \d+\. To wait .*"):
        launcher(dict.fromkeys(runs, script))
