"""Data of an audio recipe: the tokens of its three splits."""

from dataclasses import dataclass
from pathlib import Path

from spaudio.audio.manifest import Clip
from spaudio.audio.prepare import prepare
from spaudio.audio.split import carve_validation, split_by_fold
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.compose import prep_function
from spaudio.experiment.settings import AudioSettings
from spaudio.report.floor import FloorFeatures
from spaudio.tokens.augment import Augment
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd, make_front_end


@dataclass(frozen=True)
class AudioData:
    """The splits of a recipe as tokens, with the facts about them.

    Args:
        train: With augmentation.
        valid: The data set's own validation split, or a part of its training clips.
        test: Measured once, after training.
        clips: All clips, each with its split.
        skipped: Number of unusable clips that were left out (``skip_bad``).
        classes: Class names, in the order of the model's outputs.
        root: Folder that the clips' paths are relative to.
        frames: Frames of all clips.
        front_end: Its normaliser is fitted on the training split.
        floor: Feature vectors of the classical baseline.
        multi_label: Whether a clip may have several classes.
        longest_seconds: Length of the longest clip or segment.
    """

    train: TokenDataset
    valid: TokenDataset
    test: TokenDataset
    clips: list[Clip]
    skipped: int
    classes: tuple[str, ...]
    root: Path
    frames: FrameCache
    front_end: FrontEnd
    floor: FloorFeatures
    multi_label: bool
    longest_seconds: float


def load_data(settings: AudioSettings, scripts: Path) -> AudioData:
    """Prepares the data set of a recipe unless that has been done, and opens its splits.

    Args:
        settings: Settings of the run.
        scripts: The folder ``data_prep``.

    Raises:
        ConfigError: If a setting does not fit the data.
        DataError: If the data set is missing or has clips that cannot be used.
    """
    options = settings.prep_options
    find = prep_function(scripts, settings.prep)
    front_end = make_front_end(settings.tokens)
    features = Path(settings.data) / settings.recipe / "features"
    rate = settings.tokens.sample_rate
    cache = FrameCache(features, front_end.cache_key, rate, front_end.extract, front_end.restore)
    floor = FloorFeatures(features, rate)
    prepared = prepare(
        settings.recipe,
        lambda work: find(work, **options),
        folder=Path(settings.data),
        options=options,
        skip_bad=settings.skip_bad,
        workers=2,
        stores=[cache, floor],
    )
    cache.root = prepared.root
    clips = _split(settings, list(prepared.clips), prepared.multi_label)
    splits = {s: [c for c in clips if c.split == s] for s in ("train", "valid", "test")}
    for split, members in splits.items():
        if not members:
            raise ConfigError(
                f"the {split} split of {settings.recipe} is empty; see {settings.fold_by.key}= and "
                "the data set's own settings"
            )
    front_end = make_front_end(
        settings.tokens, front_end.fit(cache.frames(clip.path) for clip in splits["train"])
    )
    augment = (
        WaveformAugment(settings.augment, settings.tokens)
        if settings.tokens.learned
        else Augment(settings.augment)
    )

    def dataset(split: str) -> TokenDataset:
        return TokenDataset(
            splits[split],
            prepared.labels,
            cache,
            front_end,
            augment=augment if split == "train" else None,
            seed=settings.seed,
            segments=settings.segments,
            multi_label=prepared.multi_label,
        )

    longest = max(clip.seconds for clip in clips)
    return AudioData(
        train=dataset("train"),
        valid=dataset("valid"),
        test=dataset("test"),
        clips=clips,
        skipped=len(prepared.skipped),
        classes=prepared.labels,
        root=prepared.root,
        frames=cache,
        front_end=front_end,
        floor=floor,
        multi_label=prepared.multi_label,
        longest_seconds=min(longest, settings.segments.seconds or longest),
    )


def _split(settings: AudioSettings, clips: list[Clip], multi_label: bool) -> list[Clip]:
    """Chooses the official fold, and makes a validation split if there is none."""
    if settings.fold is not None:
        clips = split_by_fold(clips, settings.fold)
    if any(clip.split == "valid" for clip in clips):
        return clips
    if multi_label:
        raise DataError(f"{settings.recipe}: a multi-label set must have its own validation split")
    validation = settings.validation
    return carve_validation(clips, validation.fraction, settings.seed, validation.by)
