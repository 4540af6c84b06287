"""Classification of clips: one label per clip, or several."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from spaudio.audio.background import BACKGROUND
from spaudio.audio.manifest import SPLITS
from spaudio.errors import ConfigError, counted
from spaudio.experiment.build import build_classifier, named_sizes
from spaudio.experiment.data import AudioData, earlier_corrections
from spaudio.experiment.inputs import Inputs, refuse_changed_data
from spaudio.experiment.pretraining import Pretraining
from spaudio.experiment.settings import AudioSettings
from spaudio.experiment.tasks.describe import (
    describe_run,
    describe_split,
    is_calibrated_on_known_groups,
)
from spaudio.experiment.tasks.setting_warnings import (
    ignored_by_front_end,
    long_kernels,
    overruled_audio,
    quiet_recordings,
    slow_clips,
    unshifted_excerpts,
    untrained_positions,
)
from spaudio.experiment.tasks.task import Task
from spaudio.io.full_disk import named_full_disk
from spaudio.model.classifier import Classifier, count_parameters
from spaudio.report.aligned import measure_aligned
from spaudio.report.calibration import measure_calibration
from spaudio.report.classification_report import write_report
from spaudio.report.figures.filters_plot import filters_of, plot_filters
from spaudio.report.figures.front_end_plot import plot_front_end
from spaudio.report.figures.mask_plot import plot_mask
from spaudio.report.figures.modulation_plot import LayerResponse, plot_modulations
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.trajectory_plot import plot_trajectory
from spaudio.report.floor import measure_floor
from spaudio.report.page.run_page import RunResults, write_run_page
from spaudio.report.probabilities import ClipProbabilities
from spaudio.report.run_files import PAGE
from spaudio.report.scores import score, score_multilabel
from spaudio.tokens.batch import collate
from spaudio.training.alignment import Alignment, embed_clips, groups_are_mixed
from spaudio.training.balance import choose_balance
from spaudio.training.loader import make_loader
from spaudio.training.log import read_log
from spaudio.training.loop import FitResult, TrainingRun
from spaudio.training.mixing import Mixing
from spaudio.training.multilabel import MultiLabel
from spaudio.training.objective import Classification
from spaudio.training.temperature import fit_temperature, tempered

NORMALISER_CLIPS = 256  # enough to estimate mean and standard deviation of each filter
ALIGNMENT_CLIPS = 2000  # the same for each value of an embedding


class ClassificationTask(Task):
    """Classification of clips, with one label each or several.

    Args:
        settings: Settings of the run.
        data: Its splits.
    """

    def __init__(self, settings: AudioSettings, data: AudioData) -> None:
        self.settings, self.data = settings, data
        if settings.adapt is None and settings.model.positions == "learned":
            _check_positions(data, settings.model.max_tokens)
        trainer = settings.trainer
        self.token_seconds: float = data.front_end.config.token_seconds
        self.data_hash = data.prepared.hash
        # A probe's penalty is selected before its head is fitted to the validation clips.
        self.select = settings.fits_head_only or not settings.validation.train
        augment = settings.augment
        self.balance = choose_balance(
            trainer.balance,
            [] if data.multi_label else data.train.classes(),
            multi_label=data.multi_label,
            long_clips=trainer.is_long(max(data.train.lengths())),
            fitted=settings.fits_head_only,
            selects=self.select,
        )
        style = augment.mixstyle if settings.tokens.front_end == "spectrogram" else 0.0
        nats = data.front_end.nats if augment.mixup_power else None
        mixing = Mixing(
            augment.mixup,
            augment.cutmix,
            style,
            settings.tokens.bands,
            nats,
            data.front_end.pooled,
        )
        self.objective = (
            MultiLabel(trainer.label_smoothing, mixing)
            if data.multi_label
            else Classification(trainer.label_smoothing, mixing, self.balance)
        )
        self.train = make_loader(
            data.train,
            trainer,
            shuffle=True,
            seed=settings.seed,
            balanced=self.balance.method == "sampler",
        )
        self.valid = make_loader(data.valid, trainer, shuffle=False, seed=settings.seed)
        self.final = {
            "valid": self.valid,
            "test": make_loader(data.test, trainer, shuffle=False, seed=0),
        }
        self.pretraining: Pretraining | None = None
        if settings.pretrain.objective != "none":
            self.pretraining = Pretraining(settings, data)
            self.data_hash = data.prepared.hash + self.pretraining.data_hash
        self.floor: dict[str, Any] = {}
        # Read now: by the end of training the file may be gone, or another one.
        self.corrected = earlier_corrections(settings)

    @named_sizes()
    def build_model(self) -> Classifier:
        """Builds the classifier and fits the normalisation of a learned front-end."""
        model = build_classifier(self.settings, len(self.data.classes))
        if model.front_end is not None:
            plain = self.data.train.plain()
            order = np.random.default_rng(self.settings.seed).permutation(len(plain))
            clips = order[:NORMALISER_CLIPS]
            # One by one: the clips of a batch may exceed `trainer.max_tokens` together.
            batches = (collate([plain[0, int(i)]]) for i in clips)
            model.front_end.fit_normaliser((b.tokens, b.padding_mask) for b in batches)
        return model

    def messages(self, model: Classifier) -> list[str]:
        """Returns warnings about settings that are allowed but probably unintended."""
        settings, data = self.settings, self.data
        splits = (data.train, data.valid, data.test)
        longest = max(max(split.plain().lengths()) for split in splits)
        return [
            *(
                [f"left out as unusable: {counted(len(data.prepared.skipped), 'clip')}"]
                if data.prepared.skipped
                else []
            ),
            *data.warnings,
            *overruled_audio(settings, data, len(self.train)),
            *([self.balance.text] if self.balance.text else []),
            *([self.pretraining.text] if self.pretraining else []),
            *ignored_by_front_end(settings, data),
            *(quiet_recordings(settings, data.train) if settings.adapt is None else []),
            *slow_clips(settings, data.clips),
            *long_kernels(model, max(data.train.lengths()), settings.augment.crop),
            *untrained_positions(settings, data.train.longest()[1], longest, self.token_seconds),
            # The last token may be all but empty.
            *unshifted_excerpts(
                settings, (min(data.train.plain().lengths()) - 1) * self.token_seconds
            ),
        ]

    @override
    def fit(self, model: Any, run: TrainingRun) -> FitResult:
        if self.pretraining is not None and not run.resume:
            self.pretraining.fit(model, run)
        return super().fit(model, run)

    @override
    def check_resumed(self, run: Path) -> None:
        refuse_changed_data(run, self._inputs(), self.data.prepared.manifest)

    def begin(self, run: Path) -> None:
        """Measures the classical floor, and saves class names and normalisation."""
        data = self.data
        with named_full_disk(Path(self.settings.data), "data"):
            self.floor = measure_floor(
                data.clips, data.classes, data.root, data.floor, multi_label=data.multi_label
            )
        self._inputs().save(run)

    def _inputs(self) -> Inputs:
        data, normaliser = self.data, self.data.front_end.normaliser
        assert normaliser is not None  # fitted by load_data
        return Inputs(
            data.classes,
            normaliser,
            data.longest_seconds,
            data.typical_seconds,
            data.multi_label,
            data.prepared.hash,
            data.prepared.samples_hash,
            silent_ok=data.prepared.silent_ok,
            lowest_rate=min(clip.sample_rate for clip in data.clips if clip.split == "train"),
        )

    def facts(self, model: Classifier, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what ``report.json`` says about a run on audio."""
        front_end, stem = model.front_end, model.stem
        return {
            "tokens": self.settings.as_dict()["tokens"],
            "floor": self.floor,
            "valid": measured["valid"].metrics,
            "trained_on_valid": self.settings.validation.train,
            "valid_held_out": self.select,
            "balance": self.balance.facts,
            "front_end_params": 0 if front_end is None else count_parameters(front_end),
            "stem_params": 0 if stem is None else count_parameters(stem),
            "stem_frames": 0 if stem is None else stem.receptive_field,
            "clips": {
                split: sum(clip.split == split for clip in self.data.clips) for split in SPLITS
            },
            "skipped": len(self.data.prepared.skipped),
            "notes": list(self.data.warnings),
            "split": describe_split(self.settings, self.data),
            "samples_sha256": self.data.prepared.samples_hash,
            "labels_sha256": self.data.prepared.labels_hash,
            "splits_sha256": self.data.prepared.splits_hash,
            "token_seconds": self.token_seconds,
        }

    def write(
        self, run: Path, before: Any, after: Any, facts: dict[str, Any],
        measured: Mapping[str, Any],
    ) -> str:  # fmt: skip
        """Fits temperature and alignment, draws the figures, and writes report and page."""
        data, test = self.data, measured["test"]
        temperature, source, caveat = self._fit_temperature(measured["valid"])
        alignment = None if data.multi_label else self._fit_alignment(after)
        replace(self._inputs(), temperature=temperature, alignment=alignment).save(run)
        recorded = self._recorded(measured, temperature)
        probabilities = recorded["test"].values
        found = measure_calibration(test.probabilities, probabilities, test.labels, temperature)
        facts["calibration"] = found | {"source": source, "caveat": caveat}
        # Recordings of the background are groups of one class.
        mixed = BACKGROUND not in data.classes and groups_are_mixed(data.train.clips)
        if alignment is not None and mixed:
            facts["aligned"] = measure_aligned(after, alignment, data.test)
        log = read_log(run)
        if self.pretraining is not None:
            facts["pretrain"] = self.pretraining.facts(run)
        figures = self._draw(run, before, after)
        facts |= self._modulations(figures, before, after)

        score_clips = score_multilabel if data.multi_label else score
        scores = score_clips(test.probabilities, test.labels, data.classes)
        report = {"metric": scores.metric, "test": scores.values, **facts}

        def write_page(_: Path) -> None:
            results = RunResults(
                before=before,
                after=after,
                train=data.train,
                test=data.test,
                classes=data.classes,
                root=data.root,
                multi_label=data.multi_label,
                raw=test.probabilities,
                probabilities=probabilities,
                labels=test.labels,
                front_end=data.front_end,
                description=describe_run(self.settings, data, report),
                settings=self.settings.as_dict(),
                log=log,
                corrected=self.corrected,
            )
            write_run_page(run, results, report)

        if self.settings.page:
            start = time.perf_counter()
            figures.attempt(PAGE, write_page)
            report["seconds"]["page"] = time.perf_counter() - start
        return write_report(
            run,
            report,
            figures=figures,
            scores=scores,
            log=log,
            recorded=recorded,
        )

    def _recorded(
        self, measured: Mapping[str, Any], temperature: float
    ) -> dict[str, ClipProbabilities]:
        """Returns the probabilities of the test split, and of validation clips held out."""
        data = self.data
        splits = {"test": data.test} | ({"valid": data.valid} if self.select else {})
        return {
            split: ClipProbabilities(
                [clip.path for clip in clips.clips],
                [clip.label for clip in clips.clips],
                data.classes,
                tempered(measured[split].probabilities, temperature, data.multi_label),
            )
            for split, clips in splits.items()
        }

    def _fit_temperature(self, valid: Any) -> tuple[float, str, str]:
        """Returns the temperature of the probabilities, where it comes from, and a caveat or "".

        Args:
            valid: Result of the objective on the validation split.
        """
        if not self.select:
            return 1.0, "because the model was trained on the validation split", ""
        before = ", before the head was fitted to them" if self.settings.validation.train else ""
        source = f"fitted on {counted(len(valid.labels), 'validation clip')}{before}"
        known = is_calibrated_on_known_groups(self.settings, self.data)
        caveat = (
            "of groups (speakers, recordings …) that were trained on, unlike those of the test "
            "split (validation.by=group avoids this)"
        )
        temperature = fit_temperature(valid.probabilities, valid.labels)
        return temperature, source, caveat if known else ""

    def _fit_alignment(self, model: Any) -> Alignment:
        """Returns the statistics of the embeddings of training clips."""
        train = self.data.train
        chosen = np.random.default_rng(0).permutation(len(train.clips))[:ALIGNMENT_CLIPS]
        return Alignment.fit(*embed_clips(model, train, chosen.tolist()))

    def _draw(self, run: Path, before: Classifier, after: Classifier) -> Figures:
        figures = Figures(run)
        data, tokens = self.data, self.settings.tokens
        clip = data.test.clips[0]
        title = f"{clip.path} ({clip.label})"
        features = torch.from_numpy(data.test[0, 0].tokens)
        filters = filters_of(before), filters_of(after)
        seconds = self.token_seconds
        figures.draw("filters", lambda path: plot_filters(*filters, path, token_seconds=seconds))
        first, last = before.front_end, after.front_end
        if first is not None and last is not None:
            figures.draw("frontend", lambda path: plot_front_end(first, last, path))
        if tokens.front_end != "pretrained":  # whose frames are hidden states
            frames = None if tokens.learned else torch.from_numpy(data.test.frames(0)).T
            start = data.test.starts_at(0)
            figures.draw(
                "mask",
                lambda path: plot_mask(
                    after, features, frames, path, token_seconds=seconds,
                    frame_seconds=tokens.frame_seconds, start=start, title=title,
                ),
            )  # fmt: skip
        figures.draw("trajectory", lambda path: plot_trajectory(after, features, path, title=title))
        return figures

    def _modulations(self, figures: Figures, before: Any, after: Any) -> dict[str, Any]:
        """Compares the kernels, if there are any, with the modulations of the training clips."""
        tokens, train = self.settings.tokens, self.data.train
        filters = filters_of(before), filters_of(after)
        if tokens.front_end != "spectrogram" or not filters[1]:
            return {}
        layers: list[LayerResponse] = []
        figures.draw(
            "modulation",
            lambda path: layers.extend(plot_modulations(train, tokens, *filters, path)),
        )
        return {"modulation": {layer.name: layer.correlations for layer in layers}}


def _check_positions(data: AudioData, most: int) -> None:
    """Refuses clips with more tokens than there are learned positions, before training.

    Raises:
        ConfigError: If there are any.
    """
    for split in (data.train, data.valid, data.test):
        item, tokens = split.longest()
        if tokens > most:
            raise ConfigError(
                f"{split.clip(item).path} has up to {tokens} tokens, but only model.max_tokens="
                f"{most} positions are learned. Raise it, use longer tokens "
                "(tokens.stack, tokens.hop), cut clips with segments.seconds=..., or give "
                "model.positions=rotary"
            )
