"""Scores models on labelled clips: on the test split of their runs, or on a folder."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spaudio.audio.class_folders import read_class_folders
from spaudio.audio.manifest import SPLIT_NAMES
from spaudio.errors import ConfigError, DataError, some
from spaudio.experiment.inputs import Inputs
from spaudio.experiment.run_folder import read_run_settings
from spaudio.inference.ensemble import as_clips, check_models, predict_by_each, weights_of
from spaudio.inference.ensemble_weights import Splits, choose_weights, combine_models
from spaudio.inference.predict import Predictor, bases_for
from spaudio.inference.saved import fetch
from spaudio.io.messages import warn
from spaudio.io.paths import user_path
from spaudio.report.calibration import calibration_error, confidences, reliability
from spaudio.report.probabilities import ClipProbabilities, join_clips, read_probabilities
from spaudio.report.run_files import PROBABILITIES, REPORT, folds_in
from spaudio.report.scores import Scores, score, score_multilabel
from spaudio.report.tables import plus_minus, score_text
from spaudio.training.checkpoint import WEIGHTS

# By the name of the fold, "" if there is none.
Folds = Mapping[str, Splits]


@dataclass(frozen=True)
class Evaluation:
    """Scores of models, as text.

    Args:
        rows: One per model, and one for all of them together if there are several.
        probabilities: What all models together give to the clips of all folds.
        multi_label: Whether a clip may have several classes.
        notes: Where the weights of the models come from.
    """

    rows: list[dict[str, str]]
    probabilities: ClipProbabilities
    multi_label: bool
    notes: list[str]

    def per_class(self) -> list[dict[str, str]]:
        """Returns the scores of each class over all folds, of all models together."""
        titles = (
            {"ap": "average precision", "auc": "AUC"}
            if self.multi_label
            else {"precision": "precision", "recall": "recall", "f1": "F1"}
        )
        scores = _score(self.probabilities, self.multi_label).values["per_class"]
        return [
            {
                "class": name,
                **{title: score_text(found[key]) for key, title in titles.items()},
                "clips": f"{int(found['support']):,}",
            }
            for name, found in scores.items()
        ]


def evaluate(
    models: Sequence[str | os.PathLike[str]], data: Path | None = None, *, base: str | None = None
) -> tuple[Evaluation | None, list[tuple[Path, str]]]:
    """Scores models on their test split or on a folder of clips, each alone and all together.

    Args:
        models: Folders of runs, and of saved models or their ids on the Hugging Face Hub (with
            ``data``) or of runs over all folds (without it).
        data: Folder with one sub-folder of clips per class; if it is divided into ``train`` and
            ``test``, the clips of ``test`` are used. None takes the probabilities that the runs
            have recorded for the clips of their test split.
        base: Folder or Hub id of the models' pretrained encoder, if it has moved.

    Returns:
        The scores, None if no clip can be used; and the unusable clips, each with a reason.

    Raises:
        CheckpointError: If a model is not found or cannot be used.
        ConfigError: If the models' classes differ, a model was trained on the folder or gives a
            clip several labels, or ``base`` has no effect.
        DataError: If the models were tested on different clips, or clips or probabilities cannot be
            read.
    """
    names, folders = [os.fspath(one) for one in models], [fetch(one) for one in models]
    if data is None:
        if base is not None:
            raise ConfigError(f"--base {base} has no effect without --data; leave it out")
        found, kinds = zip(*map(_recorded, folders), strict=True)
        if len(set(kinds)) > 1:
            raise ConfigError(
                "some of the models give a clip one label, others several; evaluate them separately"
            )
        return score_runs(names, found, multi_label=kinds[0]), []
    bases = bases_for(folders, base)
    opened = [Predictor(one, base=own) for one, own in zip(folders, bases, strict=True)]
    weights, note = [1.0], ""
    if len(opened) > 1:
        check_models(opened)
        weights, note = weights_of(opened)
    files, labels = _labelled_files(data, dict(zip(names, opened, strict=True)))
    answers, bad = predict_by_each(opened, files)
    if not answers[0]:
        return None, bad
    label_of = dict(zip(files, labels, strict=True))
    used = [label_of[one.path] for one in answers[0]]
    tests = [[as_clips(predictions, used)] for predictions in answers]
    return score_models(names, tests, [weights], [note], multi_label=False), bad


def _recorded(run: Path) -> tuple[Folds, bool]:
    """Reads the probabilities that a finished run, or a run over all folds, has recorded.

    Returns:
        The probabilities of each split by fold, and whether a clip may have several classes.

    Raises:
        CheckpointError: If there is no run in the folder.
        DataError: If it holds no probabilities.
    """
    found, multi_label = {}, False
    for name, one in (folds_in(run) or {"": run}).items():
        multi_label = Inputs.load(one).multi_label
        if not (one / PROBABILITIES).is_file():
            raise DataError(
                f"{one} holds no {PROBABILITIES}: "
                + (
                    "it is a saved model, or was run by an earlier version; name labelled clips "
                    "with --data DIR, or run the recipe again"
                    if (one / REPORT).is_file() or (one / WEIGHTS).is_file()
                    else f"finish the run with resume={run}"
                )
            )
        found[name] = read_probabilities(one / PROBABILITIES)
        if "test" not in found[name]:
            raise DataError(f"{one / PROBABILITIES} has no test clip; run the recipe again")
    return found, multi_label


def _labelled_files(folder: Path, models: Mapping[str, Predictor]) -> tuple[list[Path], list[str]]:
    """Lists the clips of a folder with one sub-folder per class, and their labels."""
    for name, model in models.items():
        if model.inputs.multi_label:
            raise ConfigError(
                f"--data {folder}: {name} gives a clip several labels, which folders cannot "
                "name; leave the option out to get the scores of its test split"
            )
    if not folder.is_dir():
        raise DataError(f"--data {folder}: no such folder")
    outside = "give the folder of the class folders, or move this clip into one of them"
    found, split_given, notes = read_class_folders(folder, outside)
    for note in notes:
        warn(f"warning: {folder}: {note}")
    clips = [clip for clip in found if not split_given or clip.split == "test"]
    here = folder.resolve()
    paths = [here / clip.path for clip in clips]
    paths = list(dict.fromkeys([*paths, *map(Path.resolve, paths)]))  # with what links name
    for name, model in models.items():
        settings = read_run_settings(model.run)
        source = getattr(settings, "source", None)
        # A table divides the clips in its own way, whatever the names of their folders.
        divided = getattr(settings, "table", None) is None
        # A relative path was one in the folder that the command was run in: here, or above `runs`.
        places = (Path(), *model.run.resolve().parents[2:3])
        inputs = [(place / user_path(str(source))).resolve() for place in places if source]
        if (model.run / WEIGHTS).is_file():
            warn(
                f"warning: {name} is a saved model, which does not say where its training clips "
                f"are, so training clips in {folder} would not be noticed"
            )
        elif inputs and not any(one.exists() for one in inputs):
            warn(
                f"warning: {name} was trained on source={source}, which is not found from "
                f"here, so clips of it in {folder} would not be noticed"
            )
        if any(_trained_on(path, one, divided) for path in paths for one in inputs):
            raise ConfigError(
                f"--data {folder}: {name} was trained on clips of source={source}; leave the "
                "option out to get the scores of its test split, or name other clips"
            )
    first, model = next(iter(models.items()))
    classes = model.inputs.classes
    if unknown := sorted({clip.label for clip in clips} - {*classes}):
        raise DataError(
            f"{folder}: unknown classes: {some(unknown)}; those of {first} are "
            f"{some(classes, 10)}. Rename the folders, or leave them out"
        )
    return [folder / clip.path for clip in clips], [clip.label for clip in clips]


def _trained_on(clip: Path, source: Path, divided: bool) -> bool:
    """Whether a clip may be one that a run was trained on: it is in the run's source.

    Args:
        clip: The file.
        source: The source.
        divided: Whether folders of the source may be its splits, of which ``test`` is not trained
            on.
    """
    if not clip.is_relative_to(source):
        return False
    return not divided or SPLIT_NAMES.get(clip.relative_to(source).parts[0].lower()) != "test"


def score_runs(names: Sequence[str], runs: Sequence[Folds], *, multi_label: bool) -> Evaluation:
    """Scores runs on the probabilities that they have recorded.

    Args:
        names: Names of the runs.
        runs: Their probabilities.
        multi_label: Whether a clip may have several classes.

    Raises:
        ConfigError: If their classes differ.
        DataError: If their folds or clips differ.
    """
    folds = list(runs[0])
    for name, one in zip(names, runs, strict=True):
        if list(one) != folds:
            said = [f"folds {some(list(each))}" if each.keys() != {""} else "no folds"
                    for each in (runs[0], one)]  # fmt: skip
            raise DataError(
                f"{names[0]} has {said[0]}, {name} {said[1]}; name runs of the same folds, or the "
                "folder of one fold of each"
            )
    chosen = [choose_weights([run[fold] for run in runs], multi_label=multi_label)
              for fold in folds]  # fmt: skip
    tests = [[run[fold]["test"] for fold in folds] for run in runs]
    weights, notes = [given for given, _ in chosen], [note for _, note in chosen]
    return score_models(names, tests, weights, notes, multi_label=multi_label)


def score_models(
    names: Sequence[str],
    tests: Sequence[Sequence[ClipProbabilities]],
    weights: Sequence[Sequence[float]],
    notes: Sequence[str],
    *,
    multi_label: bool,
) -> Evaluation:
    """Scores each model, and all of them together if there are several.

    Args:
        names: Names of the models.
        tests: Their probabilities, for each fold.
        weights: For each fold, one per model.
        notes: For each fold, where the weights come from.
        multi_label: Whether a clip may have several classes.

    Raises:
        ConfigError: If their classes differ.
        DataError: If their clips differ.
    """
    rows = [
        {"model": name, **_row(one, multi_label)} for name, one in zip(names, tests, strict=True)
    ]
    together = list(tests[0])
    if len(tests) > 1:
        together = [
            combine_models(each, given, multi_label=multi_label)
            for *each, given in zip(*tests, weights, strict=True)
        ]
        rows.append({"model": "together", **_row(together, multi_label)})
        for i, row in enumerate(rows):
            own = [given[i] for given in weights] if i < len(names) else []
            row["weight"] = plus_minus(own, digits=2) if own else ""
    said = list(dict.fromkeys(notes)) if len(tests) > 1 else []
    return Evaluation(rows, join_clips(together), multi_label, said)


def _row(tests: Sequence[ClipProbabilities], multi_label: bool) -> dict[str, str]:
    """Returns the main scores of a model; mean ± std if there are several folds."""
    scores = [_score(one, multi_label) for one in tests]
    keys = {"mAP": "mAP"} if multi_label else {"accuracy": "accuracy", "macro F1": "macro_f1"}
    row = {
        title: plus_minus([one.values[key] for one in scores], digits=3)
        for title, key in keys.items()
    }
    if not multi_label and len(tests) == 1:
        low, high = scores[0].values["interval"]
        row["95 % interval"] = f"{low:.3f}-{high:.3f}"
    row["calibration error"] = plus_minus(
        [_calibration(one, multi_label) for one in tests], digits=3
    )
    clips = sum(len(one.clips) for one in tests)
    return {**row, "clips": f"{clips:,}" + (f" in {len(tests)} folds" if len(tests) > 1 else "")}


def _score(test: ClipProbabilities, multi_label: bool) -> Scores:
    """Scores the probabilities of one model on one split."""
    function = score_multilabel if multi_label else score
    return function(test.values, test.targets(multi_label=multi_label), test.classes)


def _calibration(test: ClipProbabilities, multi_label: bool) -> float:
    """Returns the expected calibration error."""
    return calibration_error(
        reliability(*confidences(test.values, test.targets(multi_label=multi_label)))
    )
