"""A study: many runs of one recipe by one command, which can be stopped and called again.

A study is a YAML file beside a recipe's ``run.py``::

    seeds: [0, 1, 2]
    overrides: [preset=tiny]            # of every run
    settings:
      none: [filter=none]               # name of the setting: its overrides
      bank: [filter=bank]
      check: {overrides: [filter=bank, corpus=sotu], seeds: [0]}

Each setting and seed is one run with an id of its own, ``<study>-<setting>-<seed>``. Finished runs
are skipped, broken ones resumed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.compose import compose
from spaudio.experiment.processes import with_parent
from spaudio.experiment.run_folder import read_run_config
from spaudio.experiment.settings import quoted

# Settings that may differ between the run that is wanted and the one that is there.
_IGNORED = ("resume", "prep_options")


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Args:
        setting: Its name in the study.
        seed: Its seed.
        overrides: All of them, ``run_id`` and ``seed`` included.
        config: What they compose to.
    """

    setting: str
    seed: int
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.runs, self.config.recipe, self.config.run_id)

    @property
    def finished(self) -> bool:
        """Whether its report is there."""
        return (self.folder / "report.json").is_file()


def plan_study(
    file: Path,
    overrides: Sequence[str] = (),
    *,
    only: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[StudyRun]:
    """Lists a study's runs: the first seed of every setting, then the second, and so on.

    Args:
        file: The study.
        overrides: More of them for every run; a setting's own come after, and win.
        only: Names of settings; None for all.
        seeds: Seeds, of those that the study has; None for all.

    Raises:
        ConfigError: If the file, a name or a setting is wrong, or a run of the same id is there
            that was set otherwise.
    """
    study = _read(file)
    settings = study["settings"]
    if unknown := sorted(set(only or ()) - set(settings)):
        raise ConfigError(f"{file} has no setting {unknown[0]!r}; it has {list(settings)}")
    runs: list[StudyRun] = []
    for name in only or settings:
        setting = settings[name]
        own = setting if isinstance(setting, dict) else {"overrides": setting}
        for seed in own.get("seeds", study["seeds"]):
            if seeds is not None and seed not in seeds:
                continue
            given = (*study.get("overrides", ()), *overrides, *own["overrides"])
            every = (*given, f"seed={seed}", f"run_id={file.stem}-{name}-{seed}")
            try:
                config = compose(file.parent, every)
            except ConfigError as error:
                raise ConfigError(f"{file}, setting {name}: {error}") from error
            runs.append(StudyRun(name, seed, every, config))
    for run in runs:
        _check_same(run)
    order = list(study["seeds"])
    return sorted(runs, key=lambda run: order.index(run.seed) if run.seed in order else len(order))


def run_study(runs: Sequence[StudyRun], script: Path, jobs: int = 1) -> list[StudyRun]:
    """Runs what is not finished.

    Args:
        runs: From :func:`plan_study`.
        script: The recipe's ``run.py``.
        jobs: Processes at a time, each with its share of the processor's cores, or with as many as
            ``OMP_NUM_THREADS`` says.

    Returns:
        The runs that failed; each has a log beside its folder.

    Raises:
        KeyboardInterrupt: After every process has stopped, each with its last epoch kept.
    """
    console = Console(stderr=True)
    todo = [run for run in runs if not run.finished]
    console.print(f"{len(runs)} runs, {len(runs) - len(todo)} finished, {len(todo)} to do")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = with_parent({"OMP_NUM_THREADS": threads, **os.environ})
    processes: list[subprocess.Popen[bytes]] = []
    stopped = threading.Event()

    def one(run: StudyRun) -> bool:
        if stopped.is_set():
            return False
        log = run.folder.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(script), *_arguments(run)]
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
            processes.append(process)
            process.wait()
        if not stopped.is_set():
            console.print(f"{'done' if run.finished else 'FAILED'}: {run.folder}", soft_wrap=True)
        return run.finished

    with ThreadPoolExecutor(jobs) as pool:
        try:
            done = list(pool.map(one, todo))
        except KeyboardInterrupt:
            stopped.set()
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            raise
    return [run for run, finished in zip(todo, done, strict=True) if not finished]


def _arguments(run: StudyRun) -> list[str]:
    """What a run is called with: anew, or to go on, from its first step where it came to none."""
    return [f"resume={quoted(run.folder)}"] if run.folder.is_dir() else list(run.overrides)


def _check_same(run: StudyRun) -> None:
    """Raises ConfigError where the run that is there was set otherwise."""
    if not run.folder.is_dir():
        return
    there, wanted = _plain(read_run_config(run.folder)), _plain(run.config)
    for key in sorted({*there, *wanted} - set(_IGNORED)):
        resolved = key == "corpus" and wanted.get(key) == "auto"
        if there.get(key) != wanted.get(key) and not resolved:
            raise ConfigError(
                f"{run.folder} was run with {key}={there.get(key)}, not {wanted.get(key)}; remove "
                "it, or keep this study's runs elsewhere by runs=FOLDER"
            )


def _plain(config: DictConfig) -> dict[str, Any]:
    """Turns a configuration into a dictionary."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain


def _read(file: Path) -> dict[str, Any]:
    """Reads a study's file."""
    try:
        study = OmegaConf.to_container(OmegaConf.load(file))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error}); check the path") from error
    if not isinstance(study, dict) or not {"seeds", "settings"} <= set(study):
        raise ConfigError(f"{file} is no study: it needs seeds and settings")
    plain: dict[str, Any] = {str(key): value for key, value in study.items()}
    return plain


def study_main(
    file: Path,
    overrides: Sequence[str],
    only: Sequence[str] | None,
    seeds: Sequence[int] | None,
    jobs: int,
) -> list[Path]:
    """Plans a study and runs it.

    Returns:
        Folders of all its runs.

    Raises:
        ConfigError: As :func:`plan_study`.
        SpaudioError: If a run has failed.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs must be at least 1; got {jobs}")
    runs = plan_study(file, overrides, only=only, seeds=seeds)
    if failed := run_study(runs, file.parent / "run.py", jobs):
        log = failed[0].folder.with_suffix(".log")
        raise SpaudioError(f"{len(failed)} of {len(runs)} runs failed; see {log}, call again")
    return [run.folder for run in runs]
