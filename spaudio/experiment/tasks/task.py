"""The interface of a task: data, model, objective and report."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from spaudio.training.loop import FitResult, Fitted, TrainingLoop, TrainingRun
from spaudio.training.objective import Objective


class Task(ABC):
    """One kind of run.

    Attributes:
        settings: Settings of the run.
        train: Loader of the training split.
        valid: Loader of the validation split, which is measured during training.
        final: Loaders of the splits that are measured after training, by name.
        objective: Loss and metrics.
        token_seconds: Seconds per token, or None if tokens have no duration.
        data_hash: SHA-256 of the manifest of the clips or of the text, stored in checkpoints.
        select: Whether the validation split selects the epoch.
        fitted: Result of fitting the model before :meth:`fit` trains it; None if it was not fitted.
    """

    settings: Any
    train: DataLoader[Any]
    valid: DataLoader[Any]
    final: dict[str, DataLoader[Any]]
    objective: Objective
    data_hash: str
    token_seconds: float | None = None
    select: bool = True
    fitted: Fitted | None = None

    @abstractmethod
    def build_model(self) -> Any:
        """Builds the model before training; the seed decides its parameters."""

    @abstractmethod
    def messages(self, model: Any) -> list[str]:
        """Returns messages to show before training."""

    def check_resumed(self, run: Path) -> None:  # noqa: B027  (data_hash is all that a text has)
        """Refuses to continue a run whose data have changed."""

    @abstractmethod
    def begin(self, run: Path) -> None:
        """Saves what the run needs besides its settings; one process calls it before training."""

    def fit(self, model: Any, run: TrainingRun) -> FitResult:
        """Trains a model; errors are those of :class:`spaudio.training.loop.TrainingLoop`."""
        loop = TrainingLoop(
            model,
            self.train,
            self.valid,
            run,
            objective=self.objective,
            trainer=self.settings.trainer,
            optim=self.settings.optim,
            seed=self.settings.seed,
            select=self.select,
        )
        return loop.fit(self.fitted)

    @abstractmethod
    def facts(self, model: Any, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what ``report.json`` says about this kind of run.

        Args:
            model: The trained model.
            measured: Results of the objective on each split of ``final``.
        """

    @abstractmethod
    def write(
        self, run: Path, before: nn.Module, after: nn.Module, facts: dict[str, Any],
        measured: Mapping[str, Any],
    ) -> str:  # fmt: skip
        """Draws the figures, writes the report, and returns a short summary.

        Args:
            run: The run's folder.
            before: The model before training.
            after: The trained model.
            facts: Facts about training and this kind of run.
            measured: As in :meth:`facts`.
        """
