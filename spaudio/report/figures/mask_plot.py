"""Figure of a token-adaptive filter: its mask over time, under the spectrogram of the clip."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaudio.filters import TokenFilter, centre_frequency, record_masks
from spaudio.io.escape import for_figure
from spaudio.model.classifier import Classifier
from spaudio.report.figures.drawing import draw_image, make_figure, save_figure


@torch.inference_mode()
def plot_mask(
    model: Classifier,
    tokens: Tensor,
    spectrogram: Tensor | None,
    path: Path,
    *,
    token_seconds: float,
    frame_seconds: float,
    start: float = 0.0,
    title: str,
) -> bool:
    """Draws the mask of a model's first token-adaptive bank over one clip.

    The filters are sorted by their centre frequencies.

    Args:
        model: Trained. It is set to evaluation mode.
        tokens: (tokens, features) of the clip, as the model takes them.
        spectrogram: (bands, frames) of the clip, such as log-mel energies. None uses the frames of
            the model's learned front-end.
        path: PNG to write.
        token_seconds: Seconds per token.
        frame_seconds: Seconds per frame of the spectrogram.
        start: Where the first token begins in the spectrogram, in seconds.
        title: Title of the figure. The filter's name is added to it.

    Returns:
        Whether a filter is token-adaptive. If not, nothing is written.
    """
    # Imported here: it takes most of a second.
    from librosa.display import specshow
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    batch = tokens.unsqueeze(0).to(next(model.parameters()).device)
    masks = record_masks(model.eval(), lambda: model(batch))
    if not masks:
        return False
    name, mask = next(iter(masks.items()))
    if spectrogram is None:
        front_end = model.front_end
        assert front_end is not None, "a model without a learned front-end needs a spectrogram"
        spectrogram = front_end.log_frames(batch)[0].T[front_end.centre_frequencies().argsort()]
    figure = make_figure(8, 5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    energies = spectrogram.float().cpu().numpy()
    bands, frames = energies.shape
    times = np.arange(frames + 1) * frame_seconds
    image = specshow(
        energies, x_coords=times, y_coords=np.arange(bands + 1), x_axis="s", cmap="magma", ax=upper
    )
    upper.yaxis.set_major_locator(MaxNLocator(integer=True))  # specshow leaves bands unlabeled
    upper.yaxis.set_major_formatter(ScalarFormatter())
    figure.colorbar(image, ax=upper, label="log energy")
    upper.set(ylabel="band", xlabel="", title=f"{for_figure(title, 80)}, {name}")
    bank = model.get_submodule(name)
    assert isinstance(bank, TokenFilter)
    opened = mask[0].T[centre_frequency(bank.frequency_response()).argsort()]
    filters, count = opened.shape
    end = start + count * token_seconds
    drawn = draw_image(lower, opened, (start, end, 0, filters), vmin=0, vmax=1, cmap="cividis")
    figure.colorbar(drawn, ax=lower, label="mask")
    lower.set(ylabel="filter, by centre frequency", xlabel="seconds")
    lower.set_xlim(0, max(frames * frame_seconds, end))
    save_figure(figure, path)
    return True
