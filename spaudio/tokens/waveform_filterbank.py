"""The filterbank of ``tokens=waveform``: filters on samples, trained with the model."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.errors import ConfigError
from spaudio.tokens.config import Frames, TokenConfig
from spaudio.tokens.front_end import stack_batch
from spaudio.tokens.kernels import initial_kernels
from spaudio.tokens.normalise import BandNormaliser

_POINTS = 8192  # of the Fourier transforms that centre frequencies are read from


class WaveformFilterbank(nn.Module):
    """A bank of FIR filters, followed by rectification, pooling over a window and a logarithm.

    After Sainath, Weiss, Senior, Wilson & Vinyals 2015, "Learning the Speech Front-end With Raw
    Waveform CLDNNs" (doi 10.21437/Interspeech.2015-1; Fig. 1D of arXiv 2406.10254), which pools
    by the maximum; here the default is the mean over the window of a log-mel frame. The frames are
    then normalised by the training split and projected by the model.

    Frame i pools the filters' outputs at samples i * hop - window/2 up to i * hop + window/2.
    As filters are centred, it depends on half a kernel more on either side; samples beyond the clip
    are zero. A clip gives the same tokens alone and padded in a batch.

    Cost per second of audio: sample_rate / stride * taps * filters multiplications, and as many
    for the gradient: 0.06 G each at 16 kHz by default (0.26 G at stride 1), 16 M at 8 kHz.

    Args:
        config: The settings; those of the spectrogram are not read. ``normalise`` is applied to the
            samples before (:class:`spaudio.tokens.normalise.LevelNormaliser`).
    """

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.config = config
        bank = config.waveform
        self.filters = nn.Conv1d(
            1, bank.num_filters, config.taps, stride=config.stride_samples, bias=False
        )
        kernels = initial_kernels(
            bank.init, bank.num_filters, config.taps, config.sample_rate, config.f_min, config.top
        )
        with torch.no_grad():
            self.filters.weight.copy_(kernels.unsqueeze(1))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(bank.num_filters))
        self.register_buffer("std", torch.ones(bank.num_filters))

    def forward(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Turns samples into token features.

        Args:
            tokens: (batch, tokens, stack * hop), the samples from one token to the next: a padded
                batch of waveforms, reshaped.
            padding_mask: Boolean (batch, tokens), True where a token is padding.

        Returns:
            (batch, tokens, stack * num_filters); padding is zero. A last token that the clip
            does not fill contains frames of silence.

        Raises:
            ConfigError: If the tokens are not ``stack`` hops wide.
        """
        frames = self.log_frames(tokens, padding_mask)
        kept = _kept(frames, padding_mask, self.config.stack)
        frames = torch.where(kept, (frames - self.mean) / self.std, 0)
        return stack_batch(frames, self.config.stack)

    def log_frames(self, tokens: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Returns frames before normalisation, (batch, tokens * stack, num_filters).

        Arguments and errors are those of :meth:`forward`.
        """
        config = self.config
        hop, stride, taps = config.hop_samples, config.stride_samples, config.taps
        if tokens.dim() != 3 or tokens.shape[2] != config.stack * hop:
            raise ConfigError(
                f"waveform tokens are (batch, tokens, {config.stack} * {hop} samples); got "
                f"{tuple(tokens.shape)}"
            )
        if padding_mask is not None:
            tokens = tokens.masked_fill(padding_mask.unsqueeze(-1), 0)
        samples = tokens.flatten(1).unsqueeze(1).float()
        count, step = config.outputs_per_frame, hop // stride
        pooled = count * stride
        left = config.frame_reach
        length = samples.shape[2] - hop + pooled - stride + taps
        # In half precision the rounding noise is at -50 dB, which the logarithm would amplify.
        with torch.autocast(device_type=tokens.device.type, enabled=False):
            padded = F.pad(samples, (left, max(0, length - left - samples.shape[2])))
            outputs = self.filters(padded[..., :length]).relu()
            if config.waveform.pooling == "mean":
                frames = F.avg_pool1d(outputs, count, step)
            else:
                # Not max_pool1d, which torch.export takes only for a fixed length.
                rows = outputs[:, :, None]
                frames = F.max_pool2d(rows, (1, count), (1, step))[:, :, 0]
            return torch.log(frames + config.waveform.log_offset).transpose(1, 2)

    @torch.no_grad()
    def fit_normaliser(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Computes ``mean`` and ``std`` with the initial filters, before training.

        Args:
            batches: ``tokens, padding_mask`` of clips of the training split.

        Raises:
            ConfigError: If there is no batch.
        """

        def kept(tokens: Tensor, padding_mask: Tensor) -> Frames:
            frames = self.log_frames(tokens, padding_mask)
            mask = _kept(frames, padding_mask, self.config.stack).squeeze(-1)
            found: Frames = frames[mask].cpu().numpy()
            return found

        fitted = BandNormaliser.fit("global", (kept(*batch) for batch in batches))
        self.mean.copy_(torch.from_numpy(fitted.mean))
        self.std.copy_(torch.from_numpy(fitted.std))

    @torch.no_grad()
    def centre_frequencies(self) -> Tensor:
        """Returns the frequency of each filter's largest response, in Hz, (num_filters,)."""
        size = max(_POINTS, self.config.taps)
        response: Tensor = torch.fft.rfft(self.filters.weight[:, 0].float(), size).abs()
        return response.argmax(dim=1) * (self.config.sample_rate / size)


def _kept(frames: Tensor, padding_mask: Tensor | None, stack: int) -> Tensor:
    """Returns Boolean (batch, frames, 1), False where a frame is padding."""
    if padding_mask is None:
        return torch.ones_like(frames[..., :1], dtype=torch.bool)
    return ~padding_mask.repeat_interleave(stack, dim=1).unsqueeze(-1)
