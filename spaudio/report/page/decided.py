"""Which parts of a clip decided its prediction, for the most confident errors of a run."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.report.occlusion import Importance, occlude_frames
from spaudio.report.page.judged import Judged, errors_first
from spaudio.report.page.media import SECONDS
from spaudio.tokens.config import Frames
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd

MOST, MOST_SECONDS = 12, 15.0  # errors, and their total length; each takes 250 forward passes


@torch.inference_mode()
def find_decided(
    model: AnyClassifier,
    front_end: FrontEnd,
    test: TokenDataset,
    clips: Sequence[Judged],
    multi_label: bool,
    temperature: float,
) -> dict[str, Importance]:
    """Finds what decided the most confident errors, as `spaudio explain` does.

    Args:
        model: Trained, in evaluation mode.
        front_end: Front-end of the run.
        test: The test split.
        clips: The model's predictions for it, in its order.
        multi_label: A clip may have several classes.
        temperature: Temperature of the model's probabilities.

    Returns:
        Results for the predicted classes, by path. Empty if the input has no bands, or clips are
        cut into segments.
    """
    config = front_end.config
    if config.front_end != "spectrogram" or not test.is_whole:
        return {}
    number = {clip.path: i for i, clip in enumerate(clips)}
    device = next(model.parameters()).device

    def logits(tokens: Sequence[Frames]) -> Tensor:
        found: Tensor = model(torch.from_numpy(np.stack(tokens)).to(device))
        return found / temperature

    found: dict[str, Importance] = {}
    left = MOST_SECONDS
    for clip in errors_first(clips)[:MOST]:
        if clip.is_right or clip.seconds > min(SECONDS, left):
            continue
        left -= clip.seconds
        frames = test.frames(number[clip.path])
        found[clip.path] = occlude_frames(
            frames, front_end, logits, clip.predicted, multi_label, clip.seconds
        )
    return found
