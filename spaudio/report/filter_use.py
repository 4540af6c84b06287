"""What filters do on real clips: the most used kernels, and what changes without filters."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaudio.filters import AdaptiveFilterBank, TokenFilter
from spaudio.filters.definition import ACTIVATIONS, kernel_extent, without_padding
from spaudio.model.pretrained.adapted import AnyClassifier, outside_clip
from spaudio.report.figures.filters_plot import filters_of
from spaudio.tokens.dataset import TokenDataset
from spaudio.training.loader import plain_batches
from spaudio.training.temperature import class_probabilities, tempered

SHOWN = 4  # most used kernels
EXCITING = 3  # clips per kernel
_TOGETHER = 16  # kernels whose outputs are in memory at once


@dataclass(frozen=True)
class Peak:
    """Where a clip activates a kernel most.

    Args:
        clip: Index of the clip in its dataset.
        token: Index of the token in the clip, or in its segment, without silence before it.
    """

    clip: int
    token: int


@dataclass(frozen=True)
class UsedKernel:
    """One of the most used kernels of a model.

    Args:
        layer: Name of the layer, such as ``layer 0``.
        number: Index of the kernel in its filter.
        share: Share of what all kernels of the model add, by root mean square.
        peaks: The clips that activate it most.
    """

    layer: str
    number: int
    share: float
    peaks: tuple[Peak, ...]


@dataclass(frozen=True)
class FilterUse:
    """What the filters of a model do on some clips of the test split.

    Args:
        kernels: The most used kernels.
        clips: Number of clips.
        accuracy_on: Share of the clips whose most probable class is right.
        accuracy_off: The same with all filters switched off, without retraining.
        clip: Index of the clip whose label loses the most probability when they are off.
        on: Its probabilities (classes,).
        off: The same with all filters off.
        before: (tokens, dim) of this clip, input of the last filter, with all filters off; without
            silence that the encoder adds.
        after: (tokens, dim), output of the last filter.
    """

    kernels: tuple[UsedKernel, ...]
    clips: int
    accuracy_on: float
    accuracy_off: float
    clip: int
    on: Tensor
    off: Tensor
    before: Tensor
    after: Tensor


@torch.inference_mode()
def measure_filter_use(
    model: AnyClassifier,
    dataset: TokenDataset,
    clips: Sequence[int],
    multi_label: bool,
    temperature: float = 1.0,
) -> FilterUse:
    """Runs a model over clips with its filters on and off.

    Args:
        model: Trained, in evaluation mode; with at least one filter with kernels.
        dataset: The test split.
        clips: Indices of the clips; memory does not depend on their number.
        multi_label: A clip may have several classes.
        temperature: Temperature of the model's probabilities.
    """
    filters = filters_of(model)
    learned = {name: filter for name, filter in filters.items() if filter.num_parameters}
    total: dict[str, Tensor] = {}
    highest: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in learned}
    seen_clips: list[int] = []
    chances: dict[int, list[Tensor]] = {}
    labels: dict[int, Tensor] = {}
    device = next(model.parameters()).device
    for batch in plain_batches(dataset, clips):
        tokens, mask = batch.tokens.to(device), batch.padding_mask.to(device)
        seen_clips += batch.clips.tolist()
        with _recorded(learned) as seen:
            on = model(tokens, mask)
        for name, filter in learned.items():
            strength = kernel_activity(filter, seen[name].input, seen[name].mask)
            outside = outside_clip(model, seen[name].padding)
            power = strength.square().masked_fill(outside.unsqueeze(-1), 0).sum(dim=(0, 1))
            total[name] = total.get(name, 0) + power.cpu()
            # An activity is not negative, so no peak is outside the clip.
            most, place = strength.masked_fill(outside.unsqueeze(-1), -1).max(dim=1)
            before = outside.long().cumprod(dim=1).sum(dim=1, keepdim=True)
            highest[name].append((most.cpu(), (place - before).cpu()))
        with switched_off(list(filters.values())):
            off = model(tokens, mask)
        for row, clip in enumerate(batch.clips.tolist()):
            # In double precision, as the report: single would round a probability near 1 to it.
            chances.setdefault(clip, []).append(torch.stack([on[row], off[row]]).cpu().double())
            labels[clip] = batch.labels[row]
    mean = {}
    for clip, found in chances.items():
        segments = [class_probabilities(logits, multi_label, 1.0) for logits in found]
        mean[clip] = tempered(torch.stack(segments).mean(0), temperature, multi_label)
    lost = {clip: _own(found[0], labels[clip]) - _own(found[1], labels[clip])
            for clip, found in mean.items()}  # fmt: skip
    shown = max(lost, key=lambda number: lost[number])
    before, after = _compare(model, filters, dataset, shown)
    return FilterUse(
        kernels=_most_used(total, highest, seen_clips),
        clips=len(mean),
        accuracy_on=sum(_is_right(p[0], labels[c]) for c, p in mean.items()) / len(mean),
        accuracy_off=sum(_is_right(p[1], labels[c]) for c, p in mean.items()) / len(mean),
        clip=shown,
        on=mean[shown][0].float(),
        off=mean[shown][1].float(),
        before=before,
        after=after,
    )


def kernel_activity(filter: TokenFilter, x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Computes how much each kernel adds to each token.

    Args:
        filter: Any filter with kernels.
        x: (batch, tokens, dim), its input.
        padding_mask: Boolean (batch, tokens), True where a token is padding.

    Returns:
        (batch, tokens, M): root mean square over dimensions of the kernel's output after activation
        and gain. A kernel for a single dimension (``depthwise``) has one value per token.
    """
    gains, activation = filter.after_taps()
    activate = {**ACTIVATIONS, "silu": F.silu}[activation]
    kernels = list(filter.taps())
    window = without_padding(x, padding_mask).transpose(1, 2)  # (batch, dim, tokens)
    own = gains is None and len(kernels[0]) == x.shape[-1]
    if not own:  # in parts, as the output of all kernels may not fit in memory
        kernels = [part for kernel in kernels for part in torch.split(kernel, _TOGETHER)]
    parts = []
    for kernel in kernels:
        sides = kernel_extent(kernel.shape[-1], filter.causal)
        wide = F.pad(window, sides)
        if own:
            found = activate(F.conv1d(wide, kernel.unsqueeze(1), groups=len(kernel)))
            parts.append(found.abs().transpose(1, 2))
            continue
        signals = wide.reshape(-1, 1, wide.shape[-1])
        found = activate(F.conv1d(signals, kernel.unsqueeze(1)))
        found = found.view(len(x), x.shape[-1], len(kernel), -1)
        if gains is not None:
            done = sum(part.shape[2] for part in parts)
            own_gains = gains[..., done : done + len(kernel)]
            found = found * own_gains.unsqueeze(-1)  # (M, 1) or (dim, M, 1)
        parts.append(found.square().mean(dim=1).sqrt().transpose(1, 2))
    strength = torch.cat(parts, dim=2)
    if isinstance(filter, AdaptiveFilterBank):
        strength = strength * filter.token_mask(x, padding_mask)
    if padding_mask is not None:
        strength = strength.masked_fill(padding_mask.unsqueeze(-1), 0)
    return strength


@contextmanager
def switched_off(filters: Sequence[TokenFilter]) -> Iterator[None]:
    """Bypasses filters: tokens pass unchanged."""

    def through(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return arguments[0]

    with ExitStack() as hooks:
        for filter in filters:
            hooks.enter_context(filter.register_forward_hook(through))
        yield


class _Pass(NamedTuple):
    """What a filter was given, and returned, in one pass."""

    input: Tensor
    output: Tensor
    mask: Tensor | None

    @property
    def padding(self) -> Tensor:
        """The padding mask (batch, tokens), also if the filter was given none."""
        tokens, mask = self.input, self.mask
        return tokens.new_zeros(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


@contextmanager
def _recorded(filters: dict[str, TokenFilter]) -> Iterator[dict[str, _Pass]]:
    """Yields the last pass of each filter, by its name."""
    seen: dict[str, _Pass] = {}

    def keeper(name: str) -> Any:
        def keep(module: Any, args: tuple[Any, ...], options: dict[str, Any], out: Any) -> None:
            mask = options.get("padding_mask", args[1] if len(args) > 1 else None)
            seen[name] = _Pass(args[0], out, mask)

        return keep

    with ExitStack() as hooks:
        for name, filter in filters.items():
            hooks.enter_context(filter.register_forward_hook(keeper(name), with_kwargs=True))
        yield seen


def _most_used(
    total: dict[str, Tensor], highest: dict[str, list[tuple[Tensor, ...]]], clips: list[int]
) -> tuple[UsedKernel, ...]:
    """Chooses the kernels that add most.

    Args:
        total: Power of each kernel (M,), by layer.
        highest: Largest activity of each kernel and its token, each (batch, M), by layer.
        clips: Index of the clip in each row of all batches.
    """
    size = {name: power.sqrt() for name, power in total.items()}
    whole = sum(float(one.sum()) for one in size.values()) or 1.0
    ranked = sorted(
        ((float(value), name, i) for name, one in size.items() for i, value in enumerate(one)),
        key=lambda entry: -entry[0],
    )
    used = []
    for value, name, i in ranked[:SHOWN]:
        strength, place = (torch.cat(parts)[:, i] for parts in zip(*highest[name], strict=True))
        best: dict[int, Peak] = {}  # one per clip, which may have several segments
        for row in strength.argsort(descending=True).tolist():
            peak = Peak(clips[row], int(place[row]))
            best.setdefault(peak.clip, peak)
        used.append(UsedKernel(name, i, value / whole, tuple(best.values())[:EXCITING]))
    return tuple(used)


def _own(chances: Tensor, label: Tensor) -> float:
    """Returns the probability of the label; of several labels, the lowest."""
    return float(chances[label] if label.dim() == 0 else chances[label > 0.5].min())


def _is_right(chances: Tensor, label: Tensor) -> bool:
    best = int(chances.argmax())
    return bool(label == best if label.dim() == 0 else label[best] > 0.5)


def _compare(
    model: AnyClassifier, filters: dict[str, TokenFilter], dataset: TokenDataset, clip: int
) -> tuple[Tensor, Tensor]:
    """Returns the output of the last filter for a clip with all filters off, and on."""
    name = list(filters)[-1]
    device = next(model.parameters()).device
    batch = next(plain_batches(dataset, [clip]))
    tokens, mask = batch.tokens[:1].to(device), batch.padding_mask[:1].to(device)
    with _recorded({name: filters[name]}) as seen:
        model(tokens, mask)
        after = seen[name].output[0].float().cpu()
        with switched_off(list(filters.values())):
            model(tokens, mask)
        before = seen[name].input[0].float().cpu()
        own = ~outside_clip(model, seen[name].padding)[0].cpu()
    return before[own], after[own]
