"""Pretraining by masked prediction, on audio without labels, before a classifier is trained.

It is a stage of a run, with its own checkpoints and log in the run's folder.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from accelerate.utils import set_seed

from spaudio.audio.background import BACKGROUND
from spaudio.audio.find import audio_files
from spaudio.audio.manifest import Clip, SourceClip
from spaudio.audio.prepare import Prepared, SourceClips, prepare
from spaudio.errors import ConfigError, DataError
from spaudio.experiment.data import AudioData
from spaudio.experiment.run_folder import data_folder_of
from spaudio.experiment.settings import AudioSettings
from spaudio.model.classifier import Classifier
from spaudio.model.masked import MaskedPredictor
from spaudio.report.report_files import left_out
from spaudio.tokens.augment import Augment
from spaudio.tokens.cache import FrameCache
from spaudio.tokens.dataset import TokenDataset
from spaudio.tokens.front_end import open_cache
from spaudio.tokens.segments import SegmentConfig
from spaudio.training.checkpoint import (
    CHECKPOINTS,
    PRETRAINING,
    find_checkpoint,
    has_checkpoint,
    load_state,
    load_weights,
)
from spaudio.training.loader import make_loader
from spaudio.training.loop import SoFar, TrainingLoop, TrainingRun
from spaudio.training.masked_prediction import MaskedPrediction

HELD_OUT = 0.05  # share of the clips that is held out to measure the pretraining
_LABEL = "unlabelled"


class Pretraining:
    """Masked prediction on the training split's clips, or on those of a folder.

    Labels are not used. A twentieth of the clips, at least one, is held out to measure the
    prediction and select the epoch. Clips of the test split are never used, those of the validation
    split only with ``validation.train``. Files of a folder are left out if they have the same
    samples as such a clip, or the path of a recording that one was cut from.

    Args:
        settings: Settings of the run.
        data: The run's data.

    Raises:
        ConfigError: If the folder does not exist.
        DataError: If fewer than two clips are left, or clips of the folder cannot be used.
    """

    def __init__(self, settings: AudioSettings, data: AudioData) -> None:
        self.settings = settings
        self.left_out = self.skipped = 0
        self.data_hash = ""
        clips, cache, segments = data.train.clips, data.cache, settings.segments
        if settings.pretrain.source is not None:
            prepared, cache = _open_folder(settings, data)
            clips = _without_held_out(prepared.clips, cache, data)
            self.left_out = len(prepared.clips) - len(clips)
            self.skipped = len(prepared.skipped)
            both = prepared.hash + prepared.samples_hash
            self.data_hash = hashlib.sha256(both.encode()).hexdigest()
            segments = SegmentConfig(settings.segments.seconds or data.longest_seconds)
        if len(clips) < 2:
            raise DataError(f"pretrain=masked needs 2 clips or more; {self.where} has {len(clips)}")
        self.clips = [replace(clip, label=_LABEL) for clip in clips]
        order = np.random.default_rng(settings.seed).permutation(len(clips))
        held_out = max(1, round(HELD_OUT * len(clips)))
        # Without SpecAugment, whose zeros would become targets.
        augment = Augment(replace(settings.augment, time_masks=0, mel_masks=0), settings.tokens)

        def dataset(numbers: Any, augment: Augment | None) -> TokenDataset:
            chosen: list[Clip] = [self.clips[i] for i in sorted(numbers)]
            return TokenDataset(
                chosen, (_LABEL,), cache, data.front_end,
                augment=augment, seed=settings.seed, segments=segments,
            )  # fmt: skip

        steps = settings.pretrain.steps
        trainer = replace(settings.trainer, epochs=1, min_steps=steps, max_epochs=steps)
        self._trainer = trainer
        self._train = make_loader(
            dataset(order[held_out:], augment), trainer, shuffle=True, seed=settings.seed
        )
        self._valid = make_loader(
            dataset(order[:held_out], None), trainer, shuffle=False, seed=settings.seed
        )
        length, token = settings.pretrain.mask_length, settings.tokens.token_seconds * 1000
        if length < token / 2:
            raise ConfigError(
                f"pretrain.mask_length={length:g} ms is less than half a token ({token:g} ms); it "
                "is in milliseconds"
            )
        span = max(1, round(length / token))
        # A clip of a single span is hidden as a whole, and nothing predicts it.
        most = max(dataset(order, augment).lengths())
        if span >= most:
            raise ConfigError(
                f"pretrain.mask_length={length:g} ms hides whole clips: the longest has "
                f"{most * token:g} ms. Give less"
            )
        self._objective = MaskedPrediction(settings.pretrain.mask_ratio, span)

    @property
    def where(self) -> str:
        """Where the clips come from."""
        return self.settings.pretrain.source or "the training split"

    @property
    def text(self) -> str:
        """One line about the clips, shown before training."""
        hours = sum(clip.seconds for clip in self.clips) / 3600
        return (
            f"pretrain=masked: {len(self.clips):,} clips ({hours:.2f} hours) of {self.where}"
            f"{left_out(self.left_out, self.skipped)}"
        )

    def fit(self, model: Classifier, run: TrainingRun) -> None:
        """Pretrains stem, projection and encoder, resumes pretraining, or loads its result.

        Errors are those of :class:`spaudio.training.loop.TrainingLoop`.
        """
        checkpoints = run.folder / CHECKPOINTS
        begun = has_checkpoint(checkpoints, PRETRAINING.last)
        # A copy, because the processes of a run keep synchronising each model that they trained.
        predictor = MaskedPredictor(copy.deepcopy(model))
        TrainingLoop(
            predictor,
            self._train,
            self._valid,
            replace(run, resume=begun),
            objective=self._objective,
            trainer=self._trainer,
            optim=self.settings.optim,
            seed=self.settings.seed,
            stage=PRETRAINING,
        ).fit()
        run.accelerator.free_memory()
        weights = load_weights(find_checkpoint(checkpoints, PRETRAINING.best))
        kept = {name: w for name, w in weights.items() if not name.startswith("predict.")}
        unknown = model.load_state_dict(kept, strict=False).unexpected_keys
        assert not unknown
        set_seed(self.settings.seed)  # the same state, whether or not the run was resumed

    def facts(self, run: Path) -> dict[str, Any]:
        """Returns facts about the data and the duration of pretraining, for ``report.json``."""
        state = load_state(find_checkpoint(run / CHECKPOINTS, PRETRAINING.last))
        so_far = SoFar(**state["so_far"])
        return {
            "source": self.where,
            **({"sha256": self.data_hash} if self.data_hash else {}),
            "clips": len(self.clips),
            "hours": sum(clip.seconds for clip in self.clips) / 3600,
            "left_out": self.left_out,
            "skipped": self.skipped,
            "mask_ratio": self.settings.pretrain.mask_ratio,
            "mask_tokens": self._objective.mask_length,
            "steps": so_far.epochs * len(self._train),
            "seconds": so_far.seconds,
            "loss": -so_far.best_rank[0],
            "held_out": len(self._valid.dataset.clips),  # type: ignore[attr-defined]
        }


def _without_held_out(clips: Sequence[Clip], cache: FrameCache, data: AudioData) -> list[Clip]:
    """Leaves out clips of a folder that equal a held-out one, or may be a held-out recording.

    Args:
        clips: Clips of the folder.
        cache: Their frames.
        data: The run's data, of which the clips that are not trained on are held out.
    """
    used = {clip.path for clip in data.train.clips}
    held = [clip.path for clip in data.clips if clip.path not in used]
    samples = {data.cache.entry(path).samples for path in held}
    recordings = {_recording(path) for path in held}
    ends = {end for recording in recordings for end in _ends(recording)}

    def is_recording(path: str) -> bool:
        """Whether it may be a held-out recording, relative to another folder."""
        parts = PurePosixPath(path).parts
        return parts in ends or not recordings.isdisjoint(_ends(parts))

    return [
        clip
        for clip in clips
        if cache.entry(clip.path).samples not in samples and not is_recording(clip.path)
    ]


def _recording(clip: str) -> tuple[str, ...]:
    """Returns the path of the recording that a clip is cut from; else that of its folder."""
    folders = PurePosixPath(clip).parts[:-1]
    # Those of the background lie between the class and the split.
    return folders[1:-1] if folders[:1] == (BACKGROUND,) else folders


def _ends(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns a path relative to each of its folders: the last part, the last two, and so on."""
    return [path[start:] for start in range(len(path))]


def _open_folder(settings: AudioSettings, data: AudioData) -> tuple[Prepared, FrameCache]:
    """Checks the clips of ``pretrain.source`` and computes their frames."""
    root = Path(str(settings.pretrain.source))
    if not root.is_dir():
        raise ConfigError(f"pretrain.source={root} is not a folder; name one with audio files")
    home = data_folder_of(settings)
    cache = open_cache(home / "features", data.front_end)

    def find(work: Path) -> SourceClips:
        clips = [SourceClip(path, _LABEL, "train", path) for path in audio_files(root)]
        return SourceClips(root, clips)

    prepared = prepare(
        "pretrain",
        find,
        folder=home,
        options={"source": str(root.resolve())},
        skip_bad=settings.skip_bad,
        duplicates="allow",
        workers=2,
        stores=[cache],
    )
    cache.root = prepared.root
    return prepared, cache
