"""The models of a run, built from its settings and its best checkpoint."""

from pathlib import Path

from spaudio.errors import CheckpointError
from spaudio.experiment.run_folder import read_run_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.tasks.classification import build_classifier
from spaudio.experiment.tasks.text import build_language_model
from spaudio.model.classifier import Classifier
from spaudio.model.language import LanguageModel
from spaudio.report.filter_plots import filters_of, plot_filters
from spaudio.report.front_end_plots import plot_front_end
from spaudio.train.checkpoint import find_checkpoint, load_model, load_weights


def load_untrained(run: Path) -> Classifier | LanguageModel:
    """Builds the model of a run as it was before training.

    Args:
        run: The run's folder.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    settings = read_run_settings(run)
    if not isinstance(settings, AudioSettings):
        return build_language_model(settings)
    weights = load_weights(find_checkpoint(run / "checkpoints", "best"))
    if "head.1.weight" not in weights:
        raise CheckpointError(f"the checkpoint of {run} is not of the kind of its config.yaml")
    return build_classifier(settings, len(weights["head.1.weight"]))


def load_best(run: Path) -> Classifier | LanguageModel:
    """Builds the model of a run from its best checkpoint, in evaluation mode.

    Args:
        run: The run's folder.

    Raises:
        CheckpointError: If the folder is not a run's, or the weights do not fit its settings.
    """
    model = load_untrained(run)
    load_model(model, find_checkpoint(run / "checkpoints", "best"))
    return model.eval()


def load_classifier(run: Path) -> Classifier:
    """Loads the best model of a run of an audio recipe.

    Raises:
        CheckpointError: As :func:`load_best`, or if the run is one of a text recipe.
    """
    model = load_best(run)
    if not isinstance(model, Classifier):
        raise CheckpointError(f"{run} is a run on text, which classifies no audio")
    return model


def load_language_model(run: Path) -> LanguageModel:
    """Loads the best model of a run of a text recipe.

    Raises:
        CheckpointError: As :func:`load_best`, or if the run is one of an audio recipe.
    """
    model = load_best(run)
    if not isinstance(model, LanguageModel):
        raise CheckpointError(
            f"{run} is a run of a classifier, which predicts no text; name one of a text recipe, "
            "such as recipes/text8"
        )
    return model


def draw_run(run: Path) -> list[Path]:
    """Draws the filters of a run, and its learned front-end, before and after training.

    Args:
        run: The run's folder.

    Returns:
        The figures written into it.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    settings = read_run_settings(run)
    before, after = load_untrained(run), load_best(run)
    seconds = settings.tokens.token_seconds if isinstance(settings, AudioSettings) else None
    drawn = []
    filters = filters_of(before.encoder), filters_of(after.encoder)
    if plot_filters(*filters, run / "filters.png", hop_seconds=seconds):
        drawn.append(run / "filters.png")
    first, last = (getattr(model, "front_end", None) for model in (before, after))
    if first is not None and last is not None:
        plot_front_end(first, last, run / "frontend.png")
        drawn.append(run / "frontend.png")
    return drawn
