"""Trains and tests every fold of a dataset, with one report over all."""

from dataclasses import replace
from pathlib import Path

from spaudio.errors import CheckpointError, ConfigError, SpaudioError
from spaudio.experiment.data import AudioData, earlier_corrections, load_data
from spaudio.experiment.inputs import INPUTS, Inputs
from spaudio.experiment.launch import failed_runs, launch_runs
from spaudio.experiment.processes import processes
from spaudio.experiment.run import train_and_report
from spaudio.experiment.run_folder import (
    named_reports,
    open_run_folder,
    read_run_settings,
    refuse_other_settings,
    save_run_settings,
)
from spaudio.experiment.settings import AudioSettings, PretrainedConfig
from spaudio.experiment.tasks.describe import describe_folds
from spaudio.io.lock import locked
from spaudio.io.messages import say
from spaudio.io.plain import read_json
from spaudio.model.pretrained.encoder_source import is_missing
from spaudio.report.figures.report_figures import Figures
from spaudio.report.fold_report import join_folds, write_fold_report
from spaudio.report.page.fold_page import write_fold_page
from spaudio.report.run_files import CONFIG, PAGE, REPORT, fold_folder
from spaudio.report.tables import plus_minus


def refuse_given_fold(settings: AudioSettings) -> None:
    """Refuses a fold beside ``folds=all``."""
    key = settings.fold_by.key
    if (fold := settings.given.get(key)) is not None:
        raise ConfigError(f"folds=all runs every fold; leave {key}={fold} out")


def run_folds(settings: AudioSettings, script: Path, folder: Path | None = None) -> Path:
    """Trains and tests every fold of a recipe and writes a report over all folds.

    ``<runs>/<recipe>/<id>/`` holds an ordinary run ``fold-<name>/`` per fold, and the report over
    all (see :mod:`spaudio.report.fold_report`), which is written last. A second call with the same
    ``run_id`` and settings, or with the folder, continues with the unfinished folds.

    Args:
        settings: Settings of the run; ``fold_by`` says how the recipe chooses a fold.
        script: The recipe's ``run.py``.
        folder: The folder of an earlier call.

    Returns:
        The folder of the run over all folds.

    Raises:
        ConfigError: Under torchrun, if a fold is given, if folds are made by ``split_seed``, or if
            clips may have several classes.
        SpaudioError: If a fold fails, or the data cannot be used.
    """
    if processes() > 1:
        raise ConfigError(
            "folds=all cannot run under torchrun, because it starts its own runs; choose one fold "
            f"with {settings.fold_by.key}=, or use jobs=N without torchrun"
        )
    refuse_given_fold(settings)
    values, key = settings.fold_by.values, settings.fold_by.key
    if key == "split_seed":
        raise ConfigError(
            "folds=all: splits of several seeds share test clips, so they cannot be joined as "
            f"folds; give -m split_seed={','.join(map(str, values))}, and compare the runs with "
            "spaudio compare --over split_seed"
        )
    if folder is None:
        refuse_other_settings(settings)
    # Before any folder is made, so that an error leaves none. All folds use the prepared data.
    data = load_data(settings.with_fold(values[0]), script.parent)
    if data.multi_label:
        raise ConfigError(
            f"folds=all joins accuracies, but clips of {settings.recipe} have several classes; run "
            f"each fold with {key}="
        )
    corrected = earlier_corrections(settings)  # the file may be written anew from the page
    folder = folder or open_run_folder(settings)
    say(f"folds: {folder}")
    with locked(folder / "lock", f"waiting for another process that runs the folds of {folder}"):
        runs = {}
        for value in values:
            path = folder / fold_folder(value)
            one = replace(
                settings.with_fold(value),
                runs=str(folder.parent.parent),
                run_id=f"{folder.name}/{path.name}",
                jobs=1,
            )
            if (path / CONFIG).is_file():
                _follow_encoder(path, one)
            if (path / INPUTS).is_file():
                _refuse_other_samples(path, data, key)
            runs[str(value)] = open_run_folder(one, path)
        remedy = f"resume={folder}"
        failed = launch_runs(
            dict.fromkeys(runs.values(), script),
            train_and_report,
            jobs=settings.jobs,
            cluster=settings.cluster,
            cluster_options=settings.cluster_options,
            remedy=remedy,
        )
        if failed:
            raise SpaudioError(failed_runs(failed, len(runs), remedy))
        for path in runs.values():  # the data may have changed between two folds
            _refuse_other_samples(path, data, key)

        folds, figures = join_folds(runs), Figures(folder)

        def write_page(_: Path) -> None:
            write_fold_page(
                folder,
                runs,
                folds,
                root=data.root,
                highest=max(clip.sample_rate for clip in data.clips) / 2,
                settings=settings.as_dict(),
                description=describe_folds(settings, data, folds.report),
                corrected=corrected,
            )

        if settings.page:
            figures.attempt(PAGE, write_page)
        write_fold_report(folder, folds, figures)
    accuracy, floor = (
        plus_minus([row[key] for row in folds.report["folds"]]) for key in ("accuracy", "svm")
    )
    say(
        f"test accuracy over {len(runs)} folds {accuracy}; classical floor {floor}; majority class "
        f"{folds.report['floor']['majority']:.4f}\nreport: {named_reports(folder)}"
    )
    return folder


def _follow_encoder(run: Path, settings: AudioSettings) -> None:
    """Writes the new folder of a local encoder that has moved into the settings of a fold.

    Checkpoints, and joining the folds, check by its hash that it is the same encoder.
    """
    there = read_run_settings(run)
    if not isinstance(there.model, PretrainedConfig) or not is_missing(str(there.model.source)):
        return
    if isinstance(settings.model, PretrainedConfig):
        there.model.source = settings.model.source
        save_run_settings(run, there)


def _refuse_other_samples(run: Path, data: AudioData, key: str) -> None:
    """Checks that a fold was begun on the data as they are now.

    Runs that differ in ``fold`` have the same manifest, which has the fold of each clip. By another
    setting, such as a speaker, each has splits of its own.

    Raises:
        CheckpointError: If classes, samples or folds have changed, or the labels of a finished
            fold.
    """
    before, labels, now = Inputs.load(run), None, data.prepared
    if (run / REPORT).is_file():  # a fold that is not finished checks its manifest
        try:
            labels = read_json(run / REPORT).get("labels_sha256")  # not in older reports
        except (ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{run / REPORT} is damaged ({error}); move {run} away to train this fold again"
            ) from error
    changed = (before.classes, before.samples_hash) != (data.classes, now.samples_hash)
    changed |= key == "fold" and before.manifest_hash != now.hash
    if changed or labels not in (None, now.labels_hash):
        raise CheckpointError(
            f"the data have changed since {run} began, so its results cannot be joined with those "
            "of other folds. Restore the data, or start a new run"
        )
