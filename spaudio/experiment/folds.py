"""A run over all folds: each in turn is the test fold, in a run of its own, and one report.

``<runs>/<recipe>/<id>/`` holds ``fold-<name>/`` for each fold, which is an ordinary run and is
resumed as one, and the report over them (see `spaudio.report.folds`), written last.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.data import load_data
from spaudio.experiment.processes import with_parent
from spaudio.experiment.run import run_recipe
from spaudio.experiment.run_folder import CONFIG, create_run_folder, read_run_config
from spaudio.experiment.settings import quoted
from spaudio.experiment.training import check_settings
from spaudio.io.lock import locked
from spaudio.report.folds import write_fold_report

OUTPUT = "output.txt"  # what a fold printed that ran beside others


def is_fold_run(config: DictConfig) -> bool:
    """Says whether a configuration, or the run that it resumes, asks for all folds.

    Raises:
        ConfigError: If ``folds`` is neither null nor ``all``.
        CheckpointError: If the folder to resume is not a run's.
    """
    if config.resume is not None:
        config = read_run_config(Path(config.resume))
    folds = config.get("folds")
    if folds not in (None, "all"):
        raise ConfigError(f"folds={folds}; expected all or null (one fold is chosen by fold=N)")
    return folds is not None


def run_folds(config: DictConfig, script: Path) -> Path:
    """Trains and tests every fold of a recipe and writes the report over them.

    Called again with the same ``run_id`` and settings, or with ``resume`` on the run's folder, it
    goes on with the folds that are not finished.

    Args:
        config: The composed configuration; ``fold_by`` says how the recipe chooses a fold.
        script: The recipe's ``run.py``.

    Returns:
        The folder of the run over all folds.

    Raises:
        SpaudioError: Of the kind that fits, for whatever the user can mend.
    """
    console = Console(stderr=True)
    jobs, resumed = config.jobs, config.resume
    if not isinstance(jobs, int) or jobs < 1:
        raise ConfigError(f"jobs={jobs}; expected a whole number of at least 1")
    if resumed is not None:
        config = read_run_config(Path(resumed))
    values = list(config.fold_by["values"])
    if not values:
        raise ConfigError(f"folds=all: {config.recipe} has no folds (fold_by.values is empty)")
    check_settings(config)
    scripts = script.parents[2] / "data_prep"
    # Before there are folders, so that an error leaves none; what it prepares serves all folds.
    load_data(_choose(config, values[0]), scripts)
    folder = Path(resumed) if resumed is not None else _open(config)
    console.print(f"folds: {folder}", soft_wrap=True)
    with locked(folder / "lock"):
        folds = {str(value): _fold_folder(config, folder, value) for value in values}
        left = {n: run for n, run in folds.items() if not (run / "report.json").is_file()}
        try:
            if jobs == 1:
                for name, run in left.items():
                    console.print(f"fold {name} of {', '.join(folds)}")
                    run_recipe(OmegaConf.create({"resume": str(run)}), scripts)
            elif left:
                _run_beside(left, script, jobs, console)
        except KeyboardInterrupt:
            console.print(
                f"stopped; finished folds are kept. Go on with resume={folder}", soft_wrap=True
            )
            raise
        report = write_fold_report(folder, folds)
    test, floor = report["test"], report["floor"]
    console.print(
        f"test accuracy over {len(folds)} folds {test['accuracy']:.4f} ± {test['std']:.4f}; "
        f"classical floor {floor['svm']:.4f} ± {floor['svm_std']:.4f}; majority class "
        f"{floor['majority']:.4f}\nreport: {folder / 'report.md'}",
        soft_wrap=True,
    )
    return folder


def _choose(config: DictConfig, value: Any) -> DictConfig:
    """Returns the configuration of one fold's run."""
    one = config.copy()
    OmegaConf.update(one, config.fold_by.key, value)
    OmegaConf.update(one, "folds", None)
    OmegaConf.update(one, "jobs", 1)
    return one


def _open(config: DictConfig) -> Path:
    """Makes the run's folder, or opens the one of the same ``run_id`` and settings."""
    folder = Path(str(config.runs), str(config.recipe), str(config.run_id))
    if config.run_id is None or not (folder / CONFIG).is_file():
        return create_run_folder(config)
    if _settings(read_run_config(folder)) != _settings(config):
        raise ConfigError(
            f"run_id={config.run_id} exists in {folder.parent} with other settings; take another "
            f"name, or go on with it by resume={folder}"
        )
    return folder


def _settings(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in plain.items() if key not in ("jobs", "resume")}


def _fold_folder(config: DictConfig, folder: Path, value: Any) -> Path:
    """Makes the folder of one fold's run, with its configuration, where it is not there."""
    run = folder / f"fold-{value}"
    if not (run / CONFIG).is_file():
        one = _choose(config, value)
        one.runs, one.run_id = str(folder.parent.parent), f"{folder.name}/{run.name}"
        create_run_folder(one)
    return run


def _run_beside(left: Mapping[str, Path], script: Path, jobs: int, console: Console) -> None:
    """Runs folds in processes of their own, ``jobs`` at a time, each with its share of threads."""
    threads = str(max(1, torch.get_num_threads() // jobs))
    own = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    environment = with_parent(own)
    running: dict[str, subprocess.Popen[bytes]] = {}
    stopped, starting = threading.Event(), threading.Lock()

    def run(name: str) -> None:
        with starting, (left[name] / OUTPUT).open("ab") as output:
            if stopped.is_set():
                return
            # In a group of its own: Ctrl-C stops it from here, not a second time by itself.
            running[name] = subprocess.Popen(
                [sys.executable, str(script), f"resume={quoted(left[name])}"],
                env=environment, stdout=output, stderr=output, process_group=0,
            )  # fmt: skip
        code = running[name].wait()
        if code and not stopped.is_set():
            file = left[name] / OUTPUT
            said = file.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise SpaudioError(f"fold {name} ended with code {code}: {said} (see {file})")
        if not code:
            console.print(f"fold {name} is finished: {left[name] / 'report.md'}", soft_wrap=True)

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, name) for name in left]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            with starting:
                stopped.set()
            for process in running.values():
                process.terminate()  # of those still running; their last epoch is kept
