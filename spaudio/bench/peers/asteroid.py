"""asteroid-filterbanks: a free and a parametrized filterbank as encoders of waveforms."""

import sys

import torch
from asteroid_filterbanks import Encoder, FreeFB, ParamSincFB
from torch import Tensor

from spaudio.bench.peers.encoder_shape import FILTERS, HOP, RATE, STRIDE, TAPS, train_encoder
from spaudio.bench.peers.turns import Turns


def train(name: str, turns: Turns) -> None:
    """Trains ``"free"`` or ``"sinc"`` kernels at the shapes of our waveform front-end."""
    kind = FreeFB if name == "free" else ParamSincFB
    encoder = Encoder(
        kind(FILTERS, TAPS, stride=STRIDE, sample_rate=float(RATE)), padding=TAPS // 2
    )

    def encode(waveforms: Tensor) -> Tensor:
        outputs = encoder(waveforms.unsqueeze(1)).relu()
        return (torch.nn.functional.avg_pool1d(outputs, HOP // STRIDE) + 0.01).log()

    train_encoder(encoder, encode, turns)


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(sys.argv[1], Turns(4))
