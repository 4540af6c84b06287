"""Groups of clips are moved to the training clips, as far as their number allows."""

import torch

from spaudio.audio.manifest import Clip
from spaudio.training.alignment import PRIOR_CLIPS, Alignment, groups_are_mixed


def test_a_shift_and_a_scale_are_undone() -> None:
    """Many clips get the mean and spread of the training clips, a single one moves little."""
    random = torch.Generator().manual_seed(0)
    train = torch.randn(4000, 5, generator=random) * 3 + 2
    alignment = Alignment.fit(train, torch.arange(4000))
    own = torch.randn(2000, 5, generator=random) * 3 + 2
    factor, offset = torch.tensor([0.5, 1, 2, 1, 3]), torch.tensor([4.0, -4, 0, 1, 2])
    shifted = own * factor + offset
    torch.testing.assert_close(alignment(shifted, torch.arange(2000)), own, atol=0.4, rtol=0.05)
    one = torch.full((1, 5), 20.0)
    moved = (20 - 2) / (1 + PRIOR_CLIPS)  # the mean is taken with imagined training clips
    aligned = alignment(one, torch.tensor([3])) - 2
    spread = (PRIOR_CLIPS / (1 + PRIOR_CLIPS)) ** 0.5
    torch.testing.assert_close(aligned, (one - 2 - moved) / spread, atol=0.2, rtol=0)
    flat = Alignment.fit(torch.ones(10, 2), torch.arange(10))
    assert torch.isfinite(flat(torch.ones(3, 2), torch.arange(3))).all()


def test_a_clip_counts_the_same_however_many_parts_it_has() -> None:
    alignment = Alignment(torch.zeros(2), torch.ones(2))
    short, long = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    fitted = Alignment.fit(torch.cat([short, long, long]), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(fitted.mean, (short + long)[0] / 2)
    both = alignment(torch.cat([short, long]), torch.tensor([0, 1]))
    parts = alignment(torch.cat([long, short, long, long]), torch.tensor([1, 0, 1, 1]))
    torch.testing.assert_close(parts, both[[1, 0, 1, 1]])


def test_groups_that_can_be_aligned_have_many_clips_of_many_classes() -> None:
    def clips(*labels: str) -> list[Clip]:
        """A clip per group and letter of its labels."""
        return [
            Clip(f"{group}/{i}", label, "train", str(group), 1.0, 8000)
            for group, found in enumerate(labels)
            for i, label in enumerate(found)
        ]

    assert groups_are_mixed(clips("abcd" * 2, "abcd" * 2))
    assert groups_are_mixed(clips("ab" * 4, "cd" * 4))  # half of the classes in each
    assert not groups_are_mixed(clips("a" * 8, "b" * 8, "c" * 8))
    assert not groups_are_mixed(clips("abcd", "abcd"))  # few clips
