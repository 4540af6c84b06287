from dataclasses import replace

import pytest
import torch

from spaudio.report.aligned import measure_aligned
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.segments import SegmentConfig
from spaudio.training.alignment import Alignment
from tests.fixtures import toy


@torch.no_grad()
def test_each_group_is_aligned_by_itself_and_its_segments_vote() -> None:
    plain = toy.dataset(range(60))
    means = [plain[0, number].tokens.mean(axis=0) for number in range(60)]
    groups = ["low" if mean[1] < 0 else "high" for mean in means]
    clips = [replace(c, group=g) for c, g in zip(plain.clips, groups, strict=True)]
    cut = SegmentConfig(0.03)
    data = TokenDataset(clips, "ab", toy.ToyCache(), toy.FRONT_END, segments=cut)  # type: ignore[arg-type]
    model, alignment = toy.Summed(), Alignment(torch.linspace(-2, 2, 6), torch.linspace(0.5, 3, 6))
    right = []
    for group in ("low", "high"):
        own = [number for number, clip in enumerate(clips) if clip.group == group]
        parts = [
            torch.stack([torch.from_numpy(data.frames(item).sum(axis=0))
                         for item in range(len(data)) if data.clip(item) == clips[number]])
            for number in own
        ]  # fmt: skip
        counts = [len(part) for part in parts]
        owners = torch.arange(len(own)).repeat_interleave(torch.tensor(counts))
        chances = model.classify(alignment(torch.cat(parts), owners)).softmax(dim=1)
        for number, part in zip(own, chances.split(counts), strict=True):
            right.append(int(part.mean(dim=0).argmax()) == number % 2)
    found = measure_aligned(model, alignment, data)
    assert found == {"accuracy": pytest.approx(sum(right) / 60), "groups": 2}
