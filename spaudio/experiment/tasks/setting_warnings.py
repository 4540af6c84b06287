"""Warnings about settings that have no effect, or are probably unintended."""

import fnmatch
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np

from spaudio.audio.manifest import Clip
from spaudio.errors import ConfigError, some
from spaudio.experiment.data import AudioData
from spaudio.experiment.processes import processes
from spaudio.experiment.settings import AudioSettings, Settings
from spaudio.model.classifier import Classifier
from spaudio.model.encoder import EncoderConfig
from spaudio.model.pretrained.adapted import AnyClassifier
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.spectrogram_front_end import SpectrogramFrontEnd
from spaudio.tokens.waveform_front_end import FULL_SCALE
from spaudio.training.loop import total_epochs

_LOOKED_AT = 200  # about as many clips are examined for their level
# A share of mel powers. It is 0.65 on RAVDESS, which loses nothing by it, and 0.84 on spoken digits
# that were made 30 dB quieter, where a support vector machine loses 10 points.
_HIDDEN = 0.8
_FEWEST_STEPS = 10  # of 16-bit samples; at such a level, rounding noise is 31 dB below the sound

#: For a name or a pattern of names, such as ``pretrain.*``, why these settings have no effect;
#: False if they have an effect.
Idle = Mapping[str, str | Literal[False]]

# Settings that a head on pooled statistics, which is fitted, not trained step by step, does not
# read; ``optim`` is all of them.
_OF_STEPS = {"optim", *(f"trainer.{name}" for name in (
    "epochs", "min_steps", "max_epochs", "ema", "label_smoothing", "clip_norm", "accumulate",
    "precision",
))}  # fmt: skip


def overruled(settings: Settings, steps: int) -> Iterator[str]:
    """Yields warnings about given settings that another one overrules.

    Args:
        settings: Settings of the run.
        steps: Optimizer steps per epoch.
    """
    trainer, given = settings.trainer, settings.given.keys()
    epochs = total_epochs(trainer, steps)
    for name in ("epochs", "max_epochs"):
        if f"trainer.{name}" not in given or "trainer.min_steps" in given:
            continue
        if epochs > max(trainer.epochs, (asked := getattr(trainer, name))):
            yield (
                f"trainer.min_steps={trainer.min_steps} prolongs trainer.{name}={asked} to "
                f"{epochs} epochs; give trainer.min_steps=0 to keep trainer.epochs="
                f"{trainer.epochs}"
            )
    if "trainer.min_steps" in given and epochs * steps < trainer.min_steps:
        yield (
            f"trainer.max_epochs={trainer.max_epochs} ends the run after {epochs} epochs, which "
            f"are {epochs * steps:,} steps, fewer than trainer.min_steps={trainer.min_steps:,}; "
            f"give trainer.max_epochs={math.ceil(trainer.min_steps / steps)}"
        )
    limits_none = trainer.min_steps > 0 and trainer.max_epochs < epochs == trainer.epochs
    if "trainer.max_epochs" in given and limits_none:
        yield (
            f"trainer.max_epochs={trainer.max_epochs} limits only the epochs that "
            f"trainer.min_steps adds; to train less, lower trainer.epochs={trainer.epochs}"
        )
    idle: Idle = {
        "trainer.max_epochs": trainer.min_steps == 0 and "with trainer.min_steps=0",
        "model.filter_*": settings.filter.name == "none" and "with filter=none",
        "model.max_tokens": settings.model.positions != "learned"
        and "without model.positions=learned",
        "cluster_options*": settings.cluster is None and "without cluster=slurm",
    }
    yield from _idle(given, idle)


def overruled_audio(settings: AudioSettings, data: AudioData, steps: int) -> Iterator[str]:
    """Yields the warnings of :func:`overruled`, and more about settings of audio.

    Args:
        settings: Settings of the run.
        data: Its splits.
        steps: Optimizer steps per epoch.
    """
    yield from overruled(settings, steps)
    given, tokens, augment = settings.given.keys(), settings.tokens, settings.augment
    applied = data.train.augment
    ignored = () if applied is None else applied.ignored
    powers = augment.mixup_power and applied is not None and "mixup_power" not in ignored
    idle: dict[str, str | Literal[False]] = {}
    # What a pretrained encoder ignores is named by `ignored_by_encoder`.
    if settings.adapt is None:
        idle |= {
            "tokens.stem_channels": tokens.stem == "none" and "without a stem",
            "tokens.spectrogram.*": tokens.learned and "with tokens=waveform",
            "tokens.waveform.*": not tokens.learned and "without tokens=waveform",
            "tokens.spectrogram.pcen.*": not tokens.learned
            and tokens.spectrogram.scaling != "pcen"
            and "without tokens.spectrogram.scaling=pcen",
            "tokens.spectrogram.top_db": not tokens.learned
            and tokens.spectrogram.scaling == "pcen"
            and "with tokens.spectrogram.scaling=pcen",
            "tokens.f_m*": tokens.learned
            and tokens.waveform.init == "random"
            and "with tokens.waveform.init=random",
        }
    idle["pretrain.*"] = settings.pretrain.objective == "none" and "without pretrain=masked"
    if settings.adapt in (None, "full"):
        idle |= {
            "augment.time_mask": not augment.time_masks and "without augment.time_masks",
            "augment.mel_mask": not augment.mel_masks and "without augment.mel_masks",
            "augment.time_masks": not augment.time_mask and "without augment.time_mask",
            "augment.mel_masks": not augment.mel_mask and "without augment.mel_mask",
            "augment.mixup_power": powers and not augment.mixup and "without augment.mixup",
        }
    yield from _idle(given, idle)
    trainer = settings.trainer
    mixed = [
        f"augment.{name}"
        for name in ("mixup", "cutmix", "mixstyle")
        if getattr(augment, name) and name not in ignored
    ]
    alone = trainer.batch_size <= trainer.accumulate * processes()
    if mixed and not settings.fits_head_only and alone:
        yield (
            f"trainer.batch_size={trainer.batch_size}, divided by trainer.accumulate="
            f"{trainer.accumulate} and {processes()} processes, is one clip; as clips are mixed "
            f"with others of their part, {', '.join(mixed)} have no effect"
        )
    if powers and augment.mixup and data.front_end.nats is None:
        yield "augment.mixup_power=true has no effect: it needs log-mel frames without PCEN"
    for name in sorted(given & set(data.prepared.unused)):
        yield f"the data are split already, so {name} has no effect"
    if data.held_out:
        return
    option = "valid_fraction"
    usable = option in settings.prep_options and option not in data.prepared.unused
    remedies = {"validation.fraction": f"; give {option}" if usable else "", "validation.by": ""}
    for name in sorted(given & remedies.keys()):
        yield (
            f"the data have a validation split of their own, so {name} has no effect"
            f"{remedies[name]}"
        )


def _idle(given: Set[str], idle: Idle) -> Iterator[str]:
    """Yields a warning about each given setting that has no effect."""
    for pattern, reason in idle.items():
        for name in sorted(fnmatch.filter(given, pattern)) if reason else ():
            yield f"{name} has no effect {reason}"


def ignored_by_front_end(settings: AudioSettings, data: AudioData) -> Iterator[str]:
    """Yields a warning that names the augmentation for other front-ends, if any is set.

    Args:
        settings: Settings of the run. For a pretrained encoder, there is no warning: see
            :func:`ignored_by_encoder`.
        data: Its splits.
    """
    if settings.adapt is not None or data.train.augment is None:
        return
    unused = [name for name in data.train.augment.ignored if getattr(settings.augment, name)]
    if unused:
        names = ", ".join(f"augment.{name}" for name in unused)
        yield f"tokens={settings.tokens.front_end} ignores {names}"


def ignored_by_encoder(settings: AudioSettings, data: AudioData) -> Iterator[str]:
    """Yields a warning that names the settings that a pretrained encoder ignores, if any.

    Args:
        settings: Settings of the run.
        data: Its splits.
    """
    active = [name for name, value in vars(settings.augment).items() if value]
    used = {"time_mask", "mel_mask"}  # which are sizes
    if not settings.fits_head_only:
        used |= {"mixup", "cutmix"}
    if data.train.augment is not None:
        used |= set(active) - set(data.train.augment.ignored)
    unused = [f"augment.{name}" for name in active if name not in used]
    unused += [name for name in settings.given if not _is_read(name, settings)]
    if unused:
        yield f"model=pretrained adapt={settings.adapt} ignores {', '.join(unused)}"


def _is_read(name: str, settings: AudioSettings) -> bool:
    """Whether this way of adapting a pretrained encoder reads a setting."""
    adapt, group = settings.adapt, name.partition(".")[0]
    if group == "tokens" or name in {f"model.{one.name}" for one in fields(EncoderConfig)}:
        return False
    if name == "model.lora_rank":
        return adapt == "lora"
    if name in ("model.adapt_layers", "model.head_lr_scale"):
        return adapt != "probe"
    if {group, name} & _OF_STEPS:
        return not settings.fits_head_only
    return True


def replaced(settings: AudioSettings) -> Iterator[str]:
    """Yields a message with the replaced settings of the recipe's ``config.yaml``, if any."""
    if settings.replaced:
        yield (
            f"model=pretrained replaces settings of config.yaml: {', '.join(settings.replaced)}. "
            "Settings on the command line are kept"
        )


def slow_clips(settings: AudioSettings, clips: Sequence[Clip]) -> Iterator[str]:
    """Yields a warning about clips whose sample rate is too low for the upper bands, if any.

    Args:
        settings: Settings of the run.
        clips: All clips.
    """
    tokens, lowest = settings.tokens, min(clip.sample_rate for clip in clips)
    slow = [clip.path for clip in clips if clip.sample_rate / 2 < tokens.top]
    if not slow:
        return
    rest = {clip.label for clip in clips if clip.sample_rate / 2 >= tokens.top}
    dispensable = 2 * len(slow) <= len(clips) and rest == {clip.label for clip in clips}
    trap = ", so a model may tell them apart by this" if len(slow) < len(clips) else ""
    remedies = [f"leave out {some(slow)}"] if dispensable else []
    if settings.adapt is None:  # the bands of a pretrained encoder are its own
        random = tokens.learned and tokens.waveform.init == "random"
        changes: list[tuple[str, Any]] = [("sample_rate", lowest)]
        changes[:0] = [] if random else [("f_max", lowest / 2)]
        remedies += [
            f"give tokens.{name}={value:g}" for name, value in changes if _fits(tokens, name, value)
        ]
    remedy = ", or ".join(remedies)
    yield (
        f"{len(slow)} of {len(clips)} clips have too low a sample rate for the bands up to "
        f"{tokens.top:g} Hz (lowest rate {lowest} Hz): above {lowest / 2:g} Hz they are "
        f"empty{trap}" + (f". {remedy[0].upper()}{remedy[1:]}" if remedy else "")
    )


def _fits(tokens: TokenConfig, name: str, value: float) -> bool:
    """Whether the front-end takes a value, which may leave bands that are too narrow."""
    try:
        given: dict[str, Any] = {name: value}
        changed = replace(tokens, **given)
        if not tokens.learned:
            SpectrogramFrontEnd(changed)
    except ConfigError:
        return False
    return True


def quiet_recordings(settings: AudioSettings, train: TokenDataset) -> Iterator[str]:
    """Yields a warning if most of the training split's sound is lost because it is quiet.

    In spectrogram frames, the offset of the logarithm hides it; samples are rounded to 16 bits.

    Args:
        settings: Settings of the run.
        train: Its training split.
    """
    chosen = range(0, len(train), max(1, len(train) // _LOOKED_AT))
    if settings.tokens.learned:
        levels = (float(np.square(train.frames(item)).mean()) for item in chosen)
        if (level := math.sqrt(statistics.median(levels)) * FULL_SCALE) < _FEWEST_STEPS:
            yield (
                f"the recordings are very quiet: half of the training clips have a root mean "
                f"square of {level:.1f} steps of 16-bit samples or less, which tokens=waveform "
                "rounds to; amplify the files, or take tokens=spectrogram "
                "tokens.spectrogram.log_offset=1e-10"
            )
        return
    spectrogram = settings.tokens.spectrogram
    if spectrogram.scaling != "log":
        return
    # Below, the offset is more than half of the value.
    level = math.log(2 * spectrogram.log_offset)
    hidden = statistics.median(float((train.frames(item) < level).mean()) for item in chosen)
    if hidden > _HIDDEN:
        yield (
            f"the recordings are very quiet: in half of the training clips, {hidden:.0%} of the "
            "mel powers or more are below tokens.spectrogram.log_offset="
            f"{spectrogram.log_offset:g}, which hides them; give "
            f"tokens.spectrogram.log_offset={spectrogram.log_offset * 1e-4:g}"
        )


def long_kernels(model: AnyClassifier, longest: int, crop: float = 0.0) -> Iterator[str]:
    """Yields a warning if kernels are longer than all that training sees.

    Args:
        model: The model of the run.
        longest: Length of the longest training clip, segment or excerpt, in tokens.
        crop: Length of excerpts, in seconds; 0 if there are none.
    """
    filters = model.token_filters().values()
    reach, name = max(((max(f.extent), f.name) for f in filters), default=(0, ""))
    if reach >= longest:
        yield (
            f"the kernels of filter={name} reach {reach} tokens to one side, but training sees at "
            f"most {longest} at a time, where their outer taps have no effect. Give shorter kernels"
            + (", or longer excerpts (augment.crop)" if crop else "")
            + (
                ", or finer tokens (tokens.hop, tokens.stack)"
                if isinstance(model, Classifier)
                else ""
            )
        )


def untrained_positions(
    settings: AudioSettings, trained: int, longest: int, token_seconds: float
) -> Iterator[str]:
    """Yields a warning if a clip reaches learned positions that are not trained.

    Args:
        settings: Settings of the run.
        trained: The most tokens that a training clip, segment or excerpt has.
        longest: Length of the longest clip or segment of all splits, in tokens.
        token_seconds: Duration of a token, in seconds.
    """
    if settings.model.positions == "learned" and trained < longest:
        crop = settings.augment.crop
        yield (
            f"model.positions=learned: training sees at most {trained * token_seconds:.1f} s at a "
            f"time, but clips or segments last up to {longest * token_seconds:.1f} s, so that "
            "later positions are never trained. Give "
            + (f"augment.crop=0 (now {crop:g}), or " if crop else "")
            + "model.positions=rotary"
        )


def unshifted_excerpts(settings: AudioSettings, shortest: float) -> Iterator[str]:
    """Yields a warning if ``augment.time_shift`` is given but all training clips are cut.

    Args:
        settings: Settings of the run.
        shortest: Length of the shortest training clip or segment, in seconds.
    """
    augment = settings.augment
    if settings.adapt is not None:  # no excerpts are taken
        return
    # At its fastest, a clip of this length is still longer than an excerpt.
    cut = 0 < augment.crop < shortest * (1 - augment.tempo)
    if cut and "augment.time_shift" in settings.given and augment.time_shift:
        yield (
            f"augment.time_shift={augment.time_shift:g} has no effect: all training clips are "
            f"longer than augment.crop={augment.crop:g} s, and the position of an excerpt is random"
        )
