"""Draws the filters of a finished run, and compares them with the modulations of its clips."""

from collections.abc import Mapping
from pathlib import Path

from spaudio.audio.prepare import MARKER
from spaudio.errors import SpaudioError
from spaudio.experiment.data import load_data
from spaudio.experiment.encoders import check_source
from spaudio.experiment.load import load_best, load_untrained
from spaudio.experiment.recipes import recipes_folder
from spaudio.experiment.run_folder import data_folder_of, read_run_settings
from spaudio.experiment.settings import AudioSettings
from spaudio.filters import TokenFilter
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.report.figures.filters_plot import filters_of, plot_filters
from spaudio.report.figures.front_end_plot import plot_front_end
from spaudio.report.figures.modulation_plot import plot_modulations


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
        ConfigError: If the local encoder that it was adapted from is not there.
    """
    settings = read_run_settings(run)
    check_source(run, settings)
    after, before = load_best(run), load_untrained(run)
    seconds = settings.tokens.token_seconds if isinstance(settings, AudioSettings) else None
    if isinstance(after, AdaptedClassifier):
        seconds = after.base.token_seconds
    drawn: list[Path] = []
    said: list[str] = []
    filters = filters_of(before), filters_of(after)
    if plot_filters(*filters, run / "filters.png", token_seconds=seconds):
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
    prepared = any(data_folder_of(settings).glob(f"*/{MARKER}"))
    if not recipe.is_dir():
        return [], [f"no modulation.png: there is no recipe {settings.recipe} in {recipe.parent}"]
    if not prepared:
        return [], [
            f"no modulation.png: the data of {settings.recipe} are not prepared in {settings.data}"
        ]
    try:
        train = load_data(settings, recipe).train
    except SpaudioError as error:
        return [], [f"no modulation.png: {error}"]
    figure = run / "modulation.png"
    layers = plot_modulations(train, settings.tokens, before, after, figure)
    return [figure], [str(layer) for layer in layers]
