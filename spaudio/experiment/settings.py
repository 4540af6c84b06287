"""The settings of a run: a tree of dataclasses, registered with Hydra as structured configs.

The dataclasses define names, types, defaults and checks. :mod:`spaudio.experiment.compose` checks a
recipe's YAML and the command line against them; all other code receives the dataclasses.
"""

import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import PureWindowsPath
from typing import Any, Self

from omegaconf import MISSING

from spaudio.audio.duplicates import check_choice
from spaudio.errors import ConfigError
from spaudio.io.paths import refuse_empty_source
from spaudio.io.plain import flatten
from spaudio.model.encoder import EncoderConfig, check_filter
from spaudio.model.pooling import POOLINGS
from spaudio.model.pretrained.adapt import Adaptation
from spaudio.report.records import MACHINE
from spaudio.tokens.augment import AugmentConfig
from spaudio.tokens.config import TokenConfig
from spaudio.tokens.segments import SegmentConfig
from spaudio.training.trainer_config import OptimConfig, TrainerConfig

#: Settings of recipes (arguments of ``prepare`` in their ``data_prep`` scripts) that name files.
FILE_SETTINGS = frozenset({"source", "corpus", "background", "labels", "table"})
#: All settings that name files or folders of input, whose contents are compared where it matters.
INPUT_SETTINGS = FILE_SETTINGS | {"model.source", "pretrain.source"}
#: Settings that may differ between equal runs: inputs are compared by their contents instead.
NEUTRAL_SETTINGS = INPUT_SETTINGS | MACHINE

_MOST = 2**31  # of a whole number
_LARGEST = 3.4e38  # float32's limit
_MOST_SEED = 2**32  # NumPy's limit
_MOST_LAYERS = 10_000


@dataclass
class About:
    """The facts about a dataset, as listed by ``spaudio datasets``.

    Args:
        title: Short description.
        licence: Licence of the audio.
        size: Number of clips and size of the download, such as ``"3,000 clips, 16 MB"``.
        classes: Number of classes, or a description if a setting decides.
        metric: Metric of its test protocol, such as ``"accuracy"``.
        url: Source; None if the data are the user's own.

    Raises:
        ConfigError: If a fact is empty.
    """

    title: str = MISSING
    licence: str = MISSING
    size: str = MISSING
    classes: int | str = MISSING
    metric: str = MISSING
    url: str | None = MISSING

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kinds = {"classes": int | str, "url": str | None}.get(name, str)
            if not isinstance(value, kinds) or value in ("", 0) or value is True:
                raise ConfigError(f"about.{name} must not be empty; got {value!r}")


@dataclass
class FilterConfig:
    """The filters of the layers. The options are the arguments of the filter class.

    Args:
        name: A key of :data:`spaudio.filters.FILTERS`.
        milliseconds: Length of the kernels instead of ``kernel_size``, which is set to the nearest
            number of tokens, at least two. For filters with one ``kernel_size``, on audio. With a
            pretrained encoder, ``kernel_size`` is set once the encoder is loaded.
    """

    name: str = "none"
    milliseconds: float | None = None

    def with_kernel_size(self, token_seconds: float) -> Self:
        """Returns the filters with a kernel size instead of ``milliseconds``.

        Args:
            token_seconds: Seconds per token.

        Raises:
            ConfigError: If the filter has no ``kernel_size``, or the length is not positive.
        """
        if self.milliseconds is None:
            return self
        if not hasattr(self, "kernel_size"):
            raise ConfigError(
                f"filter.milliseconds={self.milliseconds:g}: filter={self.name} has no kernel_size;"
                " give its own options, or filter=bank, fir, depthwise or adaptive"
            )
        if self.milliseconds <= 0:
            raise ConfigError(f"filter.milliseconds must be positive; got {self.milliseconds:g}")
        taps = max(2, round(self.milliseconds / (1000 * token_seconds)))
        changed: Any = {"kernel_size": taps, "milliseconds": None}
        return replace(self, **changed)


@dataclass
class ClassifierConfig(EncoderConfig):
    """Shape of a classifier.

    Args:
        pooling: ``"mean"``, ``"mean_std"`` (mean and standard deviation) or ``"attention"``
            (a weighted mean), over the tokens of a clip. A pretrained encoder supports
            ``"mean_std"`` and ``"attention"``.

    Raises:
        ConfigError: If a value is out of range.
    """

    pooling: str = "mean_std"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ConfigError(
                f"model.pooling must be one of {', '.join(POOLINGS)}; got {self.pooling!r}"
            )


@dataclass
class PretrainedConfig(ClassifierConfig):
    """A pretrained encoder. Its own shape is used: ``dim``, ``layers`` and the like have no effect.

    Args:
        source: Folder or Hugging Face Hub id.
        states: Hidden states that the head reads, ``"upper"`` or ``"all"``; see
            :class:`spaudio.model.pretrained.adapt.Adaptation`.
        combine: How the head combines them, ``"concat"`` or ``"sum"``.
        adapt_layers: Layers that are adapted or followed by a filter, from 0; None for all. The
            outputs of the layers below the first of them are cached.
        lora_rank: Rank of ``adapt=lora``.
        head_lr_scale: Learning rate of the head when the encoder is adapted too, as a share of
            ``optim.lr``.

    Raises:
        ConfigError: If a value is out of range, or there is no source.
    """

    source: str | None = None
    states: str = "upper"
    combine: str = "concat"
    adapt_layers: list[int] | None = None
    lora_rank: int = 4
    head_lr_scale: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source:
            raise ConfigError(
                "model=pretrained needs model.source=..., a folder or an id on the Hugging Face "
                "Hub, such as openai/whisper-tiny.en"
            )
        if self.filter_layers is not None:
            raise ConfigError(
                f"model.filter_layers={self.filter_layers} is for models that are trained from "
                f"scratch; give model.adapt_layers={self.filter_layers}"
            )


@dataclass
class ValidationConfig:
    """The validation split.

    If a dataset has none, it is taken from the training clips.

    Args:
        fraction: Share of the training clips, between 0 and 1.
        by: ``"clip"`` (stratified by class) or ``"group"`` (whole speakers, recordings, ...).
        train: Train on the validation split as well. It then does not select the model: the weights
            after the last step are kept. For use once the settings are chosen.

    Raises:
        ConfigError: If a value is out of range.
    """

    fraction: float = 0.1
    by: str = "clip"
    train: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ConfigError(f"validation.fraction must lie in (0, 1); got {self.fraction}")
        if self.by not in ("clip", "group"):
            raise ConfigError(f"validation.by must be 'clip' or 'group'; got {self.by!r}")


@dataclass
class PretrainConfig:
    """Pretraining without labels, before training; see :mod:`spaudio.experiment.pretraining`.

    Args:
        objective: ``"none"`` or ``"masked"``; set by ``pretrain=...``.
        source: A folder of audio files in any layout; None takes the training split.
        steps: Minimum optimizer steps, rounded up to whole epochs. Batches, optimizer, schedule,
            averaging and augmentation are those of training.
        mask_ratio: Share of each clip that is masked, in (0, 1).
        mask_length: Length of a masked span, in milliseconds.

    Raises:
        ConfigError: If a value is out of range.
    """

    objective: str = "none"
    source: str | None = None
    steps: int = 3000
    mask_ratio: float = 0.6
    mask_length: float = 200.0

    def __post_init__(self) -> None:
        if self.objective not in ("none", "masked"):
            raise ConfigError(f"pretrain must be none or masked; got {self.objective!r}")
        if self.source is not None and self.objective == "none":
            raise ConfigError(f"pretrain.source={self.source} needs pretrain=masked")
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"pretrain.mask_ratio must lie in (0, 1); got {self.mask_ratio}")
        for name in ("steps", "mask_length"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"pretrain.{name} must be positive; got {getattr(self, name)}")


@dataclass
class FoldsConfig:
    """The folds of a dataset, for ``folds=all``.

    Args:
        key: The setting that chooses the fold to test on.
        values: Its values, one per fold.
    """

    key: str = "fold"
    values: list[Any] = field(default_factory=list)


@dataclass
class EvalConfig:
    """How a language model is measured.

    Args:
        windows: Number of windows, spread over the validation split, that are measured after each
            epoch.
        stride: Characters between the sliding windows that are measured after training.
        max_characters: Characters of each split that are measured after training; None for all.

    Raises:
        ConfigError: If a value is out of range.
    """

    windows: int = 512
    stride: int = 64
    max_characters: int | None = None

    def __post_init__(self) -> None:
        for name in ("windows", "stride", "max_characters"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"eval.{name} must be at least 1; got {value}")


@dataclass
class Settings:
    """Settings that every run has.

    Args:
        recipe: Name of the recipe; its runs go to ``<runs>/<recipe>/``.
        prep: ``data_prep/<prep>.py`` finds the data.
        about: The facts about the dataset.
        model: Shape of the model.
        filter: The filters of the layers; ``model.filter_place`` and ``model.filter_layers``, or
            ``model.adapt_layers`` of a pretrained encoder, decide where they are.
        optim: Optimizer and schedule.
        trainer: Epochs, batches, precision.
        seed: Seeds parameters, order, dropout, augmentation and the validation split.
        data: Folder of prepared data and features.
        runs: Folder of runs.
        run_id: Name of the run's folder; None makes a new one.
        resume: Folder of a run to continue; all settings except ``jobs`` then come from it.
        jobs: Number of parallel runs, in a sweep or with ``folds=all``.
        cluster: Submit the runs of a sweep, or of ``folds=all``, with submitit: ``"slurm"``, or
            ``"local"`` to test this without a cluster. None runs them on this machine.
        cluster_options: Parameters of submitit's ``AutoExecutor``; ``timeout_min`` is required
            with ``cluster``.
        overrides: The overrides as given, which the report shows; set by ``compose``.

    Raises:
        ConfigError: If a value is out of range.
    """

    recipe: str = MISSING
    prep: str = "${recipe}"
    about: About = field(default_factory=About)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0
    data: str = "data"
    runs: str = "runs"
    run_id: str | None = None
    resume: str | None = None
    jobs: int = 1
    cluster: str | None = None
    cluster_options: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < _MOST_SEED:
            raise ConfigError(f"seed must lie in [0, 2**32); got {self.seed}")
        _check_numbers({name: value for name, value in self.as_dict().items() if name != "seed"})
        if self.model.layers > _MOST_LAYERS:
            raise ConfigError(
                f"model.layers must be at most {_MOST_LAYERS:,}; got {self.model.layers}"
            )
        refuse_empty_source(getattr(self, "source", None))  # a dataset's own setting
        for name in ("recipe", "run_id"):  # parts of the run's path
            value = getattr(self, name) or ""
            path = PureWindowsPath(value)  # understands every kind of path
            if path.drive or path.root or ".." in path.parts or "\0" in value:
                raise ConfigError(
                    f"{name}={value!r} leaves the folder of runs; give a name, and choose the "
                    "folder with runs=FOLDER"
                )
        if self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1; got {self.jobs}")
        if self.cluster not in (None, "slurm", "local"):
            raise ConfigError(f"cluster must be slurm, local or null; got {self.cluster!r}")

    @property
    def given(self) -> Mapping[str, str]:
        """The settings that are given as overrides, in their order: name and value as written."""
        return dict(one.partition("=")[::2] for one in self.overrides)

    @property
    def prep_options(self) -> dict[str, Any]:
        """The dataset's own settings: the arguments of its ``prepare`` function."""
        base = next(c for c in type(self).__mro__ if c.__module__ == __name__)
        own = {f.name for f in fields(base)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}

    @property
    def filter_options(self) -> dict[str, Any]:
        """Name and options of the filter, as :func:`spaudio.filters.make_filter` takes them."""
        return {key: value for key, value in asdict(self.filter).items() if key != "milliseconds"}

    def as_dict(self) -> dict[str, Any]:
        """All settings, as ``config.yaml`` holds them."""
        return asdict(self)


@dataclass
class AudioSettings(Settings):
    """Settings of a run that classifies clips.

    Args:
        model: Shape of the classifier, or a pretrained encoder.
        adapt: Which part of a pretrained encoder is trained, besides the head; see
            :class:`spaudio.model.pretrained.adapt.Adaptation`.
        tokens: How clips become tokens; a pretrained encoder has its own.
        augment: Augmentation of the training clips.
        pretrain: Pretraining without labels.
        skip_bad: Leave out unusable clips instead of stopping.
        duplicates: ``"refuse"`` stops if the same audio has different labels or is in different
            splits or folds, or if parts of a recording in different splits overlap; ``"allow"``
            only warns.
        validation: How the validation split is made and used.
        fold: Official fold to test on; the previous fold is the validation split.
        folds: ``"all"`` trains and tests on each fold, with one report over all.
        fold_by: The folds for ``folds=all``.
        segments: How clips are cut; the probabilities of a clip are the mean over its segments.
        page: Write ``report.html``, a page that plays the errors.
        replaced: Settings of the recipe's ``config.yaml`` that the defaults of
            ``model=pretrained`` have replaced, as ``key=value by value``; set by ``compose``.

    Raises:
        ConfigError: If a value is out of range.
    """

    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    adapt: str | None = None
    tokens: TokenConfig = field(default_factory=TokenConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    skip_bad: bool = False
    duplicates: str = "refuse"
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    fold: int | None = None
    folds: str | None = None
    fold_by: FoldsConfig = field(default_factory=FoldsConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    page: bool = True
    replaced: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.duplicates)
        if self.folds not in (None, "all"):
            raise ConfigError(
                f"folds={self.folds}; expected all or null (one fold is chosen by "
                f"{self.fold_by.key}=...)"
            )
        if self.folds and not self.fold_by.values:
            raise ConfigError(
                f"folds=all: {self.recipe} has no folds (fold_by.values is empty); the recipe "
                "folder makes several random splits with -m split_seed=0,1,2"
            )
        if self.pretrain.objective != "none" and (
            self.tokens.learned or isinstance(self.model, PretrainedConfig)
        ):
            raise ConfigError(
                "pretrain=masked predicts spectrogram frames; take tokens=spectrogram and a model "
                "that is trained from scratch"
            )
        if isinstance(self.model, PretrainedConfig):
            self._check_pretrained()
        elif self.adapt is not None:
            raise ConfigError(f"adapt={self.adapt} needs model=pretrained model.source=...")
        elif self.tokens.front_end == "pretrained":
            raise ConfigError("tokens.front_end=pretrained needs model=pretrained model.source=...")
        else:
            self._check_augmentation()
        sized = self.filter.with_kernel_size(self.tokens.token_seconds)
        if self.adapt is None:  # otherwise the encoder decides the length of a token
            self.filter = sized
            check_filter(self.model, self.filter_options)

    def with_fold(self, fold: Any) -> Self:
        """Returns the settings of the run that tests on one fold.

        Args:
            fold: One of ``fold_by.values``.

        Raises:
            ConfigError: If the recipe has no folds, or ``fold`` has another type than its folds.
        """
        key = self.fold_by.key
        hint = typing.get_type_hints(type(self)).get(key)
        if hint is None:
            raise ConfigError(f"{self.recipe} has no folds: it has no setting {key} (fold_by.key)")
        kinds = typing.get_args(hint) or (hint,)
        if hint is not Any and type(fold) not in kinds:  # Any in a run that is resumed
            raise ConfigError(
                f"{self.recipe}: {fold!r} cannot be {key}; folds must be of type "
                f"{kinds[0].__name__}"
            )
        given = [one for one in self.overrides if not one.startswith(("folds=", f"{key}="))]
        changed: Any = {key: fold, "folds": None, "overrides": [*given, f"{key}={fold}"]}
        return replace(self, **changed)

    def _check_augmentation(self) -> None:
        """Checks the augmentation against the front-end."""
        crop, frame = self.augment.crop, self.tokens.frame_seconds
        if 0 < crop < frame:
            raise ConfigError(
                f"augment.crop={crop:g} s is shorter than a frame ({frame:g} s); give seconds, or "
                "0 for whole clips"
            )
        for name, seconds in vars(self.segments).items():
            if seconds is not None and seconds < frame:
                raise ConfigError(
                    f"segments.{name}={seconds:g} s is shorter than a frame ({frame:g} s); give "
                    "seconds"
                )
        bands, widest = self.tokens.bands, self.augment.mel_mask
        if self.augment.mel_masks and widest >= bands:
            raise ConfigError(
                f"augment.mel_mask={widest} would hide whole clips, which have {bands} bands; give "
                f"augment.mel_mask={bands // 4}"
            )

    def _check_pretrained(self) -> None:
        """Completes and checks the settings of a pretrained encoder."""
        assert isinstance(self.model, PretrainedConfig)
        self.adapt = self.adapt or "probe"
        self.adaptation  # noqa: B018  (creating it checks it)
        if self.segments.seconds is not None:
            raise ConfigError(
                "model=pretrained reads clips whole; give segments.seconds=null, and cut longer "
                "clips than the encoder takes"
            )
        # The encoder decides its hop; see `open_front_end`.
        self.tokens = TokenConfig(front_end="pretrained", hop=0.02)

    @property
    def fits_head_only(self) -> bool:
        """Whether a pretrained encoder's head is fitted to pooled statistics, without steps."""
        return self.adapt == "probe" and self.model.pooling == "mean_std"

    @property
    def adaptation(self) -> Adaptation:
        """How the pretrained encoder is adapted."""
        assert isinstance(self.model, PretrainedConfig)
        return Adaptation(
            way=self.adapt or "probe",
            pooling=self.model.pooling,
            filter_options=self.filter_options,
            layers=self.model.adapt_layers,
            lora_rank=self.model.lora_rank,
            states=self.model.states,
            combine=self.model.combine,
            head_lr_scale=self.model.head_lr_scale,
        )


@dataclass
class TextSettings(Settings):
    """Settings of a run that predicts the next character.

    Args:
        model: Shape of the decoder; must be causal.
        context: Characters per window.
        steps_per_epoch: Steps per epoch; the validation loss is measured after each.
        eval: How the model is measured.

    Raises:
        ConfigError: If a value is out of range.
    """

    model: EncoderConfig = field(default_factory=lambda: EncoderConfig(dropout=0.0, causal=True))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(batch_size=16, workers=0))
    context: int = 128
    steps_per_epoch: int = 100
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainer.balance not in ("auto", "none"):
            raise ConfigError(
                f"trainer.balance={self.trainer.balance} is for classes of clips; a text has none. "
                "Leave it out"
            )
        if self.filter.milliseconds is not None:
            raise ConfigError(
                f"filter.milliseconds={self.filter.milliseconds:g}: characters have no length in "
                "time; give filter.kernel_size"
            )
        check_filter(self.model, self.filter_options)
        for name in ("label_smoothing", "max_tokens"):
            if getattr(self.trainer, name) != getattr(TrainerConfig, name):
                raise ConfigError(f"trainer.{name} has no effect on text; leave it out")
        for name in ("context", "steps_per_epoch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.eval.stride > self.context:
            raise ConfigError(
                f"eval.stride={self.eval.stride} must be at most context={self.context}; give "
                f"eval.stride={max(1, self.context // 2)}"
            )
        most = self.eval.max_characters
        if most is not None and most <= self.context:
            raise ConfigError(
                f"eval.max_characters={most} must be more than context={self.context}; raise it, "
                "or leave it out"
            )
        if self.model.positions == "learned" and self.context > self.model.max_tokens:
            raise ConfigError(
                f"context={self.context} is more than model.max_tokens={self.model.max_tokens}, "
                "the positions that are learned; raise it, or give model.positions=rotary"
            )


def _check_numbers(settings: Mapping[str, Any]) -> None:
    """Checks that numbers are finite in float32, and of a size that arrays can have.

    Raises:
        ConfigError: If one is not.
    """
    for name, value in flatten(settings):
        if isinstance(value, float) and not abs(value) < _LARGEST:
            raise ConfigError(f"{name}={value}; expected a finite number below 3.4e38")
        if isinstance(value, int) and abs(value) >= _MOST:
            raise ConfigError(f"{name}={value}; expected a whole number below 2**31")
