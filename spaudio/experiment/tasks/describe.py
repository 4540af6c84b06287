"""Sentences about a run's data, split and model, for its page."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from spaudio.audio.background import BACKGROUND
from spaudio.audio.manifest import SPLITS, Clip
from spaudio.errors import some
from spaudio.experiment.data import AudioData
from spaudio.experiment.settings import AudioSettings
from spaudio.report.report_files import ALIGNED, pretraining, selection
from spaudio.report.run_command import shortened

_SHOWN = 10  # most clips that are listed as left out
_NOT_SPLIT = ("source", "labels")  # settings of a dataset that say nothing about its split


def describe_run(
    settings: AudioSettings, data: AudioData, report: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Describes how a result came about.

    Args:
        settings: Settings of the run.
        data: Its splits.
        report: Facts about training and model, as in ``report.json``.
    """
    count = report["clips"]
    found = {
        "Data": [
            _about(settings, data),
            f"{count['train']:,} training, {count['valid']:,} validation and {count['test']:,} "
            "test clips",
        ],
        "Split": report["split"],
        "Left out": _left_out(data),
        "Notes": report["notes"],
        "Model": [
            _model(settings, report),
            f"trained on the validation split as well; {selection(report)}"
            if not report["valid_held_out"]
            else f"{selection(report)}; the test split was used once, at the end",
            *_pretraining(report),
            f"training took {report['seconds']['train']:,.0f} s",
            *_aligned(report),
        ],
    }
    return {name: lines for name, lines in found.items() if lines}


def describe_folds(
    settings: AudioSettings, data: AudioData, report: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Describes how the result over all folds came about; arguments as in :func:`describe_run`."""
    given = _given(settings, [settings.fold_by.key, *data.prepared.unused])
    found = {
        "Data": [_about(settings, data), f"{len(data.clips):,} clips"],
        "Split": [
            *([given] if given else []),
            f"Each {settings.fold_by.key} was the test split of its own run; its probabilities are "
            "those of a model that was not trained on it",
            *([] if report["valid_held_out"] else ["Validation clips were trained on as well"]),
        ],
        "Left out": _left_out(data),
        # Not those of one fold, such as on the classes that its test split lacks.
        "Notes": [*data.prepared.warnings, *_never_tested(report)],
        "Model": [_model(settings, report), *_pretraining(report), *_aligned(report)],
    }
    return {name: lines for name, lines in found.items() if lines}


def _never_tested(report: Mapping[str, Any]) -> list[str]:
    rows = zip(report["classes"], report["confusion"], strict=True)
    lacking = [name for name, row in rows if not any(row)]
    return [f"no test split has a clip of {some(lacking)}"] if lacking else []


def _about(settings: AudioSettings, data: AudioData) -> str:
    seconds = {f"{found([c.seconds for c in data.clips]):.2f}": None for found in (min, max)}
    rates = sorted({c.sample_rate for c in data.clips})
    shown = " and ".join(f"{rate:,}" for rate in rates)
    if len(rates) > 2:
        shown = f"{rates[0]:,} to {rates[-1]:,}"
    return (
        f"{settings.about.title}; licence: {settings.about.licence}; {len(data.classes):,} "
        f"classes, {' to '.join(seconds)} s, sampled at {shown} Hz"
    )


def _model(settings: AudioSettings, report: Mapping[str, Any]) -> str:
    return (
        f"input: {_input(settings)}; filter: {settings.filter.name}; "
        f"{report['num_params']:,} parameters; seed {settings.seed}"
    )


def _input(settings: AudioSettings) -> str:
    tokens = settings.tokens
    if tokens.front_end == "spectrogram":
        scaled = "PCEN of a mel" if tokens.spectrogram.scaling == "pcen" else "log-mel"
        cut = ", unusually long pauses at the ends cut" if tokens.trim else ""
        return f"{scaled} spectrogram, normalised by {tokens.normalise}{cut}"
    named = {
        "waveform": "waveform, through a learned filterbank",
        "pretrained": "that of the pretrained encoder",
    }
    return named.get(tokens.front_end, tokens.front_end)


def _aligned(report: Mapping[str, Any]) -> list[str]:
    return [ALIGNED.replace("`", "")] if "aligned" in report else []


def _pretraining(report: Mapping[str, Any]) -> list[str]:
    if "pretrain" not in report:
        return []
    source = shortened(report["pretrain"]["source"])
    return pretraining({"pretrain": report["pretrain"] | {"source": source}})


def _given(settings: AudioSettings, without: Collection[str]) -> str:
    """The dataset's own settings, which decide the split."""
    given = {k: v for k, v in settings.prep_options.items()
             if k not in (*_NOT_SPLIT, *without) and v is not None}  # fmt: skip
    if settings.fold is not None and "fold" not in without:
        given["fold"] = settings.fold
    return ", ".join(f"{name}={shortened(value, name)}" for name, value in given.items())


def describe_split(settings: AudioSettings, data: AudioData) -> list[str]:
    """Says which settings split the clips, and which groups are in several splits."""
    validation = settings.validation
    lines = [_given(settings, data.prepared.unused)]
    clips = _own_clips(settings, data)
    own = len({clip.group for clip in clips}) == len(clips)
    groups = _groups(clips)
    learned = groups["train"] | groups["valid"]
    both, known = groups["test"] & learned, groups["valid"] & groups["train"]
    if own:
        lines.append(
            "Clips are not grouped: if several are from one person or recording, the score does "
            "not show how well the model does on new ones"
        )
    elif both:
        lines.append(
            f"{len(both):,} of the {len(groups['test']):,} groups (speakers, recordings …) of the "
            "test split are also in the training or validation split"
        )
    else:
        lines.append(
            "No group (speaker, recording …) of the test split is in another split; groups in the "
            f"test split: {len(groups['test']):,}, in the others: {len(learned):,}. The 95 % "
            "interval counts clips, not groups, so for new groups it is too narrow"
        )
    if known and not own:
        lines.append(
            f"{len(known):,} of the {len(groups['valid']):,} groups of the validation split are "
            "also in the training split"
        )
    if len(clips) < len(data.clips):
        lines.append(
            "Background clips: no part of a recording is in two splits, but different parts of one "
            "recording may be"
        )
    if data.held_out:
        lines.append(
            f"Validation: {validation.fraction:.0%} of the training clips were drawn, by "
            f"{validation.by}"
        )
    return [line for line in lines if line]


def is_calibrated_on_known_groups(settings: AudioSettings, data: AudioData) -> bool:
    """Whether groups of the validation split were trained on, but none of the test split."""
    groups = _groups(_own_clips(settings, data))
    known = groups["train"] | groups["valid"]
    return bool(groups["train"] & groups["valid"]) and not groups["test"] & known


def _own_clips(settings: AudioSettings, data: AudioData) -> list[Clip]:
    """Returns the clips without those of background recordings, which are in every split.

    Background that is cut from the annotated recordings has their groups.
    """
    if settings.prep_options.get("background") is None:
        return list(data.clips)
    return [clip for clip in data.clips if not clip.path.startswith(f"{BACKGROUND}/")]


def _groups(clips: Iterable[Clip]) -> dict[str, set[str]]:
    """Returns the groups of the clips of each split."""
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for clip in clips:
        found[clip.split].add(clip.group)
    return found


def _left_out(data: AudioData) -> list[str]:
    lines = [f"{path}: {reason}" for path, reason in data.prepared.skipped[:_SHOWN]]
    if len(data.prepared.skipped) > _SHOWN:
        lines.append(f"and {len(data.prepared.skipped) - _SHOWN:,} more")
    return lines
