"""Which parts of a clip decided its prediction, for the most confident errors of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.occlusion import band_edges, log_odds, measure_importance
from spaudio.report.page.judged import Judged, errors_first
from spaudio.report.page.media import SECONDS
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd, stack_frames

MOST, MOST_SECONDS = 12, 15.0  # errors, and their total length; each takes 250 forward passes


@dataclass(frozen=True)
class Decided:
    """Which parts of a clip decided its prediction; see `spaudio.report.occlusion`.

    Args:
        drop: (rows, columns), drop in the log-odds of the predicted class without the cell.
        seconds: (columns + 1,), edges of the cells.
        hertz: (rows + 1,), edges of the cells.
    """

    drop: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    hertz: npt.NDArray[np.float64]


@torch.inference_mode()
def find_decided(
    model: AnyClassifier,
    front_end: FrontEnd,
    test: TokenDataset,
    clips: Sequence[Judged],
    multi_label: bool,
) -> dict[str, Decided]:
    """Finds what decided the most confident errors.

    Args:
        model: Trained, in evaluation mode.
        front_end: Front-end of the run.
        test: The test split.
        clips: The model's predictions for it, in its order.
        multi_label: A clip may have several classes.

    Returns:
        Results by path. Empty if the input has no bands, or clips are cut into segments.
    """
    config = front_end.config
    if config.front_end != "spectrogram" or not test.is_whole:
        return {}
    number = {clip.path: i for i, clip in enumerate(clips)}
    hertz = band_edges(config)
    device = next(model.parameters()).device
    found: dict[str, Decided] = {}
    left = MOST_SECONDS
    for clip in errors_first(clips)[:MOST]:
        if clip.is_right or clip.seconds > min(SECONDS, left):
            continue
        left -= clip.seconds

        def answer(
            variants: Sequence[npt.NDArray[np.float32]], predicted: int = clip.predicted
        ) -> npt.NDArray[np.float64]:
            tokens = np.stack([stack_frames(one, config.stack) for one in variants])
            logits = model(torch.from_numpy(tokens).to(device))
            return log_odds(logits, predicted, multi_label)

        frames = front_end.normalise(test.frames(number[clip.path]))
        cells = measure_importance(frames, answer)
        seconds = np.minimum(cells.steps * config.frame_seconds, clip.seconds)
        found[clip.path] = Decided(cells.drop, seconds, hertz[cells.bands])
    return found
