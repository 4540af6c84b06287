"""Language modelling: prediction of the next character."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from typing_extensions import override

from spaudio.audio.manifest import SPLITS
from spaudio.experiment.build import build_language_model
from spaudio.experiment.recipes import prep_function
from spaudio.experiment.run_folder import data_folder_of, save_run_settings
from spaudio.experiment.settings import TextSettings
from spaudio.experiment.tasks.setting_warnings import overruled
from spaudio.experiment.tasks.task import Task
from spaudio.model.flops import step_flops
from spaudio.model.language import LanguageModel
from spaudio.report.figures.filters_plot import filters_of, plot_filters
from spaudio.report.figures.report_figures import Figures
from spaudio.report.figures.trajectory_plot import plot_trajectory
from spaudio.report.text_report import write_text_report
from spaudio.text.corpus import SourceText, Symbols, decode, prepare_corpus
from spaudio.text.windows import (
    TextWindows,
    WindowBatches,
    collate_windows,
    sliding_windows,
    spread_windows,
)
from spaudio.training.loader import batch_loader
from spaudio.training.log import read_log
from spaudio.training.next_character import NextCharacter


class TextTask(Task):
    """Prediction of the next character.

    Args:
        settings: Settings of the run. ``corpus`` is replaced with the resolved choice, so that a
            resumed run reads the same text.
        recipe: The recipe's folder.

    Raises:
        ConfigError: If a setting is not valid for the text.
        DataError: If the text is missing or not in text8's format.
    """

    objective = NextCharacter()

    def __init__(self, settings: TextSettings, recipe: Path) -> None:
        self.settings, trainer, context = settings, settings.trainer, settings.context
        find, folder = prep_function(recipe, settings.prep), data_folder_of(settings)
        source: SourceText = find(folder / "work", **settings.prep_options)
        settings.corpus = source.choice  # type: ignore[attr-defined]  # an argument of `prepare`
        self.corpus = prepare_corpus(source, folder)
        self.data_hash = self.corpus.sha256
        train, valid = TextWindows(self.corpus.split("train"), context), self.corpus.split("valid")
        random = WindowBatches(
            len(train), trainer.batch_size, settings.steps_per_epoch, seed=settings.seed
        )
        self.train = batch_loader(train, random, collate_windows, trainer.workers)
        spread = spread_windows(len(valid), context, settings.eval.windows)
        self.valid = _every(TextWindows(valid, context, spread), settings)
        self.final = {name: self._sliding(self.corpus.split(name)) for name in ("valid", "test")}

    @override
    def begin(self, run: Path) -> None:
        """Stores the resolved ``corpus``; a sweep makes the folders of its runs before that."""
        save_run_settings(run, self.settings)

    def build_model(self) -> LanguageModel:
        """Builds the language model."""
        return build_language_model(self.settings)

    def messages(self, model: LanguageModel) -> list[str]:
        """Returns the name and length of the text, and warnings about settings without effect."""
        return [
            f"text: {self.corpus.name}, {len(self.corpus.symbols):,} characters",
            *overruled(self.settings, len(self.train)),
        ]

    def facts(self, model: LanguageModel, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what ``report.json`` says about a run on text."""
        settings, corpus = self.settings, self.corpus
        batch = settings.trainer.batch_size
        return {
            "samples_sha256": corpus.sha256,
            "corpus": {
                "name": corpus.name,
                "stand_in": corpus.stand_in,
                "sha256": corpus.sha256,
                "characters": {name: len(corpus.split(name)) for name in SPLITS},
            },
            **{
                name: {**found.metrics, "characters": found.characters}
                for name, found in measured.items()
            },
            "stride": settings.eval.stride,
            "context": settings.context,
            "positions": settings.model.positions,
            "step_flops": step_flops(model.encoder, settings.context, batch, model.symbols),
        }

    def write(
        self, run: Path, before: Any, after: Any, facts: dict[str, Any],
        measured: Mapping[str, Any],
    ) -> str:  # fmt: skip
        """Draws filters and trajectory, and writes the report."""
        facts["steps"] = facts["epochs"] * self.settings.steps_per_epoch
        symbols = self.corpus.split("valid")[: self.settings.context]
        figures, filters = Figures(run), (filters_of(before), filters_of(after))
        figures.draw("filters", lambda path: plot_filters(*filters, path))
        figures.draw(
            "trajectory",
            lambda path: plot_trajectory(
                after,
                torch.from_numpy(symbols.astype("int64")),
                path,
                title=f"{self.corpus.name}, validation split from its first character",
                labels=decode(symbols),
            ),
        )
        write_text_report(run, facts, read_log(run), figures)
        return "\n".join(
            f"{name} of {self.corpus.name}: {found.loss:.4f} nats, {found.bits:.4f} bits"
            for name, found in measured.items()
        )

    def _sliding(self, symbols: Symbols) -> DataLoader[Any]:
        """Returns the sliding windows of a split, up to ``eval.max_characters``."""
        settings = self.settings
        symbols = symbols[: settings.eval.max_characters]
        windows = sliding_windows(len(symbols), settings.context, settings.eval.stride)
        return _every(TextWindows(symbols, settings.context, windows), settings)


def _every(dataset: TextWindows, settings: TextSettings) -> DataLoader[Any]:
    batches = WindowBatches(len(dataset), 2 * settings.trainer.batch_size)
    return batch_loader(dataset, batches, collate_windows, 0)
