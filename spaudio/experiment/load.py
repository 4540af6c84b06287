"""Builds the models of a run from its settings and its best checkpoint."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from spaudio.audio.prepare import MARKER
from spaudio.errors import CheckpointError, SpaudioError
from spaudio.experiment.data import load_data
from spaudio.experiment.encoders import build_adapted
from spaudio.experiment.recipes import data_prep_folder, recipes_folder
from spaudio.experiment.run_folder import REPORT, read_run_settings
from spaudio.experiment.settings import AudioSettings, PretrainedConfig
from spaudio.experiment.tasks.classification import build_classifier
from spaudio.experiment.tasks.task import named_sizes
from spaudio.experiment.tasks.text import build_language_model
from spaudio.filters import TokenFilter
from spaudio.model.classifier import Classifier
from spaudio.model.language import LanguageModel
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.pretrained_encoder import PretrainedEncoder
from spaudio.report.filter_plots import filters_of, plot_filters
from spaudio.report.front_end_plots import plot_front_end
from spaudio.report.modulation_plot import draw_modulations
from spaudio.training.checkpoint import WEIGHTS, find_checkpoint, load_model, load_weights


def load_untrained(
    run: Path, base: PretrainedEncoder | None = None
) -> Classifier | AdaptedClassifier | LanguageModel:
    """Builds the model of a run as it was before training.

    Args:
        run: The run's folder.
        base: Its pretrained encoder, which is copied; None loads it, if there is one.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    settings = read_run_settings(run)
    if not isinstance(settings, AudioSettings):
        with named_sizes():
            return build_language_model(settings)
    weights = load_weights(weights_folder(run))
    if isinstance(settings.model, PretrainedConfig) and "head.linear.weight" in weights:
        return build_adapted(settings, len(weights["head.linear.weight"]), base)
    if "head.1.weight" not in weights:
        raise CheckpointError(f"the checkpoint of {run} is not of the kind of its config.yaml")
    with named_sizes():
        return build_classifier(settings, len(weights["head.1.weight"]))


def load_best(
    run: Path, base: PretrainedEncoder | None = None
) -> Classifier | AdaptedClassifier | LanguageModel:
    """Builds the model of a run from its best checkpoint, in evaluation mode.

    Prints a warning if the run is not finished.

    Args:
        run: The run's folder.
        base: As in :func:`load_untrained`.

    Raises:
        CheckpointError: If the folder is not a run's, it has no model yet, or the weights do not
            fit its settings.
    """
    _tell_unfinished(run)
    model = load_untrained(run, base)
    load_model(model, weights_folder(run))
    return model.eval()


def weights_folder(run: Path) -> Path:
    """Returns the folder of the best weights: the newest good checkpoint, or a saved model itself.

    Raises:
        CheckpointError: If there are none.
    """
    if (run / WEIGHTS).is_file():
        return run
    return find_checkpoint(run / "checkpoints", "best")


def _tell_unfinished(run: Path) -> None:
    """Warns that a run is not finished, on the terminal.

    Raises:
        CheckpointError: If it has no checkpoint yet.
    """
    read_run_settings(run)
    if (run / REPORT).is_file():
        return
    go_on = f"run its recipe with resume={run}"
    if not any((run / "checkpoints").glob("best-*")):
        raise CheckpointError(f"{run} is not finished and holds no trained model; {go_on}")
    Console(stderr=True).print(
        f"warning: {run} is not finished; its best model so far is used. To finish it, {go_on}",
        style="yellow", soft_wrap=True, markup=False, highlight=False,
    )  # fmt: skip


def load_classifier(
    run: Path, base: PretrainedEncoder | None = None
) -> Classifier | AdaptedClassifier:
    """Loads the best model of a run of an audio recipe; arguments as in :func:`load_best`.

    Raises:
        CheckpointError: As in :func:`load_best`, or if it is a run of a text recipe.
    """
    model = load_best(run, base)
    if not isinstance(model, Classifier | AdaptedClassifier):
        raise CheckpointError(f"{run} is a run on text, which classifies no audio")
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


def draw_run(run: Path) -> tuple[list[Path], list[str]]:
    """Draws the filters of a run, and its learned front-end, before and after training.

    If its data are prepared, the responses of the kernels are also compared with the modulation
    spectrum of the training clips.

    Args:
        run: The run's folder.

    Returns:
        Paths of the figures, and lines with findings about them.

    Raises:
        CheckpointError: If the folder is not a run's.
    """
    settings = read_run_settings(run)
    after, before = load_best(run), load_untrained(run)
    seconds = settings.tokens.token_seconds if isinstance(settings, AudioSettings) else None
    drawn: list[Path] = []
    said: list[str] = []
    filters = filters_of(before.encoder), filters_of(after.encoder)
    if plot_filters(*filters, run / "filters.png", hop_seconds=seconds):
        drawn.append(run / "filters.png")
        if isinstance(settings, AudioSettings) and settings.tokens.front_end == "spectrogram":
            figure, said = _draw_modulations(run, settings, *filters)
            drawn += figure
    first, last = (getattr(model, "front_end", None) for model in (before, after))
    if first is not None and last is not None:
        plot_front_end(first, last, run / "frontend.png")
        drawn.append(run / "frontend.png")
    return drawn, said


def _draw_modulations(
    run: Path,
    settings: AudioSettings,
    before: Mapping[str, TokenFilter],
    after: Mapping[str, TokenFilter],
) -> tuple[list[Path], list[str]]:
    """Draws the responses of kernels against the modulation spectrum of the training clips."""
    recipe = recipes_folder() / settings.recipe
    prepared = any((Path(settings.data) / settings.recipe).glob(f"*/{MARKER}"))
    if not prepared or not recipe.is_dir():
        return [], [
            f"no modulation.png: the data of {settings.recipe} are not prepared in {settings.data}"
        ]
    try:
        train = load_data(settings, data_prep_folder(recipe)).train
    except SpaudioError as error:
        return [], [f"no modulation.png: {error}"]
    figure = run / "modulation.png"
    layers = draw_modulations(train, settings.tokens, before, after, figure)
    return [figure], [str(layer) for layer in layers]
