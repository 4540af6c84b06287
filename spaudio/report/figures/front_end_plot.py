"""Figure of a learned front-end: its filters by centre frequency, against the mel scale."""

from pathlib import Path

import torch

from spaudio.report.figures.drawing import as_lists, draw_responses, make_figure, save_figure
from spaudio.tokens.scales import mel_edges
from spaudio.tokens.waveform_filterbank import WaveformFilterbank

N_FFT = 2048  # or the length of the filters, if they are longer


def plot_front_end(before: WaveformFilterbank, after: WaveformFilterbank, path: Path) -> None:
    """Draws magnitude responses before and after training, and the centre frequencies.

    Each image is sorted by centre frequency (that of the largest response). Responses are relative
    to the peak of each filter. The right panel follows Sainath et al. 2015: the dashed line is a
    bank of the same band, spaced on the mel scale.

    Args:
        before: The front-end before training.
        after: The same front-end after training.
        path: PNG to write.
    """
    config, bank = after.config, after.config.waveform
    figure = make_figure(13, 4.2)
    *images, curves = figure.subplots(1, 3)
    ranks, by_rank = range(bank.num_filters), "filter, by centre frequency"
    extent = (-0.5, bank.num_filters - 0.5, 0.0, config.sample_rate / 2)
    stages = (("before", before, ":"), ("after", after, "-"))
    for axes, (stage, front_end, style) in zip(images, stages, strict=True):
        hertz, order = front_end.centre_frequencies().sort()
        kernels = front_end.filters.weight.detach()[order, 0].float().cpu()
        magnitude = torch.fft.rfft(kernels, max(N_FFT, config.taps)).abs()
        draw_responses(axes, magnitude, extent, transpose=True)
        init = f" ({bank.init})" if front_end is before else ""
        axes.set_title(f"{stage} training{init}: dB below the peak")
        axes.set(xlabel=by_rank, ylabel="Hz")
        curves.plot(ranks, as_lists(hertz), style, label=stage)
    mel = mel_edges(bank.num_filters, config.f_min, config.top)[1:-1]
    curves.plot(ranks, mel.tolist(), "k--", linewidth=1, label="mel scale")
    curves.set(xlabel=by_rank, ylabel="centre frequency (Hz)")
    curves.legend()
    save_figure(figure, path)
