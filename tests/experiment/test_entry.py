"""The command line of a recipe: where options may stand, resume, errors, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from spaudio.errors import ConfigError
from spaudio.experiment.entry import _check_resume
from tests.conftest import RECIPES, RunRecipe
from tests.fixtures.tiny_recipes import tiny_folder

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_all_settings_are_printed(run_recipe: RunRecipe, tmp_path: Path) -> None:
    done = run_recipe("folder", "--cfg", "filter=bank", "source=x", "seed=7")
    assert done.code == 0
    settings = yaml.safe_load(done.out)
    assert settings["filter"]["kernel_size"] == 16
    assert settings["source"] == "x"
    assert settings["seed"] == 7
    assert not list(tmp_path.iterdir())


def test_resume_takes_no_other_setting_but_the_number_of_jobs() -> None:
    _check_resume(["resume=runs/fsdd/x", "jobs=2"])
    with pytest.raises(ConfigError, match="seed cannot be changed"):
        _check_resume(["resume=runs/fsdd/x", "jobs=2", "seed=1"])


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path, run_recipe: RunRecipe) -> None:
    command = [sys.executable, str(RECIPES / "folder" / "run.py"), "preset=debug",
               "trainer.epochs=200", "run_id=stopped", *tiny_folder(tmp_path)]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        # As in a terminal: a suite that a shell runs in the background ignores Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    run = tmp_path / "runs" / "folder" / "stopped"
    deadline = time.monotonic() + 120
    while not (run / "log.jsonl").is_file() or not (run / "log.jsonl").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume=runs/folder/stopped" in errors
    assert "Traceback" not in errors
    assert not (run / "report.json").exists()
    # Shorten what is left, as nobody wants to wait for 200 epochs.
    epochs = len((run / "log.jsonl").read_text().splitlines()) + 2
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["trainer"]["epochs"] = epochs
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    done = run_recipe("folder", "resume=runs/folder/stopped")
    assert done.code == 0, done.err
    assert (run / "report.json").is_file()
    assert len((run / "log.jsonl").read_text().splitlines()) == epochs
    again = run_recipe("folder", "resume=runs/folder/stopped")
    assert "is finished" in again.err
