"""Runs a recipe from Python, for example in a notebook: ``spaudio.train(source=DIR)``."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spaudio.errors import ConfigError
from spaudio.experiment.compose import compose, quoted
from spaudio.experiment.recipes import recipes_folder
from spaudio.experiment.start import start_run
from spaudio.inference.audio_model import AudioModel, load
from spaudio.io.plain import flatten, read_json
from spaudio.report.run_files import MARKDOWN, REPORT


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Args:
        run: Its folder.
    """

    run: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """Content of ``report.json``: scores, floor, sizes, seconds, versions."""
        content: dict[str, Any] = read_json(self.run / REPORT)
        return content

    @cached_property
    def model(self) -> AudioModel:
        """The best model, loaded."""
        return load(self.run)

    @property
    def figures(self) -> dict[str, Path]:
        """The run's figures, by name."""
        return {path.stem: path for path in sorted(self.run.glob("*.png"))}

    def _repr_markdown_(self) -> str:
        """Shows the report in a notebook, without its figures."""
        text = (self.run / MARKDOWN).read_text(encoding="utf-8")
        return "\n".join(line for line in text.splitlines() if not line.startswith("!["))


def train(
    source: str | os.PathLike[str] | None = None,
    *,
    recipe: str | os.PathLike[str] = "folder",
    **settings: Any,
) -> Trained:
    """Runs a recipe in this process, with the data in ``./data`` and the run in ``./runs``.

    Args:
        source: The data; for the recipe ``folder``, a folder with one sub-folder per class.
        recipe: Name or folder of a recipe, such as a folder that ``spaudio new`` made.
        settings: As on the command line. Give settings of a group as a dictionary, or dotted names
            with ``**``: ``train("sounds", seed=1, trainer={"min_steps": 1000},
            **{"tokens.f_max": 4000})``. A pretrained encoder: ``train("sounds",
            model="pretrained", **{"model.source": "openai/whisper-tiny.en"})``.

    Returns:
        The run, with its figures and model.

    Raises:
        SpaudioError: If the data, the settings or the machine prevent the run.
    """
    folder = Path(recipe)
    if not (folder / "config.yaml").is_file():
        folder = recipes_folder() / folder
    given = settings if source is None else {"source": source, **settings}
    overrides = []
    for name, value in flatten(given):
        try:
            overrides.append(f"{name}={_written(value)}")
        except TypeError as error:
            raise ConfigError(
                f"{name}={value!r} is of type {type(value).__name__}; expected a number, a text, a "
                "path, a list, a mapping or None"
            ) from error
    return Trained(start_run(compose(folder, overrides), folder.resolve() / "run.py"))


def _written(value: Any) -> str:
    """Writes a value in Hydra's grammar."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple | range):
        return f"[{','.join(map(_written, value))}]"
    return quoted(value if isinstance(value, str) else os.fsdecode(value))
