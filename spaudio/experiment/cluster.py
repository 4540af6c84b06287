"""Runs as jobs of a cluster, which submitit submits and waits for."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spaudio.errors import ConfigError, SpaudioError, first_line, how_to_install, some
from spaudio.experiment.run_folder import OUTPUT
from spaudio.io.atomic import write_atomic
from spaudio.io.lock import claimed, locked, wait_for
from spaudio.io.messages import say
from spaudio.report.run_files import REPORT

JOB = "job.txt"  # number of the SLURM job of a run, until the job has ended
_TAIL = 2**16  # bytes of a job's output that are copied to the run


def run_on_cluster(
    commands: Mapping[Path, Sequence[str]], cluster: str, options: Mapping[str, Any], remedy: str
) -> None:
    """Executes runs as jobs, and waits until all have ended.

    If a job that an earlier command submitted for a run has not ended, the run is not submitted
    again. Such jobs are named in a message, and waited for like the others.

    Args:
        commands: The command that executes each run, by the run's folder.
        cluster: ``"slurm"`` or ``"local"``. The jobs of the latter do not queue.
        options: Parameters of submitit's ``AutoExecutor``; ``timeout_min`` is required.
        remedy: What continues the runs, for messages.

    Raises:
        ConfigError: If submitit is missing, or the options are wrong.
        SpaudioError: If a job cannot be submitted; those submitted before continue.
        KeyboardInterrupt: On Ctrl-C; submitted jobs continue.
    """
    folder = next(iter(commands)).parent / ".submitit"  # hidden: it is no run
    executor, helpers = _open_executor(folder, cluster, options)
    jobs: dict[Path, Any] = {}
    try:
        with locked(folder / "lock"):  # the same command at the same time finds these jobs
            jobs |= _earlier_jobs(commands, folder)
            for run, command in commands.items():
                if run in jobs or _is_claimed(run):
                    continue
                jobs[run] = job = executor.submit(helpers.CommandFunction(list(command)))
                if cluster == "slurm":
                    write_atomic(run / JOB, job.job_id.encode())
        for run, job in jobs.items():
            job.wait()
            errors = job.paths.stderr
            said = errors.read_bytes()[-_TAIL:] if errors.is_file() else b""
            last = said.strip().rpartition(b"\n")[2]
            if not (run / REPORT).is_file() and b"error: " not in last:
                # A job that was cancelled or killed does not say why.
                said += f"job {job.job_id}: {job.state}\n".encode()
            (run / OUTPUT).write_bytes(said)
            if _job_number(run) == job.job_id:
                (run / JOB).unlink(missing_ok=True)
        while left := [run for run in commands if _is_claimed(run)]:
            wait_for(left[0], f"waiting for the job that trains {left[0]}")
    except (RuntimeError, OSError) as error:  # as submitit raises them if a job is refused
        raise SpaudioError(
            f"cluster={cluster}: {first_line(error)}. {_going_on(jobs)}continue with {remedy}"
        ) from error
    except KeyboardInterrupt:
        say(f"no longer waiting. {_going_on(jobs)}continue with {remedy}")
        raise


def _open_executor(folder: Path, cluster: str, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns what submits jobs, and submitit's helpers.

    Raises:
        ConfigError: If submitit is missing, or the options are wrong.
    """
    try:
        from submitit import AutoExecutor, helpers
    except ImportError as error:
        raise ConfigError(f"cluster= needs submitit: {how_to_install('submitit')}") from error
    try:
        executor = AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options)
    except (NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"cluster={cluster} cluster_options={dict(options)}: {first_line(error)}"
        ) from error
    return executor, helpers


def _earlier_jobs(runs: Iterable[Path], folder: Path) -> dict[Path, Any]:
    """Returns the SLURM jobs of earlier commands that have not ended, and names them."""
    from submitit import SlurmJob

    known: dict[Path, Any] = {
        run: SlurmJob(folder, number) for run in runs if (number := _job_number(run))
    }
    going = {run: job for run, job in known.items() if not job.done()}
    if going:
        states = {job.job_id: job.state for job in going.values()}
        named = some([f"{number} ({state})" for number, state in states.items()])
        say(f"jobs of an earlier command go on, and are not submitted again: {named}")
        for run, job in going.items():
            if states[job.job_id] == "UNKNOWN":  # as after the cluster has forgotten it
                say(f"if squeue does not list job {job.job_id}, remove {run / JOB} and repeat this")
    return going


def _job_number(run: Path) -> str | None:
    """Returns the number of a run's job, if it has one."""
    try:
        text = (run / JOB).read_text("ascii", "replace")
    except FileNotFoundError:
        return None
    return text if text.isdecimal() else None


def _is_claimed(run: Path) -> bool:
    """Whether another process trains a run."""
    try:
        with claimed(run):
            return False
    except SpaudioError:
        return True


def _going_on(jobs: Mapping[Path, Any]) -> str:
    """Returns the start of a message that lists the jobs still running."""
    names = ", ".join(str(job.job_id) for job in jobs.values())
    return f"These jobs go on: {names}. To wait for them again, " if names else "To continue, "
