"""The page's section about filters, on clips that begin with a pause."""

from types import SimpleNamespace

import numpy as np
import pytest

from spaudio.audio.manifest import Clip
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.report.page import filter_section
from spaudio.report.page.filter_section import make_filter_section
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.make_front_end import make_front_end

RATE, PAUSE = 8000, 0.6
TONE = (0.1 * np.sin(np.arange(4000) * 0.9)).astype(np.float32)  # half a second


def test_times_are_those_of_the_whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TokenConfig(RATE, trim=True, stack=1, stem="none", normalise="clip_level")
    bare = make_front_end(config)
    tone, late = (
        bare.restore(bare.extract(np.pad(TONE, (pause, 0)))) for pause in (0, int(PAUSE * RATE))
    )

    class Cache:
        def frames(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
            return (late if path == "late" else tone)[start:stop]

        def length(self, path: str) -> int:
            return len(self.frames(path))

    front_end = make_front_end(config, bare.fit([tone]))
    clips = [Clip(n, n, "test", "g", s, RATE) for n, s in (("late", 0.5 + PAUSE), ("tone", 0.5))]
    data = TokenDataset(clips, ("late", "tone"), Cache(), front_end)  # type: ignore[arg-type]
    assert data.starts_at(0) == pytest.approx(PAUSE, abs=0.03)
    assert data.starts_at(1) == 0
    shape = EncoderConfig(dim=8, layers=1, heads=2)
    model = Classifier(data[0, 0].tokens.shape[1], 2, shape, {"name": "bank", "num_filters": 3})
    section = make_filter_section(
        model, model.eval(), data, ("late", "tone"), False, config.token_seconds, [], 1.0
    )
    assert section is not None
    seconds = {peak.path: peak.second for kernel in section.kernels for peak in kernel.peaks}
    assert seconds.keys() == {"late", "tone"}
    assert seconds["late"] > PAUSE - 0.03
    assert 0 < seconds["tone"] < 0.5
    assert all("seconds" in str(drawing) for drawing in section.activations)
    # Tokens that are no steps in time, such as those of AST, have no seconds.
    monkeypatch.setattr(filter_section, "AdaptedClassifier", Classifier)
    model.base = SimpleNamespace(tokens_in_time=False)  # type: ignore[assignment]
    section = make_filter_section(
        model, model.eval(), data, ("late", "tone"), False, config.token_seconds, [], 1.0
    )
    assert section is not None
    assert all(peak.second is None for kernel in section.kernels for peak in kernel.peaks)
    assert all("seconds" not in str(drawing) for drawing in section.activations)
