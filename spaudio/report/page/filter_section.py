"""The page's section about filters: kernels, and what they do on clips of the test split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from spaudio.audio.manifest import Clip
from spaudio.filters import TokenFilter, centre_frequency
from spaudio.model.pretrained.adapted import AdaptedClassifier, AnyClassifier
from spaudio.report.choose_clips import some_of_each_class
from spaudio.report.figures.drawing import LOWEST_DB, below_peak
from spaudio.report.figures.filters_plot import N_FFT, aligned_taps, filters_of
from spaudio.report.filter_use import FilterUse, UsedKernel, measure_filter_use
from spaudio.report.page.charts import SMALL, Line, heat_map, line_chart
from spaudio.report.page.judged import TOP
from spaudio.report.page.media import SECONDS, picture_url
from spaudio.tokens.dataset import TokenDataset

MOST = 200  # test clips that filters are tried on


@dataclass(frozen=True)
class ShownPeak:
    """A clip that activates a filter: path, label, and time of the peak in seconds, if known."""

    path: str
    label: str
    second: float | None


@dataclass(frozen=True)
class ShownKernel:
    """A much-used kernel: its name, share in percent as text, drawing and clips."""

    name: str
    share: str
    drawing: Markup
    peaks: Sequence[ShownPeak]


@dataclass(frozen=True)
class FilterSection:
    """What the page says about filters.

    Args:
        description: Lines of text.
        layers: Name of each layer and its drawings, before and after training.
        kernels: The most used kernels.
        switched: Sentence about accuracy with filters on and off.
        clip: Path of the clip that is shown with filters off and on.
        chances: Class name, probability with filters on, and with filters off.
        activations: Drawings of the embeddings, off and on.
    """

    description: Sequence[str]
    layers: Sequence[tuple[str, Sequence[Markup]]]
    kernels: Sequence[ShownKernel]
    switched: str
    clip: str
    chances: Sequence[tuple[str, float, float]]
    activations: Sequence[Markup]


def make_filter_section(
    untrained: AnyClassifier,
    trained: AnyClassifier,
    test: TokenDataset,
    classes: Sequence[str],
    multi_label: bool,
    token_seconds: float,
    description: Sequence[str],
    temperature: float,
) -> FilterSection | None:
    """Draws the filters of a model and what they do on some test clips.

    Args:
        untrained: The model before training.
        trained: The model after training, in evaluation mode.
        test: The test split.
        classes: Class names.
        multi_label: A clip may have several classes.
        token_seconds: Seconds per token.
        description: Lines of text about the filters.
        temperature: Temperature of the trained model's probabilities.

    Returns:
        None if the model has no filter with kernels.
    """
    before, after = filters_of(untrained), filters_of(trained)
    if not after:
        return None
    chosen = some_of_each_class(test.clips, multi_label, MOST)
    numbers = sorted({number for found in chosen.values() for number in found})
    use = measure_filter_use(trained, test, numbers, multi_label, temperature)
    # The tokens of some encoders run over time several times, band after band.
    in_time = not isinstance(trained, AdaptedClassifier) or trained.base.tokens_in_time
    shown = [
        _kernel(kernel, after[kernel.layer], test, token_seconds, in_time) for kernel in use.kernels
    ]
    # A pause at the beginning may have been cut off.
    start = test.starts_at(use.clip)
    clip = test.clips[use.clip]
    order = use.on.argsort(descending=True)[:TOP].tolist()
    order += [i for i in use.off.argsort(descending=True)[:2].tolist() if i not in order]
    span = len(use.after) * token_seconds
    xlim = (start, start + span) if in_time else (0, len(use.after))
    rank = use.after.argmax(dim=0).argsort()  # dimensions by the token of their peak
    limit = float(use.after.abs().quantile(0.99)) or 1.0
    activations = [
        heat_map(
            picture_url(part.T[rank].numpy(), "RdBu_r", -limit, limit),
            title=f"embeddings after the last filter, filters {name}",
            x="seconds" if in_time else "token",
            y="dimension",
            xlim=xlim,
            ylim=(part.shape[1], 0),
        )
        for name, part in (("off", use.before), ("on", use.after))
    ]
    return FilterSection(
        description=list(description),
        layers=[(name, _layer(before[name], after[name], token_seconds)) for name in after],
        kernels=shown,
        switched=_switched(use, clip),
        clip=clip.path,
        chances=[(classes[i], float(use.on[i]), float(use.off[i])) for i in order],
        activations=activations,
    )


def _switched(use: FilterUse, clip: Clip) -> str:
    return (
        f"Without retraining, {use.accuracy_on:.1%} of {use.clips} test clips are classified "
        f"correctly with the filters, and {use.accuracy_off:.1%} with all of them off. Without "
        "filters, the probability of the label falls most, or rises least, for "
        f"{clip.path} ({clip.label})."
    )


def _layer(before: TokenFilter, after: TokenFilter, seconds: float) -> list[Any]:
    """Kernels and responses before and after training, each kernel one line, by frequency."""
    drawings = []
    for stage, filter in (("before", before), ("after", after)):
        response = filter.frequency_response(N_FFT)
        order = centre_frequency(response).argsort(descending=True)
        taps, first = aligned_taps(filter)
        limit = float(taps.nan_to_num().abs().max()) or 1.0
        decibels = below_peak(response.abs()[order])
        edges = (first - 0.5, first + taps.shape[1] - 0.5)
        count = len(order)
        drawings += [
            heat_map(
                picture_url(taps[order].numpy(), "RdBu_r", -limit, limit),
                title=f"{stage}: taps",
                x="tokens from the current one",
                y="kernel, by frequency",
                xlim=edges,
                ylim=(0, count),
                size=SMALL,
            ),
            heat_map(
                picture_url(decibels.numpy(), "viridis", LOWEST_DB, 0.0),
                title=f"{stage}: response (dB)",
                x="modulation (Hz)",
                y="kernel, by frequency",
                xlim=(0, 0.5 / seconds),
                ylim=(0, count),
                size=SMALL,
            ),
        ]
    return drawings


def _kernel(
    kernel: UsedKernel,
    filter: TokenFilter,
    test: TokenDataset,
    token_seconds: float,
    in_time: bool,
) -> ShownKernel:
    response = filter.frequency_response(N_FFT)[kernel.number].abs()
    hertz = np.linspace(0, 0.5 / token_seconds, len(response))
    points = list(zip(hertz.tolist(), response.tolist(), strict=True))
    name = f"{kernel.layer}, kernel {kernel.number}"
    drawing = line_chart(
        [Line("", points)],
        title=f"magnitude response of {name}",
        x="modulation (Hz)",
        y="gain",
        ylim=(0, 1.05 * max(float(response.max()), 1e-9)),
        size=SMALL,
    )
    peaks = []
    for peak in kernel.peaks:
        clip = test.clips[peak.clip]
        second = test.starts_at(peak.clip) + (peak.token + 0.5) * token_seconds
        # Only part of a longer clip is shown.
        known = in_time and test.is_whole and second < clip.seconds <= SECONDS
        peaks.append(ShownPeak(clip.path, clip.label, round(second, 3) if known else None))
    return ShownKernel(name, f"{kernel.share:.1%}", drawing, peaks)
