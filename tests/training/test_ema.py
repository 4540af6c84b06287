import torch
from torch import nn

from spaudio.training.ema import WeightAverage


def test_the_average_follows_weights_and_buffers() -> None:
    model = nn.BatchNorm1d(3)
    average = WeightAverage(model, decay=0.9)
    expected = torch.ones(3)
    for step in range(30):
        with torch.no_grad():
            model.weight.fill_(step)
        model.running_mean.fill_(step)  # type: ignore[union-attr]
        model.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    torch.testing.assert_close(average.model.weight, expected)
    assert not average.model.training
    assert average.model.num_batches_tracked == 29
    mean = average.model.running_mean
    assert isinstance(mean, torch.Tensor)
    assert 0 < float(mean[0]) < 29
