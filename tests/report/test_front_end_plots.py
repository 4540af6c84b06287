from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from spaudio.report.front_end_plots import plot_front_end
from spaudio.tokens.config import TokenConfig, WaveformConfig
from spaudio.tokens.scales import mel_edges
from spaudio.tokens.waveform import WaveformFrontEnd


def test_filters_are_sorted_and_stand_against_the_mel_scale(
    tmp_path: Path, figures: list[Figure]
) -> None:
    bank = WaveformConfig(num_filters=12, init="mel")
    config = TokenConfig(sample_rate=8000, front_end="waveform", waveform=bank)
    before, after = WaveformFrontEnd(config), WaveformFrontEnd(config)
    order = torch.randperm(12)
    with torch.no_grad():
        after.filters.weight.copy_(before.filters.weight[order])
    plot_front_end(after, tmp_path / "frontend.png", before=before)
    first, second, centres = figures[0].axes[:3]
    drawn = [torch.as_tensor(axes.images[0].get_array()) for axes in (first, second)]
    torch.testing.assert_close(*drawn)  # the order of the filters in the bank is not shown
    assert first.images[0].get_extent()[3] == 4000
    loudest = drawn[0].argmax(dim=0) * 4000 / (drawn[0].shape[0] - 1)
    assert (loudest.diff() > 0).all()
    lines = {line.get_label(): torch.as_tensor(line.get_ydata()) for line in centres.lines}
    assert set(lines) == {"before", "after", "mel scale"}
    torch.testing.assert_close(lines["before"], lines["after"])
    assert lines["mel scale"].tolist() == pytest.approx(mel_edges(12, 0, 4000)[1:-1].tolist())
    assert (lines["after"] - lines["mel scale"]).abs().max() < 60
