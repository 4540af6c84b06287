"""A run's folder: never shared, never overwritten, opened again by the same settings alone."""

import copy
import errno
import os
import threading
from pathlib import Path

import pytest

from spaudio.errors import CheckpointError, ConfigError, DataError
from spaudio.experiment.run_folder import (
    create_run_folder,
    new_run_id,
    open_run_folder,
    read_run_settings,
    refuse_elsewhere,
)
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.start import start_run
from tests.fixtures.tiny_run import compose


def race(folder: Path, run_id: str | None, number: int = 8) -> tuple[list[Path], list[str]]:
    made: list[Path] = []
    refused: list[str] = []
    barrier = threading.Barrier(number)
    composed = compose("folder", "source=x", f"runs={folder}")
    composed.run_id = run_id

    def start(seed: int) -> None:
        settings = copy.copy(composed)
        settings.seed = seed
        barrier.wait()
        try:
            run = create_run_folder(settings)
            assert read_run_settings(run).seed == seed
            made.append(run)
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made, refused


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    made, refused = race(tmp_path, "same")
    assert len(made) == 1
    assert len(refused) == 7
    assert all("choose another name" in message for message in refused)
    made, refused = race(tmp_path, None)  # without a name each gets its own
    assert not refused
    assert len(set(made)) == 8


def test_names_of_runs_do_not_repeat() -> None:
    assert len({new_run_id() for _ in range(2_000)}) == 2_000  # 2,000 of 65,536 would repeat


def test_a_run_is_opened_by_the_same_settings_alone(tmp_path: Path) -> None:
    same = ("folder", "source=x", f"runs={tmp_path}", "run_id=a")
    made = create_run_folder(compose(*same))
    assert open_run_folder(compose(*same, "jobs=3")) == made
    with pytest.raises(ConfigError, match=r"run_id=a exists.*resume="):
        create_run_folder(compose(*same))
    for other in ("filter=bank", "source=y", "trainer.epochs=3"):
        with pytest.raises(ConfigError, match=r"was run with .* choose another run_id"):
            open_run_folder(compose(*same, other))


def test_settings_of_the_machine_may_change_between_calls(tmp_path: Path) -> None:
    same = ("folder", "source=x", f"runs={tmp_path}", "run_id=a")
    made = create_run_folder(compose(*same))
    here = ("data=elsewhere", "trainer.workers=1", "trainer.device=cpu")
    assert open_run_folder(compose(*same, *here, "jobs=3")) == made
    begun = read_run_settings(made)
    assert (begun.data, begun.trainer.workers, begun.trainer.device) == ("elsewhere", 1, "cpu")
    assert begun.jobs == 1
    (made / "report.json").write_text("{}")
    finished = (made / "config.yaml").read_bytes()
    assert open_run_folder(compose(*same)) == made
    assert (made / "config.yaml").read_bytes() == finished  # says how the run was made


def test_a_full_disk_or_a_kill_leaves_no_run_without_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = ("folder", "source=x", f"runs={tmp_path}", "run_id=a")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            DataError, match=r"disk of runs=.* is full; .*the same command continues"
        ):
            open_run_folder(compose(*same))
    assert not list((tmp_path / "folder").iterdir())

    def taken(staging: Path, folder: Path) -> None:  # as on XFS
        folder.mkdir()
        raise FileExistsError(errno.EEXIST, "File exists", str(staging), None, str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", taken)
        with pytest.raises(ConfigError, match=r"run_id=a exists in .*; choose another name$"):
            open_run_folder(compose(*same))
    # The folder is empty, as earlier versions made it first.
    made = open_run_folder(compose(*same))
    assert read_run_settings(made).run_id == "a"
    assert list((tmp_path / "folder").iterdir()) == [made]
    assert made.stat().st_mode == tmp_path.joinpath("folder").stat().st_mode
    (made / "config.yaml").rename(made / "other")
    with pytest.raises(ConfigError, match=r"run_id=a exists in .*; choose another name$"):
        open_run_folder(compose(*same))


@pytest.mark.parametrize("run_id", ["../../elsewhere", "/elsewhere", "a/../..", "C:\\x", "a\0"])
def test_a_run_stays_below_its_folder(tmp_path: Path, run_id: str) -> None:
    settings = compose("folder", "source=x", f"runs={tmp_path / 'runs'}")
    for name in ("run_id", "recipe"):
        content = settings.as_dict() | {name: run_id}
        with pytest.raises(ConfigError, match=rf"{name}=.* leaves the folder of runs"):
            read_settings(content)
    assert read_settings(settings.as_dict() | {"run_id": "study/fold-1"}).run_id == "study/fold-1"
    with pytest.raises(ConfigError, match="leaves the folder of runs"):
        compose("folder", "source=x", "run_id=../../elsewhere")


def test_a_folder_that_cannot_be_made_or_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"runs=.*/file/folder cannot be written .*Not a dir"):
        create_run_folder(compose("folder", f"runs={tmp_path / 'file'}", "run_id=a"))
    with pytest.raises(CheckpointError, match=r"is not a run's folder: .*; name a run's folder"):
        read_run_settings(tmp_path)
    first = create_run_folder(compose("folder", f"runs={tmp_path}", "run_id=first"))
    with pytest.raises(CheckpointError, match=rf"; name one of {first}$"):
        read_run_settings(first.parent)
    with pytest.raises(CheckpointError, match=rf"no such run; did you mean {first}\?"):
        read_run_settings(first.parent / "frist")


def test_a_run_is_continued_where_its_input_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sounds", "elsewhere", "elsewhere/own"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    settings = compose("folder", "source=sounds", "runs=runs", "run_id=a")
    run = create_run_folder(settings).resolve()
    refuse_elsewhere(run, settings)
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = rf"was started in {tmp_path}, where source=sounds is; resume it from there"
    with pytest.raises(CheckpointError, match=expected):
        refuse_elsewhere(run, settings)
    with pytest.raises(CheckpointError, match=expected):
        start_run(compose("folder", f"resume={run}"), Path("run.py"))
    refuse_elsewhere(run, compose("folder", "source=own", "runs=runs", "run_id=a"))
