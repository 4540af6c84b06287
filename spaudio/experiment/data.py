"""Data of an audio recipe: the tokens of its three splits, and its corrections."""

import inspect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch

from spaudio.audio.corrections import read_corrections
from spaudio.audio.manifest import SPLITS, Clip, class_names, is_nothing
from spaudio.audio.prepare import Prepared, prepare
from spaudio.audio.split import hold_out_validation, joined, split_by_fold
from spaudio.errors import ConfigError, DataError, counted, some
from spaudio.experiment.build import build_adapted
from spaudio.experiment.encoders import open_front_end
from spaudio.experiment.recipes import prep_function
from spaudio.experiment.run_folder import data_folder_of
from spaudio.experiment.settings import AudioSettings
from spaudio.io.paths import user_path
from spaudio.model.pretrained.encoded import EncodedFrontEnd
from spaudio.report.floor import FloorFeatures
from spaudio.tokens.augment import Augment
from spaudio.tokens.augment_waveform import WaveformAugment
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import FrontEnd, open_cache
from spaudio.tokens.make_front_end import make_front_end


@dataclass(frozen=True)
class AudioData:
    """The splits of a recipe as tokens, with the facts about them.

    Args:
        train: With augmentation. With ``validation.train``, its last clips are those of ``valid``.
        valid: The dataset's own validation split, or a part of its training clips.
        test: Measured once, after training.
        prepared: The prepared dataset.
        clips: All its clips, each with its split.
        held_out: Whether the validation split was taken from the training clips.
        cache: The frames of all clips.
        front_end: Its normaliser is fitted on the training split.
        floor: Feature vectors of the classical floor.
        longest_seconds: Length of the longest clip or segment.
        typical_seconds: Median length of the training clips or segments, without classes that mean
            the absence of all others.
        warnings: Findings that the user should know.
    """

    train: TokenDataset
    valid: TokenDataset
    test: TokenDataset
    prepared: Prepared
    clips: list[Clip]
    held_out: bool
    cache: FrameCache
    front_end: FrontEnd
    floor: FloorFeatures
    longest_seconds: float
    typical_seconds: float
    warnings: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the model's outputs."""
        return self.prepared.labels

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several classes."""
        return self.prepared.multi_label

    @property
    def root(self) -> Path:
        """Folder that the clips' paths are relative to."""
        return self.prepared.root


def load_data(settings: AudioSettings, recipe: Path) -> AudioData:
    """Prepares the dataset of a recipe if necessary, and opens its splits.

    Args:
        settings: Settings of the run.
        recipe: The recipe's folder.

    Raises:
        ConfigError: If a setting does not fit the data.
        DataError: If the dataset is missing or has clips that cannot be used.
    """
    options = settings.prep_options
    find = prep_function(recipe, settings.prep)
    try:
        inspect.signature(find).bind(Path(), **options)
    except TypeError as error:  # of a run that is resumed after its script was changed
        raise ConfigError(
            f"the function prepare of {settings.prep}.py does not take the settings of this run "
            f"({error}); restore its arguments, or start a new run"
        ) from error
    front_end = open_front_end(settings)
    if isinstance(front_end, EncodedFrontEnd) and settings.adapt != "probe":
        build_adapted(settings, 2, front_end.base)  # refuses settings before all clips are encoded
    features = data_folder_of(settings) / "features"
    cache = open_cache(features, front_end)
    floor = FloorFeatures(features, settings.tokens.sample_rate, cache)
    prepared = prepare(
        settings.recipe,
        lambda work: find(work, **options),
        folder=Path(settings.data),
        options=options,
        skip_bad=settings.skip_bad,
        duplicates=settings.duplicates,
        workers=torch.get_num_threads(),
        stores=[cache, floor],
    )
    cache.root = prepared.root
    clips, moved = _split(settings, prepared)
    splits = _by_split(settings, prepared, clips)
    warnings = (*prepared.warnings, *moved, *_untested(prepared, splits["test"]))
    if settings.validation.train:
        splits["train"] = splits["train"] + splits["valid"]
    if front_end.normaliser is None:
        front_end = _fit(front_end, settings, cache, splits["train"])
    augment = _augment(settings, front_end)

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
    own = [clip.seconds for clip in splits["train"] if not is_nothing(clip.label)]
    typical = statistics.median(own or [longest])
    most = settings.segments.seconds or longest
    return AudioData(
        train=dataset("train"),
        valid=dataset("valid"),
        test=dataset("test"),
        prepared=prepared,
        clips=clips,
        held_out=settings.fold is None and all(c.split != "valid" for c in prepared.clips),
        cache=cache,
        front_end=front_end,
        floor=floor,
        longest_seconds=min(longest, most),
        typical_seconds=min(typical, most),
        warnings=warnings,
    )


def earlier_corrections(settings: AudioSettings) -> list[tuple[str, str, str]]:
    """Returns clip, label and former label of each correction that a run was made with."""
    file = settings.prep_options.get("labels")
    return [] if file is None else [one[1:] for one in read_corrections(user_path(file))]


def _fit(
    front_end: FrontEnd, settings: AudioSettings, cache: FrameCache, clips: Sequence[Clip]
) -> FrontEnd:
    """Returns the front-end with a normaliser that is fitted on the training clips."""
    pieces = (  # as they will be normalised: the level of a segment is its own
        cache.frames(clip.path, *span)
        for clip in clips
        for span in settings.segments.spans(cache.length(clip.path), settings.tokens.frame_seconds)
    )
    return make_front_end(settings.tokens, front_end.fit(pieces))


def _augment(settings: AudioSettings, front_end: FrontEnd) -> Augment | None:
    """Returns the augmentation of the training split's frames; None if they are not varied."""
    if isinstance(front_end, EncodedFrontEnd):
        return front_end.augment(settings.augment)
    if settings.tokens.learned:
        return WaveformAugment(settings.augment, settings.tokens)
    return Augment(settings.augment, settings.tokens)


def _by_split(
    settings: AudioSettings, prepared: Prepared, clips: Sequence[Clip]
) -> dict[str, list[Clip]]:
    """Returns the clips of each split, which must be enough to train and to measure.

    Raises:
        ConfigError: If a split is empty.
        DataError: If a class has no training clip, or there is only one class.
    """
    splits = {s: [c for c in clips if c.split == s] for s in SPLITS}
    for split, members in splits.items():
        if not members:
            remedy = f"see {settings.fold_by.key}= and the dataset's own settings"
            if not settings.prep_options.get(fraction := f"{split}_fraction", 1):
                remedy = f"give {fraction} a value above 0"
            raise ConfigError(f"the {split} split of {settings.recipe} is empty; {remedy}")
    labels = {clip.label for clip in splits["train"]}
    of_other_splits = {clip.label for split in ("valid", "test") for clip in splits[split]}
    if (lacking := sorted(of_other_splits - labels)) and not prepared.multi_label:
        raise DataError(
            f"class {lacking[0]!r} of {settings.recipe} has no clip in the training split"
            + ("" if settings.fold is None else f" of fold={settings.fold}")
            + "; add some, or leave the class out"
        )
    if len(labels) < 2 and not prepared.multi_label:
        raise DataError(
            f"{settings.recipe} has training clips of one class only ({labels.pop()}); add "
            "clips of another"
            + (", or replace those that skip_bad has left out" if prepared.skipped else "")
        )
    return splits


def _untested(prepared: Prepared, test: Sequence[Clip]) -> list[str]:
    """Returns a sentence with the classes that the test split lacks, if any."""
    tested = {name for c in test for name in class_names(c.label, prepared.multi_label)}
    untested = [name for name in prepared.labels if name not in tested]
    return [f"the test split has no clip of {some(untested)}"] if untested else []


def _split(settings: AudioSettings, prepared: Prepared) -> tuple[list[Clip], list[str]]:
    """Chooses the official fold, and makes a validation split if there is none.

    Returns:
        The clips with their splits, and a sentence on clips that could not validate, if any.
    """
    clips = list(prepared.clips)
    if settings.fold is not None:
        clips = split_by_fold(clips, settings.fold)
    if any(clip.split == "valid" for clip in clips):
        return clips, []
    if prepared.multi_label:
        raise DataError(f"{settings.recipe}: a multi-label set must have its own validation split")
    validation = settings.validation
    by, units = validation.by, clips
    if by == "clip" and (joint := joined(prepared.overlaps)):
        # Clips that share a part of a recording stay together.
        by, units = "group", [replace(c, group=joint.get(c.path, c.path)) for c in clips]
    held_out = hold_out_validation(units, validation.fraction, settings.seed, by)
    clips = [replace(clip, split=one.split) for clip, one in zip(clips, held_out, strict=True)]
    equal = (pair for group in prepared.duplicates for pair in pairwise(group))
    by_group = validation.by == "group"
    kept = _with_duplicates(clips, joined([*equal, *prepared.overlaps]), by_group=by_group)
    if all(clip.split != "valid" for clip in kept):
        raise DataError(
            f"all clips that {settings.recipe} could validate on are duplicates of training clips, "
            "or overlap with them; remove repeated files, or raise validation.fraction"
        )
    before, after = (sum(clip.split == "valid" for clip in one) for one in (clips, kept))
    if before == after:
        return kept, []
    number = before - after
    what = f"{'is' if number == 1 else 'are'} {'left out' if by_group else 'trained on instead'}"
    return kept, [
        f"{counted(number, 'clip')} of the validation split {what}, because the same audio, or "
        "part of it, is in the training split"
    ]


def _with_duplicates(clips: list[Clip], joint: Mapping[str, str], *, by_group: bool) -> list[Clip]:
    """Leaves out validation clips that are duplicates of training clips, or trains on them.

    Args:
        clips: With their splits.
        joint: Maps the path of each clip that is a duplicate of others, or overlaps with them, to
            the name of their group.
        by_group: Groups are kept in one split, so that their clips cannot move to another.
    """
    trained = {joint.get(clip.path) for clip in clips if clip.split == "train"} - {None}
    back = {c.path for c in clips if c.split == "valid" and joint.get(c.path) in trained}
    if by_group:
        return [clip for clip in clips if clip.path not in back]
    return [replace(clip, split="train") if clip.path in back else clip for clip in clips]
