"""Figure of an explanation: the mel spectrogram, and how hiding a part changes the prediction."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spaudio.audio.decode import Waveform
from spaudio.io.escape import for_figure
from spaudio.report.figures.drawing import make_figure, mel_bands, save_figure

_FLOOR_DB = 80.0


def plot_importance(
    waveform: Waveform,
    sample_rate: int,
    drop: NDArray[np.float64],
    seconds: NDArray[np.float64],
    hertz: NDArray[np.float64],
    path: Path,
    *,
    start: float,
    title: str,
) -> None:
    """Draws both panels over the same axes, as in librosa: seconds and mel-scaled Hz.

    Args:
        waveform: (samples,).
        sample_rate: In Hz.
        drop: (rows, columns), drop in the log-odds.
        seconds: (columns + 1,), edges of the cells.
        hertz: (rows + 1,), edges of the cells.
        path: PNG or SVG to write.
        start: Start of the waveform in the recording, in seconds.
        title: Title of the figure.
    """
    import librosa  # imported here: it takes most of a second

    hop = max(1, round(0.005 * sample_rate))
    size = 1 << (round(0.032 * sample_rate) - 1).bit_length()
    bands = mel_bands(sample_rate / 2, sample_rate / size)
    whole = np.pad(waveform, (0, max(0, size - len(waveform))))  # librosa warns of less
    mel = librosa.feature.melspectrogram(
        y=whole, sr=sample_rate, n_fft=size, hop_length=hop, n_mels=bands
    )
    decibels = librosa.power_to_db(mel, ref=np.max, top_db=_FLOOR_DB)
    figure = make_figure(8, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
    times = start + librosa.frames_to_time(np.arange(mel.shape[1]), sr=sample_rate, hop_length=hop)
    image = librosa.display.specshow(
        decibels, x_coords=times, x_axis="s", y_axis="mel", sr=sample_rate, cmap="magma", ax=upper
    )
    figure.colorbar(image, ax=upper, format="%+2.0f dB")
    most = max(float(np.abs(drop).max()), 1e-6)
    shown = lower.pcolormesh(seconds, hertz, drop, cmap="RdBu_r", vmin=-most, vmax=most)
    figure.colorbar(shown, ax=lower, label="drop in the log-odds when hidden")
    upper.set(xlabel="", ylabel="Hz", title=for_figure(title, 100))
    lower.set(xlabel="seconds", ylabel="Hz")
    lower.set_xlim(start, start + len(waveform) / sample_rate)
    save_figure(figure, path)
