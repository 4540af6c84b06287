"""A study: its plan, and that a second call skips what is finished and resumes what is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spaudio.cli import main
from spaudio.errors import ConfigError
from spaudio.experiment.study import plan_study
from spaudio.train.log import read_log
from tests.experiment.conftest import ROOT
from tests.experiment.test_recipes import tiny_text8

STUDY = ROOT / "recipes" / "text8" / "study.yaml"


def test_the_plan_runs_the_first_seed_of_all_settings_first() -> None:
    runs = plan_study(STUDY, ["corpus=books.txt"])
    names = {run.setting for run in runs if not run.setting.endswith("-sotu")}
    assert len(runs) == 3 * len(names) + 3
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert len({run.folder for run in runs}) == len(runs)
    for run in runs:
        assert run.config.corpus == ("sotu" if run.setting.endswith("-sotu") else "books.txt")
        assert run.config.seed == run.seed
        assert run.config.trainer.epochs * run.config.steps_per_epoch == 2000
    two = next(run for run in runs if run.setting == "bank-2-layers")
    assert list(two.config.model.filter_layers) == [0, 1]


def test_a_plan_is_restricted() -> None:
    runs = plan_study(STUDY, only=["bank", "none"], seeds=[0, 2])
    assert [(run.setting, run.seed) for run in runs] == [
        ("bank", 0), ("none", 0), ("bank", 2), ("none", 2)
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="no setting 'bnak'"):
        plan_study(STUDY, only=["bnak"])
    with pytest.raises(ConfigError, match="setting none"):
        plan_study(STUDY, ["modle.dim=3"], only=["none"])


def test_a_second_call_resumes_the_broken_and_skips_the_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recipes" / "text8"
    shutil.copytree(ROOT / "recipes" / "text8", folder)
    (tmp_path / "data_prep").symlink_to(ROOT / "data_prep")
    study = folder / "small.yaml"
    study.write_text(
        "seeds: [0]\noverrides: [preset=debug]\n"
        "settings:\n  none: [filter=none]\n  haar: [filter=haar]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = tiny_text8(tmp_path)
    main(["study", str(study), *settings, "--only", "none"])
    run = tmp_path / "runs" / "text8" / "small-none-0"
    first = read_log(run)
    (run / "report.json").unlink()  # as if it had been stopped before its end
    states = {file: file.read_bytes() for file in run.glob("checkpoints/last-*/trainer.pt")}
    for file in states:
        file.write_bytes(b"damaged")
    with pytest.raises(SystemExit, match="1 of 1 runs failed"):
        main(["study", str(study), *settings, "--only", "none"])
    assert read_log(run) == first  # what was trained is not thrown away
    for file, content in states.items():
        file.write_bytes(content)
    table = tmp_path / "table.md"
    main(["study", str(study), *settings, "--output", str(table), "--jobs", "2"])
    assert read_log(run) == first  # nothing was trained again
    lines = table.read_text().splitlines()
    assert lines[2].startswith("| filter=none | 1 |")
    assert lines[3].startswith("| filter=haar | 1 |")
    assert (tmp_path / "table-curves.png").is_file()
    runs = [str(run), str(run.with_name("small-haar-0"))]
    for folder in runs:
        shutil.rmtree(Path(folder) / "checkpoints")
    records = tmp_path / "records.md"  # settings, log and report are enough for the table
    main(["compare", *runs, "--output", str(records)])
    assert records.read_text().splitlines()[:4] == lines[:4]
    assert not (tmp_path / "records-kernels.png").is_file()
    capsys.readouterr()
    main(["study", str(study), *settings, "--only", "haar"])
    assert "not compared: text8 has no baseline" in capsys.readouterr().err
    main(["study", str(study), *settings])
    assert "2 finished, 0 to do" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="eval"):
        main(["study", str(study), *settings, "eval.windows=4"])
