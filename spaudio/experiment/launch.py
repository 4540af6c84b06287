"""Launches the runs of a sweep, of all folds of a dataset, or of a study.

They are given as folders with settings, of which ``jobs`` run at a time. A second call skips
finished runs and resumes interrupted ones. If the launching process ends, so do its runs, but not
jobs that it has submitted to a cluster.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from spaudio.errors import SpaudioError
from spaudio.experiment.cluster import run_on_cluster
from spaudio.experiment.compose import quoted
from spaudio.experiment.run_folder import OUTPUT, named_reports, read_run_settings
from spaudio.experiment.settings import Settings
from spaudio.io.escape import printable_error
from spaudio.io.lock import claimed
from spaudio.io.messages import say
from spaudio.io.parent import REPEAT, with_parent
from spaudio.report.run_files import REPORT


def launch_runs(
    runs: Mapping[Path, Path],
    start: Callable[[Settings, Path, Path], object],
    *,
    jobs: int = 1,
    cluster: str | None = None,
    cluster_options: Mapping[str, Any] | None = None,
    remedy: str = "the same command",
) -> list[Path]:
    """Executes the unfinished runs; a failed run does not stop the others.

    Args:
        runs: Folders of runs, which contain their settings, each with the ``run.py`` of its recipe.
        start: Executes a run in this process: ``execute_run``, or ``train_and_report`` for runs
            that are not over folds. It is called with the run's settings, the ``run.py`` of its
            recipe, and its folder.
        jobs: Number of parallel runs. One job runs in this process; several jobs have their own
            processes and share the threads.
        cluster: ``"slurm"`` or ``"local"``: submit the runs with submitit instead.
        cluster_options: Parameters of submitit's ``AutoExecutor``; ``timeout_min`` is required.
        remedy: What continues the runs, for messages, such as ``resume=RUN``.

    Returns:
        The runs that failed.

    Raises:
        ConfigError: If the options of the cluster are wrong.
        SpaudioError: If a job cannot be submitted; those submitted before continue.
        KeyboardInterrupt: After every run has stopped and kept its last checkpoint; submitted
            jobs continue.
    """
    left = {run: script for run, script in runs.items() if not (run / REPORT).is_file()}
    if len(left) < len(runs):
        say(f"{len(runs)} runs, of which {len(runs) - len(left)} are finished")
    for run in left:
        with contextlib.suppress(SpaudioError), claimed(run):  # unless another process runs it
            (run / OUTPUT).unlink(missing_ok=True)  # the reason of an earlier failure
    if cluster is not None and left:
        commands = {run: _command(run, script) for run, script in left.items()}
        run_on_cluster(commands, cluster, cluster_options or {}, remedy)
    else:
        try:
            if jobs > 1:
                _beside(left, jobs)
            else:
                for run, script in left.items():
                    _here(start, run, script)
        except KeyboardInterrupt:
            say(f"stopped; finished runs are kept. Continue with {remedy}")
            raise
    return [run for run in runs if not (run / REPORT).is_file()]


def _here(start: Callable[[Settings, Path, Path], object], run: Path, script: Path) -> None:
    try:
        start(read_run_settings(run), script, run)
    except (SpaudioError, OSError) as error:
        say(f"error: {printable_error(error)}", "red")
    except Exception:  # whatever it is, the other runs may work
        with (run / OUTPUT).open("a", encoding="utf-8") as output:
            traceback.print_exc(file=output)
        say(f"FAILED: {run / OUTPUT}")


def _beside(runs: Mapping[Path, Path], jobs: int) -> None:
    threads = str(max(1, torch.get_num_threads() // jobs))
    environment = with_parent({"OMP_NUM_THREADS": threads, **os.environ})
    running: list[subprocess.Popen[bytes]] = []
    stopped, starting = threading.Event(), threading.Lock()

    def one(run: Path) -> None:
        with starting, (run / OUTPUT).open("ab") as output:
            if stopped.is_set():
                return
            # In its own process group, so that Ctrl-C reaches it via `_interrupt` only.
            process = subprocess.Popen(
                _command(run, runs[run]),
                env=environment, stdout=output, stderr=output, process_group=0,
            )  # fmt: skip
            running.append(process)
        code = process.wait()
        if not stopped.is_set():
            if code < 0:  # otherwise its last line would be taken for the reason
                with (run / OUTPUT).open("a", encoding="utf-8") as output:
                    output.write(f"\n{_killed(-code)}\n")
            done = (run / REPORT).is_file()
            said = named_reports(run) if done else run / OUTPUT
            say(f"{'finished' if done else 'FAILED'}: {said}")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(one, runs))
        finally:
            with starting:
                stopped.set()
            _interrupt(running)


def _killed(number: int) -> str:
    """Says which signal has ended a process."""
    hint = "; memory may have run out" if number == signal.SIGKILL else ""
    return f"the process was ended by {signal.Signals(number).name}{hint}"


def _interrupt(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Passes Ctrl-C on until every process has ended."""
    while left := [process for process in running if process.poll() is None]:
        for process in left:
            process.send_signal(signal.SIGINT)
        end = time.monotonic() + REPEAT
        for process in left:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))


def _command(run: Path, script: Path) -> list[str]:
    return [sys.executable, str(script), f"resume={quoted(run)}"]


def failed_runs(failed: Sequence[Path], total: int, remedy: str) -> str:
    """Returns a message with the failed runs, the output of the last one, and how to continue."""
    output = failed[-1] / OUTPUT
    lines = output.read_text("utf-8", "replace").strip().splitlines() if output.is_file() else []
    said = f" ({lines[-1]}; see {output})" if lines else ""
    return f"{len(failed)} of {total} runs failed: {failed[-1]}{said}; continue with {remedy}"
