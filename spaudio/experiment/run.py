"""One run: data, model, training, measurement, report."""

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from torch.utils.data import DataLoader

from spaudio.errors import CheckpointError
from spaudio.experiment.processes import (
    is_first_process,
    make_accelerator,
    processes,
    share_run_folder,
)
from spaudio.experiment.run_folder import differences, named_reports, refuse_taken
from spaudio.experiment.schemas import read_settings
from spaudio.experiment.settings import NEUTRAL_SETTINGS, Settings
from spaudio.experiment.tasks import open_task
from spaudio.experiment.tasks.task import Task
from spaudio.filters import describe
from spaudio.io.full_disk import named_full_disk
from spaudio.io.messages import say, warn
from spaudio.io.plain import read_yaml
from spaudio.io.progress import progress_bar
from spaudio.model.classifier import count_parameters
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.provenance import join_commits, provenance
from spaudio.report.run_files import CONFIG, REPORT
from spaudio.training.checkpoint import (
    CHECKPOINTS,
    PRETRAINING,
    TRAINING,
    Stage,
    epoch_of,
    find_checkpoint,
    has_checkpoint,
    load_model,
)
from spaudio.training.loop import FitResult, TrainingRun, exclusive
from spaudio.training.shards import shard_batches

# Kept with the settings in each checkpoint.
DATA_HASH = "data_sha256"
PRECISION = "precision"  # which trainer.precision=auto has chosen
THREADS = "threads"
PROCESSES = "processes"
COMMIT = "git_commit"
TORCH = "torch"


def train_and_report(settings: Settings, script: Path, run: Path | None = None) -> Path:
    """Trains a model, measures it and writes its report.

    Args:
        settings: Settings of the run.
        script: The recipe's ``run.py``.
        run: Its folder, if it exists: the run is continued.

    Returns:
        The run's folder.

    Raises:
        SpaudioError: If the data, the settings or the machine prevent the run.
    """
    first = is_first_process()
    if run is not None and (run / REPORT).is_file():
        return _finished(run, first)
    if run is None:
        refuse_taken(settings)
    start = time.perf_counter()
    accelerator = make_accelerator(settings.trainer)
    with (
        named_full_disk(Path(settings.data), "data"),
        accelerator.main_process_first(),  # the others reuse what the first prepares
    ):
        task = open_task(settings, script.parent)
    model = task.build_model()
    untrained = copy.deepcopy(model)
    begun = [] if run is None else _begun(run)
    made_by = provenance()
    if begun and run is not None:
        before = _check_resumed(run, begun[-1], settings, task, accelerator, made_by)
        made_by[COMMIT] = join_commits([before.get(COMMIT), made_by[COMMIT]])
    run = run or share_run_folder(settings, accelerator)
    if first:
        say(f"run: {run}")
        for message in task.messages(model):
            warn(message)
    with exclusive(run, accelerator), _told_how_to_continue(run):
        if (run / REPORT).is_file():  # another process has finished it in the meantime
            return _finished(run, first)
        if _begun(run) != begun:
            raise CheckpointError(f"another process has continued {run}; repeat the command")
        if accelerator.is_main_process:
            task.begin(run)
        prepare_seconds = time.perf_counter() - start
        config = _kept_settings(settings, task.data_hash, accelerator, made_by)
        result = task.fit(model, TrainingRun(run, config, accelerator, resume=TRAINING in begun))
        # In float32 from here on, as in prediction, whatever the precision of training was.
        model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        best = find_checkpoint(run / CHECKPOINTS, TRAINING.best)
        load_model(model, best)
        # If the checkpoint of the best epoch is damaged, an earlier one has been found.
        result = replace(result, best_epoch=epoch_of(best))
        start = time.perf_counter()
        measured = result.measured | {
            name: task.objective.measure(model, _batches(loader, accelerator, name), accelerator)
            for name, loader in task.final.items()
            if name not in result.measured
        }
        seconds = {
            "prepare": prepare_seconds,
            "train": result.seconds,
            "test": time.perf_counter() - start,
        }
        if accelerator.is_main_process:
            facts = _facts(settings, model, result, task.token_seconds)
            facts |= {"precision": accelerator.mixed_precision, "seconds": seconds, **made_by}
            facts |= task.facts(model, measured)
            summary = task.write(run, untrained, model.eval(), facts, measured)
            say(summary)
            say(f"report: {named_reports(run)}")
    accelerator.wait_for_everyone()  # no process exits while another still writes or measures
    accelerator.end_training()
    return run


@contextmanager
def _told_how_to_continue(run: Path) -> Iterator[None]:
    """Says how a run that is stopped by Ctrl-C is continued, in training or after it."""
    try:
        yield
    except KeyboardInterrupt:
        text = "stopped; the last checkpoint is kept" if _begun(run) else "stopped"
        if is_first_process():
            say(f"{text}. Continue with resume={run}")
        raise


def _begun(run: Path) -> list[Stage]:
    """Returns the stages of a run that have a checkpoint, in their order."""
    return [s for s in (PRETRAINING, TRAINING) if has_checkpoint(run / CHECKPOINTS, s.last)]


def _check_resumed(
    run: Path,
    stage: Stage,
    settings: Settings,
    task: Task,
    accelerator: Accelerator,
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Checks that a run can go on from its last checkpoint, and warns of what differs.

    Args:
        run: The run's folder.
        stage: The last stage that has a checkpoint.
        settings: The run's settings.
        task: Its task.
        accelerator: The accelerator of this process.
        made_by: What continues it, see :func:`provenance`.

    Returns:
        What the checkpoint holds besides weights and state: see ``_kept_settings``.

    Raises:
        CheckpointError: If the data, or a setting that changes results, were changed.
    """
    task.check_resumed(run)
    kept: dict[str, Any] = read_yaml(find_checkpoint(run / CHECKPOINTS, stage.last) / "config.yaml")
    _check_unchanged(run, settings, task.data_hash, kept)
    if is_first_process():
        _warn_of_changes(run, settings, accelerator, kept, made_by["versions"]["torch"])
    return kept


def _kept_settings(
    settings: Settings, data_hash: str, accelerator: Accelerator, made_by: Mapping[str, Any]
) -> str:
    """Returns the settings, and what else decides results, as YAML for the checkpoints."""
    facts = {
        DATA_HASH: data_hash,
        PRECISION: accelerator.mixed_precision,
        THREADS: torch.get_num_threads(),
        PROCESSES: processes(),
        COMMIT: made_by[COMMIT],
        TORCH: made_by["versions"]["torch"],
    }
    text: str = yaml.safe_dump(settings.as_dict() | facts, sort_keys=False)
    return text


def _check_unchanged(
    run: Path, settings: Settings, data_hash: str, kept: Mapping[str, Any]
) -> None:
    """Checks that data and settings of a run are those of its checkpoint.

    Args:
        run: The run's folder.
        settings: Its settings.
        data_hash: Hash of its data.
        kept: The content of ``config.yaml`` in the checkpoint.

    Raises:
        CheckpointError: If the data, or a setting that changes results, were changed.
    """
    if kept.get(DATA_HASH) != data_hash:
        text = getattr(settings, "corpus", None)
        what = "other data" if text is None else f"another text than corpus={text} is now"
        raise CheckpointError(
            f"the checkpoints of {run} were trained on {what}; restore the data, or start a new run"
        )
    facts = (DATA_HASH, PRECISION, THREADS, PROCESSES, COMMIT, TORCH)
    before = read_settings({key: value for key, value in kept.items() if key not in facts})
    for name, (value, now) in differences(before, settings).items():
        if name not in NEUTRAL_SETTINGS:
            raise CheckpointError(
                f"{run / CONFIG} has {name}={now}, but the run was trained with {name}={value} so "
                "far; restore this value, or start a new run"
            )


def _warn_of_changes(
    run: Path, settings: Settings, accelerator: Accelerator, kept: Mapping[str, Any], torch_now: str
) -> None:
    """Warns if a resumed run continues with other threads, processes, precision or torch."""
    if (torch_then := kept.get(TORCH, torch_now)) != torch_now:
        warn(
            f"{run} was trained with torch {torch_then} so far and continues with {torch_now}; its "
            "results may differ from those of an uninterrupted run"
        )
    before, now = kept[THREADS], torch.get_num_threads()
    if accelerator.device.type == "cpu" and before != now:
        warn(
            f"{run} was trained on {before} threads so far and continues on {now}; its results may "
            "differ in the last digits from those of an uninterrupted run. "
            f"OMP_NUM_THREADS={before} keeps the number"
        )
    if (started := kept.get(PROCESSES, processes())) != processes():
        warn(
            f"{run} was trained in {started} processes so far and continues in {processes()}; its "
            "results will differ from those of an uninterrupted run, as each process mixes its own "
            "clips and draws its own dropout"
        )
    precision = kept[PRECISION]
    if precision != accelerator.mixed_precision:
        warn(
            f"{run} was trained with trainer.precision={precision} so far; it continues with "
            f"trainer.precision={accelerator.mixed_precision}, which "
            f"trainer.precision={settings.trainer.precision} selects on this machine"
        )


def _finished(run: Path, first: bool) -> Path:
    """Names the report of a run that is finished already, in the first process; returns the run."""
    if first:
        say(f"{run} is finished; its report is {named_reports(run)}")
    return run


def _batches(loader: DataLoader[Any], accelerator: Accelerator, name: str) -> Iterator[Any]:
    """Yields this process's share of the batches of a split, under a progress bar."""
    shard = shard_batches(loader, accelerator)
    with progress_bar(name, len(shard), show=accelerator.is_main_process) as advance:
        for batch in shard:
            yield batch
            advance(1)


def _facts(
    settings: Settings,
    model: AnyClassifier | LanguageModel,
    result: FitResult,
    token_seconds: float | None,
) -> dict[str, Any]:
    """Returns what ``report.json`` says about every run."""
    filters = model.token_filters()
    return {
        "recipe": settings.recipe,
        "filter": settings.filter_options,
        "filters": [
            f"filter in layer {layer}: {describe(f, token_seconds)}" for layer, f in filters.items()
        ],
        "seed": settings.seed,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "processes": processes(),
        "num_params": count_parameters(model),
        "filter_params": sum(f.num_parameters for f in filters.values()),
        "tokens_per_second": result.tokens_per_second,
        "step_seconds": result.step_seconds,
        "data_wait": result.data_wait,
    }
