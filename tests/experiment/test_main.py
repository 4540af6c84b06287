"""The command line of a recipe: sweeps, resume, and errors that name the value and the remedy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spaudio.cli import main
from spaudio.errors import CheckpointError, ConfigError
from spaudio.experiment.main import _check_overrides
from spaudio.experiment.run_folder import create_run_folder, read_run_config
from tests.experiment.conftest import ROOT, Run
from tests.experiment.test_recipes import tiny_folder, tiny_fsdd

FSDD = ROOT / "recipes" / "fsdd"


def test_a_sweep_is_compared_at_its_end(tmp_path: Path, run_recipe: Run) -> None:
    filters = ["none", "fir", "depthwise", "haar", "bank", "multiscale", "adaptive"]
    done = run_recipe(
        "fsdd", "-m", f"filter={','.join(filters)}", "preset=debug", "trainer.epochs=1",
        *tiny_fsdd(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "runs" / "fsdd").glob("*/report.md"))
    assert len(runs) == len(filters)
    for report in runs:
        assert str(report.relative_to(tmp_path)) in done.stdout
    table = next((tmp_path / "runs" / "fsdd").glob("compare-*.md")).read_text().splitlines()
    assert "parameters" in table[0]
    assert "ms/step" in table[0]
    for name, line in zip(filters, table[2:], strict=True):
        assert line.startswith(f"| filter={name} |")
        assert f"filter={name}" in done.stdout


def test_a_launcher_runs_jobs_beside_each_other(tmp_path: Path, run_recipe: Run) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = run_recipe(
        "fsdd", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "filter=haar,none",
        "preset=debug", "trainer.epochs=1", *tiny_fsdd(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs" / "fsdd").glob("*/report.md"))) == 2
    # Whichever ends first, the table has the order of the command.
    rows = next((tmp_path / "runs" / "fsdd").glob("compare-*.md")).read_text().splitlines()[2:]
    assert [row.split(" |")[0] for row in rows] == ["| filter=haar", "| filter=none"]


def test_a_token_adaptive_run_shows_its_mask(tmp_path: Path, run_recipe: Run) -> None:
    done = run_recipe(
        "folder", "filter=adaptive", "filter.num_filters=6", "filter.width=8", "filter.heads=2",
        "model.filter_place=attention", "model.filter_layers=[1]", "preset=debug",
        "trainer.epochs=1", "run_id=masked", *tiny_folder(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "folder" / "masked"
    assert (run / "mask.png").stat().st_size > 0
    assert "mask.png" in (run / "report.md").read_text()
    report = json.loads((run / "report.json").read_text())
    assert len(report["filters"]) == 1  # one of two layers has a filter


def test_the_command_draws_and_compares_finished_runs(
    tmp_path: Path, run_recipe: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tiny_folder(tmp_path)
    for name, choice in (("a", "none"), ("b", "depthwise")):
        done = run_recipe("folder", f"filter={choice}", "preset=debug", f"run_id={name}", *tiny)
        assert done.returncode == 0, done.stderr
    plain, filtered = (tmp_path / "runs" / "folder" / name for name in "ab")
    (filtered / "filters.png").unlink()
    main(["filters", str(filtered)])
    assert (filtered / "filters.png").stat().st_size > 0
    main(["filters", str(plain)])
    assert "no filter with kernels" in capsys.readouterr().out
    main(["compare", str(plain), str(filtered), "--output", str(tmp_path / "table.md")])
    assert "filter=depthwise" in capsys.readouterr().out
    assert "| filter=depthwise | 1 |" in (tmp_path / "table.md").read_text()
    with pytest.raises(SystemExit, match=r"error: .* is not a run's folder"):
        main(["filters", str(tmp_path)])


def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path, run_recipe: Run) -> None:
    tiny = tiny_fsdd(tmp_path)
    command = [sys.executable, str(FSDD / "run.py"), "preset=debug", "trainer.epochs=200",
               "run_id=stopped", *tiny]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        # As in a terminal: a suite that a shell runs in the background is deaf to Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    run = tmp_path / "runs" / "fsdd" / "stopped"
    deadline = time.monotonic() + 120
    while not (run / "log.jsonl").is_file() or not (run / "log.jsonl").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "resume=runs/fsdd/stopped" in errors
    assert "Traceback" not in errors
    assert not (run / "report.json").exists()
    # Shorten what is left, as nobody wants to wait for 200 epochs.
    epochs = len((run / "log.jsonl").read_text().splitlines()) + 2
    config = OmegaConf.load(run / "config.yaml")
    config.trainer.epochs = epochs
    OmegaConf.save(config, run / "config.yaml")
    done = run_recipe("fsdd", "resume=runs/fsdd/stopped")
    assert done.returncode == 0, done.stderr
    assert (run / "report.json").is_file()
    assert len((run / "log.jsonl").read_text().splitlines()) == epochs
    again = run_recipe("fsdd", "resume=runs/fsdd/stopped")
    assert "is finished" in again.stderr


def test_an_error_is_one_line_and_leaves_no_run_behind(tmp_path: Path, run_recipe: Run) -> None:
    done = run_recipe("folder", "preset=debug", "source=nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.widht=3", "unknown setting 'model.widht'"),
        ("epochs=3", "did you mean trainer.epochs"),
        ("+sede=1", "did you mean seed"),
        ("filtre=bank", "did you mean filter"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest(override: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        _check_overrides(FSDD, [override])


def test_settings_of_the_chosen_filter_are_known() -> None:
    _check_overrides(FSDD, ["filter=bank", "filter.kernel_size=8", "seed=0,1"])
    _check_overrides(FSDD, ["filter=bank,none", "filter.kernel_size=8"])
    with pytest.raises(ConfigError, match=r"filter\.kernel_size"):
        _check_overrides(FSDD, ["filter=none", "filter.kernel_size=8"])


def test_settings_of_the_chosen_front_end_are_known() -> None:
    """The recipe's own YAML sets n_mels, which a waveform run would leave out without a word."""
    _check_overrides(FSDD, ["tokens=waveform", "tokens.num_filters=8", "tokens.stack=4"])
    _check_overrides(FSDD, ["tokens=spectrogram,waveform", "filter=none,bank"])
    with pytest.raises(ConfigError, match=r"tokens\.n_mels"):
        _check_overrides(FSDD, ["tokens=waveform", "tokens.n_mels=8"])
    with pytest.raises(ConfigError, match=r"tokens\.init"):
        _check_overrides(FSDD, ["tokens.init=mel"])


def test_resume_takes_no_other_setting() -> None:
    with pytest.raises(ConfigError, match="seed cannot be changed"):
        _check_overrides(FSDD, ["resume=runs/fsdd/x", "seed=1"])


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    config = OmegaConf.create({"runs": str(tmp_path), "recipe": "toy", "run_id": None, "seed": 3})
    folders = {create_run_folder(config) for _ in range(20)}
    assert len(folders) == 20
    named = OmegaConf.merge(config, {"run_id": "a"})
    made = create_run_folder(named)  # type: ignore[arg-type]
    assert read_run_config(made).seed == 3
    with pytest.raises(ConfigError, match=r"run_id=a exists.*resume="):
        create_run_folder(named)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run's folder"):
        read_run_config(tmp_path)
