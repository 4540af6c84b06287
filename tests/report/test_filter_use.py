import pytest
import torch

from spaudio.filters import AdaptiveFilterBank, DepthwiseFilter, FIRFilter, make_filter
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.report.filter_use import (
    EXCITING,
    SHOWN,
    kernel_activity,
    measure_filter_use,
    switched_off,
)
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.segments import SegmentConfig
from tests.filters.cases import CASES, DIM, build, padding_mask
from tests.fixtures import toy

BANKS = [name for name in CASES if name.startswith(("bank", "multiscale", "adaptive"))]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", [*BANKS, "depthwise-odd", "fir-even", "fir-odd-per-dim"])
@torch.no_grad()
def test_activity_is_what_a_filter_adds_with_one_kernel_alone(case: str, causal: bool) -> None:
    filter = build(case, causal=causal)
    x, mask = torch.randn(3, 9, DIM), padding_mask(3, 9)
    found = kernel_activity(filter, x, mask)
    if isinstance(filter, DepthwiseFilter) or case == "fir-odd-per-dim":
        torch.testing.assert_close(found, filter.filtered(x, mask).abs())
        return
    if isinstance(filter, FIRFilter):
        expected = filter.filtered(x, mask).square().mean(dim=2, keepdim=True).sqrt()
        torch.testing.assert_close(found, expected)
        return
    bank = filter.bank if isinstance(filter, AdaptiveFilterBank) else filter
    gains = bank.gains.clone()
    for kernel in range(gains.shape[-1]):
        bank.gains.zero_()
        bank.gains[..., kernel] = gains[..., kernel]
        alone = filter.filtered(x, mask).square().mean(dim=2).sqrt()
        torch.testing.assert_close(found[..., kernel], alone, atol=1e-5, rtol=1e-4)


def test_filters_that_are_off_change_nothing() -> None:
    filter = make_filter("bank", num_filters=3, kernel_size=2)
    x = torch.randn(1, 4, 2)
    with switched_off([filter]):
        assert torch.equal(filter(x), x)
    assert not torch.equal(filter(x), x)


@torch.inference_mode()
def test_filter_use_is_that_of_each_segment_alone() -> None:
    """Clips of one to five segments, some padded in their batch; off is a model without filters."""
    shape = EncoderConfig(dim=8, layers=2, heads=2, dropout=0.0)
    model = Classifier(6, 2, shape, {"name": "bank", "num_filters": 3}).eval()
    generator = torch.Generator().manual_seed(6)
    for parameter in model.parameters():
        parameter.normal_(0, 0.5, generator=generator)
    bare = Classifier(6, 2, shape, {"name": "none"}).eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    cut, clips = SegmentConfig(0.05), toy.dataset(range(40)).clips
    data = TokenDataset(clips, "ab", toy.ToyCache(), toy.FRONT_END, segments=cut)  # type: ignore[arg-type]
    chosen, temperature = list(range(3, 33)), 3.0
    found = measure_filter_use(model, data, chosen, False, temperature)

    inputs: dict[int, torch.Tensor] = {}
    for layer, filter in enumerate(model.encoder.filters):
        filter.register_forward_hook(lambda _, x, out, n=layer: inputs.update({n: x[0], 9: out}))
    power: dict[tuple[str, int], float] = {}
    peaks: dict[tuple[str, int], list[tuple[float, int, int]]] = {}
    chances: dict[int, list[torch.Tensor]] = {clip: [] for clip in chosen}
    for item in range(len(data)):
        clip = int(data.clip(item).path)
        if clip not in chances:
            continue
        tokens = torch.from_numpy(data.frames(item))[None]
        logits = [each(tokens, torch.zeros(tokens.shape[:2], dtype=torch.bool))
                  for each in (model, bare)]  # fmt: skip
        chances[clip].append(torch.cat(logits).softmax(dim=1))
        for layer, filter in enumerate(model.encoder.filters):
            activity = kernel_activity(filter, inputs[layer], None)[0]  # type: ignore[arg-type]
            for kernel, course in enumerate(activity.T):
                key = (f"layer {layer}", kernel)
                power[key] = power.get(key, 0) + float(course.square().sum())
                peaks.setdefault(key, []).append((float(course.max()), clip, int(course.argmax())))
    mean = {clip: torch.stack(parts).mean(dim=0) ** (1 / temperature)
            for clip, parts in chances.items()}  # fmt: skip
    mean = {clip: shares / shares.sum(dim=1, keepdim=True) for clip, shares in mean.items()}
    right = [[int(p.argmax()) == clip % 2 for p in shares] for clip, shares in mean.items()]
    assert (found.accuracy_on, found.accuracy_off) == pytest.approx(
        tuple(sum(each) / 30 for each in zip(*right, strict=True))
    )
    assert found.accuracy_on != found.accuracy_off
    lost = {clip: float(shares[0, clip % 2] - shares[1, clip % 2]) for clip, shares in mean.items()}
    assert (found.clips, found.clip) == (30, max(lost, key=lambda clip: lost[clip]))
    torch.testing.assert_close(torch.stack([found.on, found.off]), mean[found.clip])
    size = {key: value**0.5 for key, value in power.items()}
    ranked = sorted(size, key=lambda key: -size[key])[:SHOWN]
    assert [(one.layer, one.number) for one in found.kernels] == ranked
    for one, key in zip(found.kernels, ranked, strict=True):
        assert one.share == pytest.approx(size[key] / sum(size.values()), rel=1e-4)
        best: dict[int, int] = {}  # token by clip, each clip once
        for _, clip, token in sorted(peaks[key], reverse=True):
            best.setdefault(clip, token)
        assert [(p.clip, p.token) for p in one.peaks] == list(best.items())[:EXCITING]


@torch.inference_mode()
def test_probabilities_near_1_are_those_of_the_report() -> None:
    """Several labels per clip, whose temperature divides the logit of each class."""
    shape = EncoderConfig(dim=8, layers=1, heads=2, dropout=0.0)
    model = Classifier(6, 2, shape, {"name": "bank", "num_filters": 3}).eval()
    model.head[-1].bias.fill_(20.0)
    clips = toy.dataset(range(2)).clips
    data = TokenDataset(clips, "ab", toy.ToyCache(), toy.FRONT_END, multi_label=True)  # type: ignore[arg-type]
    found = measure_filter_use(model, data, range(2), True, 4.0)
    tokens = torch.from_numpy(data.frames(found.clip))[None]
    logits = model(tokens, torch.zeros(tokens.shape[:2], dtype=torch.bool))[0]
    torch.testing.assert_close(found.on, (logits / 4).sigmoid())
