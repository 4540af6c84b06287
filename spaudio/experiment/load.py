"""Builds the models of a run from its settings and its best checkpoint."""

from pathlib import Path

from spaudio.errors import CheckpointError
from spaudio.experiment.build import build_adapted, build_classifier, build_language_model
from spaudio.experiment.run_folder import read_run_settings, refuse_folds
from spaudio.experiment.settings import AudioSettings, PretrainedConfig, Settings, TextSettings
from spaudio.io.messages import warn
from spaudio.io.plain import read_json
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AnyClassifier, check_base
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.report.run_files import REPORT
from spaudio.training.checkpoint import (
    CHECKPOINTS,
    HASHES,
    TRAINING,
    WEIGHTS,
    epoch_of,
    find_checkpoint,
    has_checkpoint,
    load_model,
    load_weights,
)


def load_untrained(
    run: Path, base: PretrainedEncoder | None = None
) -> AnyClassifier | LanguageModel:
    """Builds the model of a run as it was before training.

    Args:
        run: The run's folder.
        base: Its pretrained encoder, which is copied; None loads it, if there is one.

    Raises:
        CheckpointError: If the folder is not a run's, or ``base`` is another encoder than that of
            its weights.
    """
    return _build(read_run_settings(run), run, base)


def _build(
    settings: Settings, run: Path, base: PretrainedEncoder | None
) -> AnyClassifier | LanguageModel:
    """Builds the model of :func:`load_untrained`."""
    if isinstance(settings, TextSettings):
        return build_language_model(settings)
    assert isinstance(settings, AudioSettings)
    weights = load_weights(weights_folder(run))
    if isinstance(settings.model, PretrainedConfig) and "head.linear.weight" in weights:
        if base is not None:  # before its layers are adapted, which may not be possible
            check_base(weights.get("base_hash"), base)
        return build_adapted(settings, len(weights["head.linear.weight"]), base)
    if "head.1.weight" not in weights:
        raise CheckpointError(
            f"the checkpoint of {run} does not match its config.yaml; restore the config.yaml that "
            "the run wrote"
        )
    return build_classifier(settings, len(weights["head.1.weight"]))


def load_best(run: Path, base: PretrainedEncoder | None = None) -> AnyClassifier | LanguageModel:
    """Builds the model of a run from its best checkpoint, in evaluation mode.

    Prints a warning if the run is not finished.

    Args:
        run: The run's folder.
        base: As in :func:`load_untrained`.

    Raises:
        CheckpointError: If the folder is not a run's, it has no model yet, or the weights do not
            fit its settings.
    """
    settings = read_run_settings(run)
    _tell_unfinished(run)
    model = _build(settings, run, base)
    load_model(model, weights_folder(run))
    return model.eval()


def weights_folder(run: Path) -> Path:
    """Returns the folder of the best weights: a checkpoint of the run, or a saved model itself.

    Of a finished run, it is the checkpoint that its report has measured, else the newest good one.

    Raises:
        CheckpointError: If there are none, or they are not those that a finished run has measured.
    """
    if (run / WEIGHTS).is_file():
        return run
    refuse_folds(run)
    if (run / REPORT).is_file() and not (run / CHECKPOINTS).is_dir():
        raise CheckpointError(
            f"{run} holds neither {WEIGHTS}, as a saved model, nor {CHECKPOINTS}, as a run; fetch "
            "or save the model again"
        )
    measured = _measured_epoch(run)
    found = find_checkpoint(run / CHECKPOINTS, TRAINING.best, measured)
    if measured not in (None, epoch_of(found)):
        raise CheckpointError(
            f"{run}: the checkpoint of epoch {measured}, whose scores {REPORT} has, is missing or "
            f"damaged. Restore that of epoch {measured}; or remove {REPORT} and run the recipe "
            f"with resume={run}, which measures that of epoch {epoch_of(found)}"
        )
    return found


def _measured_epoch(run: Path) -> int | None:
    """Returns the epoch of the model that a finished run has measured; None if it is not known."""
    try:
        epoch: int | None = read_json(run / REPORT).get("best_epoch")
    except (OSError, ValueError, AttributeError):  # not finished, or the report is damaged
        return None
    return epoch


def _tell_unfinished(run: Path) -> None:
    """Warns that a run is not finished, on the terminal.

    Raises:
        CheckpointError: If it has no checkpoint yet, or a file of a saved model is missing.
    """
    if (run / REPORT).is_file():
        return
    if (run / HASHES).is_file():
        raise CheckpointError(f"{run} is a checkpoint; name its run, {run.resolve().parents[1]}")
    if (run / WEIGHTS).is_file():
        raise CheckpointError(
            f"{run} is a saved model, but its {REPORT} is missing; fetch or save the model again"
        )
    go_on = f"run its recipe with resume={run}"
    if not has_checkpoint(run / CHECKPOINTS, TRAINING.best):
        raise CheckpointError(f"{run} is not finished and holds no trained model; {go_on}")
    warn(f"warning: {run} is not finished; its best model so far is used. To finish it, {go_on}")


def load_classifier(run: Path, base: PretrainedEncoder | None = None) -> AnyClassifier:
    """Loads the best model of a run of an audio recipe; arguments as in :func:`load_best`.

    Raises:
        CheckpointError: As in :func:`load_best`, or if it is a run of a text recipe.
    """
    model = load_best(run, base)
    if not isinstance(model, AnyClassifier):
        raise CheckpointError(
            f"{run} is a run on text, which does not classify audio; name a run of an audio recipe"
        )
    return model


def load_language_model(run: Path) -> LanguageModel:
    """Loads the best model of a run of a text recipe.

    Raises:
        CheckpointError: As in :func:`load_best`, or if it is a run of an audio recipe.
    """
    model = load_best(run)
    if not isinstance(model, LanguageModel):
        raise CheckpointError(
            f"{run} is a run of a classifier, which predicts no text; name one of a text recipe, "
            "such as recipes/text8"
        )
    return model
