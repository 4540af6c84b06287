"""A run's folder: of runs that are started at the same instant, one gets a name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from spaudio.errors import ConfigError
from spaudio.experiment.run_folder import create_run_folder, read_run_config


def race(folder: Path, run_id: str | None, number: int = 16) -> tuple[list[Path], list[str]]:
    made: list[Path] = []
    refused: list[str] = []
    barrier = threading.Barrier(number)

    def start(seed: int) -> None:
        values = {"runs": str(folder), "recipe": "toy", "run_id": run_id, "seed": seed}
        barrier.wait()
        try:
            run = create_run_folder(OmegaConf.create(values))
            assert read_run_config(run).seed == seed
            made.append(run)
        except ConfigError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start, args=(seed,)) for seed in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made, refused


def test_one_of_many_gets_a_name(tmp_path: Path) -> None:
    for trial in range(10):
        made, refused = race(tmp_path, f"same-{trial}")
        assert len(made) == 1
        assert len(refused) == 15
        assert all("take another name" in message for message in refused)


def test_without_a_name_each_gets_its_own(tmp_path: Path) -> None:
    made, refused = race(tmp_path, None)
    assert len(set(made)) == 16
    assert not refused


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    values = {"runs": str(tmp_path / "file"), "recipe": "toy", "run_id": "a"}
    with pytest.raises(ConfigError, match=r"runs=.*/file: cannot make .*Not a directory"):
        create_run_folder(OmegaConf.create(values))
