"""Figure of a token-adaptive filter: its mask over time, under the spectrogram of the clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter
from torch import Tensor

from spaudio.errors import ConfigError
from spaudio.filters import TokenFilter, centre_frequency, record_masks
from spaudio.model.classifier import Classifier
from spaudio.report.drawing import draw_image, save_figure


@torch.inference_mode()
def draw_mask(
    model: Classifier,
    tokens: Tensor,
    spectrogram: Tensor | None,
    path: Path,
    *,
    hop_seconds: float,
    frame_seconds: float,
    title: str,
) -> bool:
    """Draws the mask of a model's first token-adaptive filter over one clip.

    Args:
        model: Trained. It is set to evaluation mode.
        tokens: (tokens, features) of the clip, as the model takes them.
        spectrogram: (bands, frames) of the clip. None takes the frames of the model's learned
            front-end.
        path: PNG to write.
        hop_seconds: Seconds per token.
        frame_seconds: Seconds per frame of the spectrogram.
        title: Of the figure. The filter's name is added to it.

    Returns:
        Whether a filter is token-adaptive. If not, nothing is written.
    """
    batch = tokens.unsqueeze(0).to(next(model.parameters()).device)
    masks = record_masks(model.eval(), lambda: model(batch))
    if not masks:
        return False
    name, mask = next(iter(masks.items()))
    if spectrogram is None:
        front_end = model.front_end
        if front_end is None:
            raise ConfigError("a model without a learned front-end needs a spectrogram to draw")
        spectrogram = front_end.log_frames(batch)[0].T[front_end.centre_frequencies().argsort()]
    token_filter = model.get_submodule(name)
    plot_mask(
        mask[0].float().cpu(),
        spectrogram,
        path,
        hop_seconds=hop_seconds,
        frame_seconds=frame_seconds,
        filter=token_filter if isinstance(token_filter, TokenFilter) else None,
        title=f"{title}, {name}",
    )
    return True


def plot_mask(
    mask: Tensor,
    spectrogram: Tensor,
    path: Path,
    *,
    hop_seconds: float,
    frame_seconds: float,
    filter: TokenFilter | None = None,
    title: str = "",
) -> None:
    """Draws how far each filter of a token-adaptive bank is open over a clip.

    Args:
        mask: (tokens, M), in (0, 1), of the clip without its padding.
        spectrogram: (bands, frames), such as log-mel energies.
        path: PNG to write.
        hop_seconds: Seconds per token.
        frame_seconds: Seconds per frame of the spectrogram.
        filter: The bank. If given, the mask is sorted by its centre frequencies.
        title: Of the figure, such as the clip's name.

    Raises:
        ConfigError: If a shape or a number of seconds does not fit.
    """
    from librosa.display import specshow  # imported here: it takes most of a second

    if mask.dim() != 2 or spectrogram.dim() != 2 or min(hop_seconds, frame_seconds) <= 0:
        raise ConfigError(
            "a mask (tokens, M), a spectrogram (bands, frames) and positive seconds are needed; "
            f"got {tuple(mask.shape)}, {tuple(spectrogram.shape)}, hop_seconds={hop_seconds} and "
            f"frame_seconds={frame_seconds}"
        )
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    energies = spectrogram.detach().float().cpu().numpy()
    bands, frames = energies.shape
    times = np.arange(frames + 1) * frame_seconds
    image = specshow(
        energies, x_coords=times, y_coords=np.arange(bands + 1), x_axis="s", cmap="magma", ax=upper
    )
    upper.yaxis.set_major_locator(MaxNLocator(integer=True))  # specshow leaves bands unlabeled
    upper.yaxis.set_major_formatter(ScalarFormatter())
    figure.colorbar(image, ax=upper, label="log energy")
    upper.set(ylabel="band", xlabel="", title=title)
    if filter is not None:
        mask = mask[:, centre_frequency(filter.frequency_response()).argsort()]
    tokens, filters = mask.shape
    end = tokens * hop_seconds
    drawn = draw_image(lower, mask.T, (0, end, 0, filters), vmin=0, vmax=1, cmap="cividis")
    figure.colorbar(drawn, ax=lower, label="mask")
    lower.set(
        ylabel="filter" if filter is None else "filter, by centre frequency",
        xlabel="seconds",
        xlim=(0, max(frames * frame_seconds, end)),
    )
    save_figure(figure, path)
