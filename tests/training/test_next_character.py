"""The next-character loss equals its definition, whatever windows measure it."""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from spaudio.text import windows
from spaudio.text.corpus import encode
from spaudio.training.next_character import Likelihood, NextCharacter
from spaudio.training.shards import shard_batches
from tests.fixtures.tiny_text import make_text


class Bigram(nn.Module):
    """Reads one character, so that no window can change its predictions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(27, 27, generator=generator))

    def forward(self, symbols: Tensor) -> Tensor:
        return self.table[symbols]


def test_the_loss_is_minus_the_log_of_the_next_character_s_probability() -> None:
    model, text = Bigram(), torch.tensor([[3, 5, 0], [1, 1, 2]])
    batch = windows.TextBatch(text, torch.zeros(2, dtype=torch.long))
    p = model.table.softmax(dim=1)
    expected = -torch.stack([p[3, 5], p[5, 0], p[1, 1], p[1, 2]]).log().mean()
    loss = NextCharacter().loss(model, batch, np.random.default_rng(0))
    torch.testing.assert_close(loss, expected)


def test_it_is_measured_without_dropout() -> None:
    batch = windows.TextBatch(torch.arange(27)[None], torch.zeros(1, dtype=torch.long))
    found = [
        NextCharacter().measure(model.train(), [batch], Accelerator(cpu=True)).loss
        for model in (Bigram(), nn.Sequential(Bigram(), nn.Dropout(0.5)))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(("context", "stride", "batch"), [(16, 5, 7), (31, 1, 64)])
def test_a_split_s_loss_does_not_depend_on_windows_and_batches(
    context: int, stride: int, batch: int
) -> None:
    model, symbols = Bigram(), encode(make_text(203).encode())
    spans = windows.sliding_windows(len(symbols), context, stride)
    loader = DataLoader(
        windows.TextWindows(symbols, context, spans),
        batch_sampler=windows.WindowBatches(len(spans), batch),
        collate_fn=windows.collate_windows,
    )
    accelerator = Accelerator(cpu=True)
    found = NextCharacter().measure(model, shard_batches(loader, accelerator), accelerator)
    log_p = model.table.log_softmax(dim=1).detach().double().numpy()
    assert found.characters == len(symbols) - 1
    assert found.loss == pytest.approx(-log_p[symbols[:-1], symbols[1:]].mean(), rel=1e-6)
    assert found.bits == pytest.approx(found.loss / math.log(2))
    assert found.rank > Likelihood(found.loss + 0.1, 10).rank
