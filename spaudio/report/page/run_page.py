"""The page of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spaudio.audio.manifest import Clip, class_names
from spaudio.filters import TokenFilter, centre_frequency
from spaudio.report.calibration import count_above
from spaudio.report.drawing import LOWEST_DB
from spaudio.report.filter_plots import N_FFT, aligned_taps, filters_of
from spaudio.report.filter_use import FilterUse, Model, UsedKernel, measure_filter_use
from spaudio.report.nearest import find_nearest, some_of_each_class
from spaudio.report.occlusion import measure_importance
from spaudio.report.page.charts import SMALL, Line, heat_map, line_chart
from spaudio.report.page.judged import (
    TOP,
    Judged,
    by_own_confidence,
    errors_first,
    write_judged,
)
from spaudio.report.page.media import SECONDS, Media, picture_url
from spaudio.report.page.render import (
    SUSPECTS,
    Bar,
    Decided,
    FilterSection,
    Page,
    Row,
    ShownKernel,
    ShownPeak,
    write_page,
)
from spaudio.report.page.sections import (
    calibration_lines,
    command,
    learning_curves,
    reliability_chart,
    rows_of_one_label,
    warnings_of,
)
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd, stack_frames
from spaudio.tokens.scales import mel_edges

MOST_NEAREST = 200  # test clips whose similar training clips are looked for
MOST_FILTERED = 200  # test clips that filters are tried on
MOST_DECIDED = 12  # errors of which the decisive parts are looked for, by 250 passes each


@dataclass(frozen=True)
class RunResults:
    """What a page is made of.

    Args:
        before: The model before training.
        after: The trained model, in evaluation mode.
        train: The training split.
        test: The test split.
        classes: Class names.
        root: Folder that the clips' paths are relative to.
        multi_label: A clip may have several classes.
        raw: (clips, classes), probabilities of the test split before temperature scaling.
        probabilities: The same after it.
        labels: (clips,), or (clips, classes) for several labels.
        front_end: Of the run.
        facts: Sentences about data, split and model, by name.
        settings: All settings.
        records: The training log.
        corrected: As for `Page`.
    """

    before: Model
    after: Model
    train: TokenDataset
    test: TokenDataset
    classes: Sequence[str]
    root: Path
    multi_label: bool
    raw: Tensor
    probabilities: Tensor
    labels: Tensor
    front_end: FrontEnd
    facts: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    corrected: Sequence[tuple[str, str, str]] = ()


def write_run_page(run: Path, results: RunResults, report: Mapping[str, Any]) -> None:
    """Writes ``report.html`` and ``clips.jsonl``.

    Args:
        run: The run's folder.
        results: What the run has found.
        report: Content of ``report.json``.
    """
    clips = _judge(results)
    write_judged(run, clips)
    test, floor, metric = report["test"], report["floor"], report["metric"]
    several = results.multi_label
    if several:
        detail, trivial = f"macro AUC {test['auc']:.4f}", "class frequencies"
    else:
        low, high = test["interval"]
        detail, trivial = f"95 % interval {low:.3f} to {high:.3f}", "majority class"
    page = Page(
        title=report["recipe"],
        run=run.name,
        metric=metric,
        score=f"{test[metric]:.3f}",
        detail=detail,
        bars=[
            Bar("this model", test[metric], f"{test[metric]:.3f}"),
            Bar("classical floor", floor["svm"], f"{floor['svm']:.3f}", 1),
            Bar(trivial, floor["majority"], f"{floor['majority']:.3f}", 2),
        ],
        facts=results.facts,
        warnings=warnings_of(report),
        classes=results.classes,
        multi_label=several,
        clips=clips,
        columns=["Average precision", "AUC"] if several else ["Precision", "Recall", "F1"],
        rows=_rows_of_several(results, test["per_class"])
        if several
        else rows_of_one_label(results.classes, clips),
        calibration=calibration_lines(report["calibration"], several, len(clips)),
        reliability=reliability_chart(report["calibration"]),
        curves=learning_curves({"": results.records}, metric),
        settings=results.settings,
        command=command(results.settings),
        filters=_filters(results, report["filters"]),
        corrected=results.corrected,
        decided=_decided(results, clips),
    )
    highest = max(clip.sample_rate for clip in results.test.clips) / 2
    write_page(run, page, Media(results.root, run, highest))


def _judge(results: RunResults) -> list[Judged]:
    """Collects what the model says about the test clips, and finds similar training clips."""
    index = {name: i for i, name in enumerate(results.classes)}
    clips: list[Judged] = []
    for clip, row, raw in zip(results.test.clips, results.probabilities, results.raw, strict=True):
        names = class_names(clip.label, results.multi_label)
        labels = tuple(index[name] for name in names)
        chances, best = row.topk(min(TOP, len(results.classes)))
        top = tuple(zip(best.tolist(), chances.tolist(), strict=True))
        own = float(row[list(labels)].min())
        clips.append(
            Judged(clip.path, clip.group, clip.seconds, labels, top, own, float(raw.max()))
        )
    return _with_nearest(results, clips)


def _with_nearest(results: RunResults, clips: list[Judged]) -> list[Judged]:
    wrong = sorted((c for c in clips if not c.is_right), key=lambda c: -c.top[0][1])
    suspects = [] if results.multi_label else by_own_confidence(clips)[:SUSPECTS]
    chosen = {clip.path for clip in [*wrong, *suspects][:MOST_NEAREST]}
    names = results.classes
    # Of several labels, the one that the model believes least.
    least = {
        i: min(clip.labels, key=lambda label: float(results.probabilities[i, label]))
        for i, clip in enumerate(clips)
    }
    wanted = {
        i: [names[least[i]], names[clip.predicted]]
        for i, clip in enumerate(clips)
        if clip.path in chosen
    }
    near = find_nearest(results.after, results.train, results.test, wanted, results.multi_label)
    for i, (label, predicted) in wanted.items():
        found = near.get((i, label)), near.get((i, predicted))
        clips[i] = Judged(**{**vars(clips[i]), "near_label": found[0], "near_predicted": found[1]})
    return clips


@torch.inference_mode()
def _decided(results: RunResults, clips: Sequence[Judged]) -> dict[str, Decided]:
    """Finds what decided the most confident errors, where the input has bands."""
    config = results.front_end.config
    if config.front_end != "spectrogram" or not _is_whole(results):
        return {}
    number = {clip.path: i for i, clip in enumerate(clips)}
    edges = mel_edges(config.bands, config.f_min, config.top)
    hertz = np.concatenate([edges[:-2], [config.top]])  # a band begins below its centre
    device = next(results.after.parameters()).device
    found = {}
    for clip in errors_first(clips)[:MOST_DECIDED]:
        if clip.is_right or clip.seconds > SECONDS:
            continue

        def log_odds(
            variants: Sequence[npt.NDArray[np.float32]], predicted: int = clip.predicted
        ) -> npt.NDArray[np.float64]:
            tokens = np.stack([stack_frames(one, config.stack) for one in variants])
            logits = results.after(torch.from_numpy(tokens).to(device)).double().cpu()
            chosen = logits[:, predicted]
            if not results.multi_label:
                others = torch.arange(logits.shape[1]) != predicted
                chosen = chosen - logits[:, others].logsumexp(dim=1)
            return np.asarray(chosen)

        frames = results.front_end.normalise(results.test.frames(number[clip.path]))
        cells = measure_importance(frames, log_odds)
        seconds = np.minimum(cells.steps * config.frame_seconds, clip.seconds)
        found[clip.path] = Decided(cells.drop, seconds, hertz[cells.bands])
    return found


def _is_whole(results: RunResults) -> bool:
    """Whether no clip is cut into segments, in which tokens and frames have another place."""
    return len(results.test) == len(results.test.clips)


def _rows_of_several(results: RunResults, per_class: Mapping[str, Any]) -> list[Row]:
    rows = []
    for number, (name, scores) in enumerate(per_class.items()):
        chances = results.probabilities[:, number].double().numpy()
        above = count_above(chances, results.labels[:, number].double().numpy())
        texts = ["" if scores[key] is None else f"{scores[key]:.3f}" for key in ("ap", "auc")]
        rows.append(Row(number, name, int(scores["support"]), texts, above))
    return rows


def _filters(results: RunResults, described: Sequence[str]) -> FilterSection | None:
    """Draws the filters and what they do on some test clips."""
    before, after = filters_of(results.before.encoder), filters_of(results.after.encoder)
    if not after:
        return None
    chosen = some_of_each_class(results.test.clips, results.multi_label, MOST_FILTERED)
    numbers = sorted({number for found in chosen.values() for number in found})
    use = measure_filter_use(results.after, results.test, numbers, results.multi_label)
    assert use is not None  # there are filters
    seconds = results.front_end.config.token_seconds
    shown = [_kernel(kernel, after[kernel.layer], results) for kernel in use.kernels]
    clip = results.test.clips[use.clip]
    order = use.on.argsort(descending=True)[:TOP].tolist()
    order += [i for i in use.off.argsort(descending=True)[:2].tolist() if i not in order]
    span = len(use.after) * seconds
    rank = use.after.argmax(dim=0).argsort()  # dimensions by the token of their peak
    limit = float(use.after.abs().quantile(0.99)) or 1.0
    activations = [
        heat_map(
            picture_url(part.T[rank].numpy(), "RdBu_r", -limit, limit),
            title=f"embeddings after the last filter, filters {name}",
            x="seconds",
            y="dimension",
            xlim=(0, span),
            ylim=(part.shape[1], 0),
        )
        for name, part in (("off", use.before), ("on", use.after))
    ]
    return FilterSection(
        description=list(described),
        layers=[(name, _layer(before[name], after[name], seconds)) for name in after],
        kernels=shown,
        switched=_switched(use, clip),
        clip=clip.path,
        chances=[(results.classes[i], float(use.on[i]), float(use.off[i])) for i in order],
        activations=activations,
    )


def _switched(use: FilterUse, clip: Clip) -> str:
    return (
        f"Without another training, {use.accuracy_on:.1%} of {use.clips} test clips are right with "
        f"the filters and {use.accuracy_off:.1%} with all of them off. The label of {clip.path} "
        f"({clip.label}) loses most."
    )


def _layer(before: TokenFilter, after: TokenFilter, seconds: float) -> list[Any]:
    """Kernels and responses before and after training, each kernel one line, by frequency."""
    drawings = []
    for stage, filter in (("before", before), ("after", after)):
        response = filter.frequency_response(N_FFT)
        order = centre_frequency(response).argsort(descending=True)
        taps, first = aligned_taps(filter)
        limit = float(taps.nan_to_num().abs().max()) or 1.0
        magnitude = response.abs()[order]
        peak = magnitude.amax(dim=1, keepdim=True).clamp_min(torch.finfo(magnitude.dtype).tiny)
        decibels = 20 * (magnitude / peak).clamp_min(10 ** (LOWEST_DB / 20)).log10()
        edges = (first - 0.5, first + taps.shape[1] - 0.5)
        count = len(order)
        drawings += [
            heat_map(
                picture_url(taps[order].numpy(), "RdBu_r", -limit, limit),
                title=f"{stage}: taps",
                x="tokens from the current one",
                y="kernel, by frequency",
                xlim=edges,
                ylim=(0, count),
                size=SMALL,
            ),
            heat_map(
                picture_url(decibels.numpy(), "viridis", LOWEST_DB, 0.0),
                title=f"{stage}: response (dB)",
                x="modulation (Hz)",
                y="kernel, by frequency",
                xlim=(0, 0.5 / seconds),
                ylim=(0, count),
                size=SMALL,
            ),
        ]
    return drawings


def _kernel(kernel: UsedKernel, filter: TokenFilter, results: RunResults) -> ShownKernel:
    seconds = results.front_end.config.token_seconds
    response = filter.frequency_response(N_FFT)[kernel.number].abs()
    hertz = np.linspace(0, 0.5 / seconds, len(response))
    points = list(zip(hertz.tolist(), response.tolist(), strict=True))
    name = f"{kernel.layer}, kernel {kernel.number}"
    drawing = line_chart(
        [Line("", points)],
        title=f"magnitude response of {name}",
        x="modulation (Hz)",
        y="gain",
        ylim=(0, 1.05 * max(float(response.max()), 1e-9)),
        size=SMALL,
    )
    peaks = []
    for peak in kernel.peaks:
        clip = results.test.clips[peak.clip]
        second = (peak.token + 0.5) * seconds
        # A longer clip is shown in part.
        known = _is_whole(results) and second < clip.seconds <= SECONDS
        peaks.append(ShownPeak(clip.path, clip.label, round(second, 3) if known else None))
    return ShownKernel(name, f"{kernel.share:.1%}", drawing, peaks)
