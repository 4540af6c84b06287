"""Initial kernels of a bank: a filterbank over modulation frequency.

Along the tokens, a kernel responds to how fast the embedding changes: to modulations, in cycles per
token. Hearing is modelled by band-pass filters over that frequency, spaced evenly in octaves (Chi,
Ru & Shamma 2005, doi 10.1121/1.1945807; Elhilali, Chi & Shamma 2003,
doi 10.1016/S0167-6393(02)00134-6). Here they are windowed waves, like those of SincNet
(arXiv 1808.00158) over audio frequency; unlike in SincNet, all taps are learned afterwards.
"""

import math

import torch
from torch import Tensor

INITS = ("random", "bandpass")


def check_init(init: str) -> None:
    """Raises ValueError if the initialisation is unknown."""
    if init not in INITS:
        raise ValueError(f"init must be one of {list(INITS)}; got {init!r}")


def bandpass_centres(num_filters: int, kernel_size: int) -> Tensor:
    """Centre frequencies of :func:`reset_bandpass`, in cycles per token.

    Args:
        num_filters: M.
        kernel_size: K, in tokens.

    Returns:
        (M,), on the CPU: 0 for the low-pass kernel, then from 1/K, one cycle over the kernel, to
        1/2, half the token rate, evenly spaced in octaves.
    """
    lowest = min(1 / kernel_size, 0.5)
    bands = torch.logspace(
        math.log2(lowest), -1, num_filters - 1, base=2, dtype=torch.float64, device="cpu"
    )
    return torch.cat([bands.new_zeros(1), bands])


def reset_bandpass(kernels: Tensor) -> None:
    """Sets kernels (M, K) to a low-pass and M - 1 band-pass filters, in place.

    A kernel is a wave at its centre frequency under a Hamming window. The wave's phase is random,
    since a bank rectifies: kernels with the same frequency but different phases differ as onset and
    offset do. Every kernel has energy 1/3, the mean energy of a kernel that ``Conv1d`` draws.

    Args:
        kernels: The kernels; M and K may be 1.
    """
    count, taps = kernels.shape
    # On the CPU whatever torch's default device is: kernels may be on another.
    time = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) // 2
    window = 0.54 + 0.46 * torch.cos(2 * math.pi * time / taps)
    phase = 2 * math.pi * torch.rand(count, 1, dtype=torch.float64, device="cpu")
    turns = bandpass_centres(count, taps).unsqueeze(1) * time
    waves = window * torch.cos(2 * math.pi * turns + phase)
    waves = waves / (math.sqrt(3) * waves.norm(dim=1, keepdim=True))
    with torch.no_grad():
        kernels.copy_(waves)
