"""The files and folders of a run, by their names."""

import difflib
from pathlib import Path

from spaudio.errors import some

CONFIG = "config.yaml"
REPORT = "report.json"  # written last; marks a finished run
MARKDOWN = "report.md"
PAGE = "report.html"
PREDICTIONS = "predictions.csv"
PROBABILITIES = "probabilities.csv"


def fold_folder(name: object) -> str:
    """Returns the name of a fold's folder, which is in the folder of the run over all folds."""
    return f"fold-{name}"


def folds_in(run: Path) -> dict[str, Path]:
    """Returns the folders of the folds of a run, by the name of the fold; none if it has none."""
    start = fold_folder("")
    return {one.name.removeprefix(start): one for one in sorted(run.glob(f"{start}*/"))}


def no_run(folder: Path, *, several: bool = False) -> str:
    """Returns the message for a folder that is not a run's, with the nearest runs.

    Args:
        folder: The folder, or a path where nothing is.
        several: Whether all runs in it may be named instead.
    """
    if folder.is_dir():
        runs = [str(path.parent) for path in sorted(folder.glob(f"*/{CONFIG}"))]
        named = f"the runs in it, {folder}/*/" if several else f"one of {some(runs)}"
        remedy = f"name {named}" if runs else "name a run's folder"
        return f"{folder} is not a run's folder: it holds no {CONFIG}; {remedy}"
    names = [path.parent.name for path in folder.parent.glob(f"*/{CONFIG}")]
    near = difflib.get_close_matches(folder.name, names, n=1)
    hint = f"did you mean {folder.parent / near[0]}?" if near else "check the path"
    return f"{folder}: there is no such run; {hint}"
