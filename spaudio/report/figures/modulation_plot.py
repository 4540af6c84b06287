"""Compares the responses of kernels over modulation frequency with the modulations of the sound.

The modulation spectrum is that of log-mel envelopes: the power of the level changes of a band at
each rate, averaged over bands and clips. It is power per octave, in which speech has its maximum at
4 to 5 Hz, the rate of syllables (Ding et al. 2017, doi 10.1016/j.neubiorev.2017.02.011); power per
Hz falls throughout.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # submodules load on first use

from spaudio.filters import TokenFilter, modulation_response
from spaudio.report.figures.drawing import make_figure, save_figure
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import TokenDataset

SEGMENT = 2.56  # seconds; resolves modulations of 0.4 Hz
LOWEST = 0.5  # Hz
CLIPS = 256  # enough for a mean modulation spectrum
_POINTS = 100  # frequencies, evenly spaced in octaves

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LayerResponse:
    """The mean magnitude response of a layer's kernels.

    Args:
        name: Name of the layer.
        before: Response at each frequency before training, relative to its maximum.
        after: The same after training.
        correlation_before: Correlation of ``before`` with the modulation spectrum, over frequencies
            evenly spaced in octaves; NaN for a flat response.
        correlation_after: The same after training.
    """

    name: str
    before: Array
    after: Array
    correlation_before: float
    correlation_after: float

    @property
    def correlations(self) -> list[float] | None:
        """Both correlations, as ``report.json`` holds them; None for a flat response."""
        both = [self.correlation_before, self.correlation_after]
        return None if math.isnan(sum(both)) else both

    def __str__(self) -> str:
        return (
            f"{self.name}: correlation with the modulation spectrum "
            f"{self.correlation_before:.2f} before training, {self.correlation_after:.2f} after"
        )


def plot_modulations(
    train: TokenDataset,
    tokens: TokenConfig,
    before: Mapping[str, TokenFilter],
    after: Mapping[str, TokenFilter],
    path: Path,
) -> list[LayerResponse]:
    """Draws the responses of a run's kernels against the modulation spectrum of training clips.

    Args:
        train: The training split, of spectrogram frames.
        tokens: How clips become tokens.
        before: Filters before training, by name of the layer.
        after: The same filters after training.
        path: PNG to write.

    Returns:
        What is drawn, layer by layer.
    """
    order = np.random.default_rng(0).permutation(len(train))[:CLIPS]
    spectrum = modulation_spectrum(
        (train.frames(int(item)) for item in order),
        tokens.frame_seconds,
        modulation_grid(tokens.token_seconds),
    )
    layers = compare_responses(before, after, spectrum, tokens.token_seconds)
    plot_responses(layers, spectrum, tokens.token_seconds, path)
    return layers


def modulation_grid(token_seconds: float) -> Array:
    """Returns the frequencies in Hz, up to half the token rate, at which responses are compared."""
    top = 0.5 / token_seconds
    return np.geomspace(min(LOWEST, top / 2), top, _POINTS)


def modulation_spectrum(
    clips: Iterable[npt.NDArray[Any]], frame_seconds: float, hertz: Array
) -> Array:
    """Returns the magnitude of the modulations of clips, relative to its maximum.

    It is the square root of the power per octave, so that it compares with magnitude responses.

    Args:
        clips: Log-mel frames (frames, bands) of each clip.
        frame_seconds: Seconds per frame.
        hertz: Modulation frequencies, up to half the frame rate.
    """
    length = round(SEGMENT / frame_seconds)
    total = np.zeros(length + 1)
    for frames in clips:
        if len(frames) > 1:
            _, power = scipy.signal.welch(
                np.asarray(frames, np.float64), 1 / frame_seconds, nperseg=min(length, len(frames)),
                nfft=2 * length, axis=0,
            )  # fmt: skip
            total += power.mean(axis=1)
    measured = np.arange(length + 1) / (2 * length * frame_seconds)
    return _relative(np.sqrt(hertz * np.interp(hertz, measured, total)))


def compare_responses(
    before: Mapping[str, TokenFilter],
    after: Mapping[str, TokenFilter],
    spectrum: Array,
    token_seconds: float,
) -> list[LayerResponse]:
    """Compares the kernels of each layer with a modulation spectrum.

    Args:
        before: Filters before training, by name of the layer.
        after: The same filters after training.
        spectrum: From :func:`modulation_spectrum`, at :func:`modulation_grid`.
        token_seconds: Seconds per token.
    """
    hertz = modulation_grid(token_seconds)

    def response(filter: TokenFilter) -> Array:
        at, complex_response = modulation_response(filter, token_seconds)
        mean = complex_response.abs().mean(dim=0).double()
        return _relative(np.interp(hertz, at.double().numpy(), mean.numpy()))

    found = []
    for name in after:
        pair = response(before[name]), response(after[name])
        with np.errstate(invalid="ignore"):  # a flat response has no correlation
            both = [float(np.corrcoef(one, spectrum)[0, 1]) for one in pair]
        found.append(LayerResponse(name, *pair, *both))
    return found


def plot_responses(
    layers: Sequence[LayerResponse], spectrum: Array, token_seconds: float, path: Path
) -> None:
    """Draws the responses of each layer before and after training, and the modulation spectrum.

    Args:
        layers: From :func:`compare_responses`.
        spectrum: As in :func:`compare_responses`.
        token_seconds: Seconds per token.
        path: PNG to write.
    """
    hertz = modulation_grid(token_seconds)
    figure = make_figure(7, 0.7 + 1.9 * ((len(layers) + 1) // 2))
    panels = figure.subplots((len(layers) + 1) // 2, 2, squeeze=False, sharex=True, sharey=True)
    for axes, layer in zip(panels.flat, layers, strict=False):
        axes.fill_between(hertz, spectrum, color="0.85", label="modulation spectrum of the audio")
        axes.plot(hertz, layer.before, "--", color="C0", label="mean response before training")
        axes.plot(hertz, layer.after, color="C1", label="after training")
        axes.set_xscale("log")
        ticks = [tick for tick in (0.5, 1, 2, 4, 8, 16, 32, 64) if hertz[0] <= tick <= hertz[-1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        numbers = f"r = {layer.correlation_before:.2f} → {layer.correlation_after:.2f}"
        axes.set_title(f"{layer.name}: {numbers}", fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(layers) :]:
        axes.set_visible(False)
    for axes in panels.flat[max(0, len(layers) - 2) : len(layers)]:  # the lowest of each column
        axes.set_xlabel("modulation (Hz)")
        axes.tick_params(labelbottom=True)
    lines, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=8)
    save_figure(figure, path, dpi=100)


def _relative(values: Array) -> Array:
    highest = float(values.max())
    return values / highest if highest > 0 else values
