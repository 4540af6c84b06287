"""The commands ``train``, ``new`` and ``datasets``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from spaudio.cli.subcommand import Subcommand
from spaudio.errors import ConfigError
from spaudio.experiment.recipes import recipes_folder


def _train(chosen: argparse.Namespace) -> None:
    """Runs the recipe for folders of sounds."""
    folder, given = None, [*chosen.settings, *chosen.rest]  # argparse ends the list at an option
    if given and not given[0].startswith("-") and ("=" not in given[0] or Path(given[0]).exists()):
        folder, *given = given
    _check_train(chosen, folder, given)
    from spaudio.experiment.compose import quoted
    from spaudio.experiment.entry import main as run_recipe
    from spaudio.io.paths import refuse_interpolation

    if folder is not None:
        refuse_interpolation(folder)
        given = [f"source={quoted(folder)}", *given]
    script = recipes_folder() / "folder" / "run.py"
    options = ["-m"] * chosen.multirun + ["--cfg"] * chosen.cfg
    run_recipe(str(script), [*options, *given], program="spaudio train")


def _check_train(chosen: argparse.Namespace, folder: str | None, given: Sequence[str]) -> None:
    """Checks the form of the words after ``spaudio train``, before anything slow is imported."""
    if folder is None and not given and not chosen.cfg:
        raise ConfigError("name a folder of sounds: spaudio train DIR")
    for word in given:
        if word.startswith("-"):
            name = word.lstrip("-")
            setting = name if "=" in name else f"{name or 'KEY'}=VALUE"
            raise ConfigError(f"{word}: settings have no dashes: {setting}")
        if "=" not in word:
            raise ConfigError(
                f"{word!r}: expected one folder, then settings: spaudio train DIR KEY=VALUE ..."
            )
        if folder is not None and word.startswith("source="):
            raise ConfigError(f"both {folder} and {word} name the source; leave one of them out")


def _new(chosen: argparse.Namespace) -> None:
    """Writes a recipe into the current folder."""
    from spaudio.experiment.new_recipe import write_recipe
    from spaudio.report.run_command import this_python

    made = write_recipe(chosen.name, chosen.source, Path())
    command = f"{this_python()} {made / 'run.py'}"
    sys.stdout.write(f"{made}: edit config.yaml and prep.py, then: {command}\n")


def _datasets(chosen: argparse.Namespace) -> None:
    """Prints the table of recipes."""
    from spaudio.experiment.datasets import find_recipes, list_datasets
    from spaudio.report.tables import show

    show(list_datasets(find_recipes(chosen.recipes), chosen.data))


TRAIN: Subcommand = (_train, "train on a folder of sounds, one sub-folder per class", {
    "settings": {"nargs": "*", "metavar": "DIR|KEY=VALUE", "help": "folder of sounds, then "
                 "settings, such as table=labels.csv or seed=1; --cfg lists them"},
    "-m": {"dest": "multirun", "action": "store_true",
           "help": "run all combinations of listed values"},
    "--cfg": {"action": "store_true", "help": "print all settings without running"},
})  # fmt: skip
NEW: Subcommand = (_new, "write an editable recipe for a folder of sounds", {
    "name": {"metavar": "NAME", "help": "name of the recipe, and of its folder, which is "
             "written into the current folder"},
    "source": {"type": Path, "metavar": "DIR", "help": "folder or archive of sounds"},
})  # fmt: skip
DATASETS: Subcommand = (_datasets, "list the recipes and whether their data are on disk", {
    "--recipes": {"type": Path, "default": recipes_folder(), "help": "folder of recipes"},
    "--data": {"type": Path, "default": Path("data"), "help": "folder of prepared data, as the "
               "setting data="},
})  # fmt: skip
