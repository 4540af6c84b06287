"""The command line of a recipe: where options may stand, resume, errors, Ctrl-C."""

from pathlib import Path

import pytest
import yaml

import spaudio
from spaudio.errors import ConfigError
from spaudio.experiment import run as run_module
from tests.conftest import RunRecipe
from tests.fixtures.ctrl_c import ctrl_c
from tests.fixtures.tiny_recipes import tiny_folder

pytestmark = pytest.mark.usefixtures("blank_figures")


def test_all_settings_are_printed(run_recipe: RunRecipe, tmp_path: Path) -> None:
    done = run_recipe("folder", "--cfg", "filter=bank", "source=x", "seed=7")
    assert done.code == 0
    settings = yaml.safe_load(done.out)
    assert settings["filter"]["kernel_size"] == 4
    assert settings["source"] == "x"
    assert settings["seed"] == 7
    done = run_recipe("folder", "--cfg", "-m", "filter=none,bank", "source=x")
    assert yaml.safe_load(done.out)["filter"]["name"] == "none"  # of the first run
    assert not list(tmp_path.iterdir())


def test_resume_takes_no_other_setting_but_the_number_of_jobs(run_recipe: RunRecipe) -> None:
    done = run_recipe("fsdd", "resume=runs/fsdd/x", "jobs=2", "seed=1")
    assert done.code == 1
    assert "leave seed out" in done.err
    with pytest.raises(ConfigError, match="leave seed out"):
        spaudio.train(resume="runs/folder/x", seed=1)
    assert "leave -m out" in run_recipe("fsdd", "-m", "resume=runs/fsdd/x,runs/fsdd/y").err


def test_ctrl_c_leaves_a_run_that_goes_on(
    tmp_path: Path, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has a process of its own, to which the sweep that started it passes Ctrl-C on."""
    run = tmp_path / "runs" / "folder" / "stopped-0"
    log = run / "log.jsonl"
    with ctrl_c(lambda: log.is_file() and bool(log.read_text())):
        stopped = run_recipe(
            "folder", "-m", "seed=0", "jobs=2", "preset=debug", "trainer.epochs=200",
            "run_id=stopped", *tiny_folder(tmp_path),
        )  # fmt: skip
    assert stopped.code == 130
    said = (run / "output.txt").read_text()
    assert "resume=runs/folder/stopped-0" in said
    assert "Traceback" not in said + stopped.err
    assert not (run / "report.json").exists()
    # Shorten what is left, as nobody wants to wait for 200 epochs. It would be refused.
    monkeypatch.setattr(run_module, "_check_unchanged", lambda *given: None)
    epochs = len(log.read_text().splitlines()) + 2
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["trainer"]["epochs"] = epochs
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    done = run_recipe("folder", "resume=runs/folder/stopped-0")
    assert done.code == 0, done.err
    assert (run / "report.json").is_file()
    assert len(log.read_text().splitlines()) == epochs
    again = run_recipe("folder", "resume=runs/folder/stopped-0")
    assert "is finished" in again.err
