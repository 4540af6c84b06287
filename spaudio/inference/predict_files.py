"""Predicts files; unusable ones are skipped and listed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spaudio.errors import SpaudioError, reason
from spaudio.inference.predict import EmbeddedSound, Predictor
from spaudio.inference.predictions import Prediction
from spaudio.io.progress import progress_bar
from spaudio.training.failures import lacks_memory


def predict_files(
    predictor: Predictor, files: Sequence[Path], align: str | None = None
) -> tuple[list[Prediction], list[tuple[Path, str]]]:
    """Predicts files; unusable ones are skipped.

    Args:
        predictor: Predictor of the run.
        files: The files, each once.
        align: Which files are of one speaker, place or device, and are aligned with the training
            clips (:meth:`Predictor.classify_aligned`): ``"all"``, or ``"folder"`` for those in the
            same folder. None aligns none.

    Returns:
        Predictions, and the unusable files, each with a reason.
    """
    if align is not None:
        predictor.alignment()  # refused before any file is read
    predictions: dict[Path, Prediction] = {}
    bad: list[tuple[Path, str]] = []
    groups: defaultdict[Path, list[EmbeddedSound]] = defaultdict(list)
    with progress_bar("predict", len(files), show=len(files) > 1) as advance:
        for path in files:
            with listed_if_unusable(path, bad):
                if align is None:
                    predictions[path] = predictor(path)
                else:
                    sound = predictor.embed_windows(path)
                    groups[path.parent if align == "folder" else Path()].append(sound)
            advance(1)
    for sounds in groups.values():
        predictions |= {found.path: found for found in predictor.classify_aligned(sounds)}
    return [predictions[path] for path in files if path in predictions], bad


@contextmanager
def listed_if_unusable(path: Path, bad: list[tuple[Path, str]]) -> Iterator[None]:
    """Appends a file to a list, with the reason, if it cannot be used or needs too much memory."""
    try:
        yield
    except (SpaudioError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not lacks_memory(error):
            raise
        bad.append((path, reason(error, path)))
