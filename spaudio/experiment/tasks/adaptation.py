"""Classification of clips with a pretrained encoder, frozen or adapted."""

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from spaudio.experiment.build import build_adapted
from spaudio.experiment.settings import PretrainedConfig
from spaudio.experiment.tasks.classification import ClassificationTask
from spaudio.experiment.tasks.setting_warnings import ignored_by_encoder, replaced
from spaudio.io.resident import peak_memory, reset_peak
from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.encoded import EncodedFrontEnd
from spaudio.tokens.batch import Batch
from spaudio.training.checkpoint import CHECKPOINTS, TRAINING, save_checkpoint
from spaudio.training.loader import make_loader
from spaudio.training.log import TrainingLog, read_log
from spaudio.training.loop import FitResult, Fitted, TrainingRun
from spaudio.training.probe import PENALTIES, collect, refit_head, solve_head
from spaudio.training.shards import shard_batches


class AdaptationTask(ClassificationTask):
    """Adapts a pretrained encoder to a dataset.

    The head is fitted first (:mod:`spaudio.training.probe`), with class weights if classes are
    balanced. With ``adapt=probe`` and pooled statistics, that is all; the validation split is then
    measured before the head is fitted to its clips, too. Otherwise training starts
    from the fitted head (arXiv 2202.10054), which is kept unless the validation split ranks an
    epoch higher.
    """

    @override
    def build_model(self) -> Any:
        front_end = self.data.front_end
        assert isinstance(front_end, EncodedFrontEnd)
        return build_adapted(self.settings, len(self.data.classes), front_end.base)

    @override
    def messages(self, model: Any) -> list[str]:
        return [
            *super().messages(model),
            *replaced(self.settings),
            *ignored_by_encoder(self.settings, self.data),
        ]

    @override
    def fit(self, model: Any, run: TrainingRun) -> FitResult:
        assert isinstance(model, AdaptedClassifier)
        with contextlib.suppress(OSError):  # only on Linux; a process may run several runs
            reset_peak()
        if not run.resume:
            solved, loss = self._solve(model, run)
            if self.settings.fits_head_only:
                return solved
            self.fitted = Fitted(loss, solved.seconds)
        return super().fit(model, run)

    def _solve(self, model: AdaptedClassifier, run: TrainingRun) -> tuple[FitResult, float]:
        """Fits the head; saves a checkpoint if nothing else is trained. Also returns its loss."""
        start = time.perf_counter()
        data, accelerator = self.data.train, run.accelerator
        device = accelerator.device
        trainer, seed = self.settings.trainer, self.settings.seed
        # Each clip once, even if classes are balanced: then the fit is weighted.
        loader = make_loader(data.plain(), trainer, shuffle=False, seed=seed)
        train = collect(model, loader, device)
        valid = collect(model, self.valid, device)
        waited = time.perf_counter() - start
        both = None
        if self.settings.validation.train:  # the penalty is still chosen on held-out clips
            both, train = train, _first_clips(train, len(data) - len(self.data.valid))
        weights = self.balance.weights
        records, chosen = solve_head(model.head, train, valid, self.objective, accelerator, weights)
        measured = {}
        if both is not None:
            if self.settings.fits_head_only:  # otherwise nothing is held out in the end
                batches = shard_batches(self.valid, accelerator)
                measured["valid"] = self.objective.measure(model, batches, accelerator)
            refit_head(model.head, both, PENALTIES[chosen], weights)
        best = records[chosen]["epoch"]
        if self.settings.fits_head_only and accelerator.is_main_process:
            checkpoints = run.folder / CHECKPOINTS
            shutil.rmtree(checkpoints, ignore_errors=True)  # left by an interrupted fit
            log = TrainingLog(run.folder)
            for record in records:
                log.add(record | {"seconds": record["seconds"] + waited})
            state = model.state_dict()
            save_checkpoint(checkpoints, TRAINING.best, best, state, config=run.config)
        accelerator.wait_for_everyone()
        seconds = time.perf_counter() - start
        result = FitResult(
            best_epoch=best,
            epochs=len(records),
            seconds=seconds,
            tokens_per_second=None,
            step_seconds=None,
            data_wait=waited / seconds,
            measured=measured,
        )
        return result, records[chosen]["train_loss"]

    @override
    def facts(self, model: Any, measured: Mapping[str, Any]) -> dict[str, Any]:
        general = super().facts(model, measured)
        assert isinstance(model, AdaptedClassifier)
        assert isinstance(self.settings.model, PretrainedConfig)
        return general | {
            "filter": model.adaptation.filter_options,  # milliseconds have become a kernel_size
            "base": {"source": self.settings.model.source, "sha256": model.base.hash},
            "adapt": self.settings.adapt,
            "trained_params": model.trained_parameters(),
            "peak_memory_bytes": peak_memory(),
        }

    @override
    def write(
        self, run: Path, before: Any, after: Any, facts: dict[str, Any],
        measured: Mapping[str, Any],
    ) -> str:  # fmt: skip
        best = [r for r in read_log(run) if r["epoch"] == facts["best_epoch"]]
        # None if the log was lost.
        facts["best_seconds"] = best[0]["seconds"] if best else None
        if best and "penalty" in best[0]:
            facts["penalty"] = best[0]["penalty"]
        return super().write(run, before, after, facts, measured)


def _first_clips(batch: Batch, count: int) -> Batch:
    """Returns the clips of a split whose indices are below ``count``."""
    kept = batch.clips < count
    return Batch(*(part[kept.to(part.device)] for part in batch))
