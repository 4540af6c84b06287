"""The entry of a recipe's ``run.py``: Hydra reads the overrides, a run follows.

python recipes/<name>/run.py key=value ...            one run
python recipes/<name>/run.py -m filter=none,bank seed=0,1,2   a sweep, compared at the end
python recipes/<name>/run.py resume=RUN               goes on with a run
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

import spaudio.conf
from spaudio.errors import ConfigError, SpaudioError
from spaudio.recipe.run import run_recipe
from spaudio.report.compare import compare, group_runs, show
from spaudio.tokens.front_end import own_settings

# A run's folder is ours alone (`run_folder.py`), so Hydra writes nothing beside it, except the
# list of a sweep's overrides.
HYDRA = (
    "hydra.searchpath=[pkg://spaudio.conf]",
    "hydra/job_logging=stdout",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.sweep.dir=${runs}/${recipe}/sweeps/${now:%Y%m%d-%H%M%S-%f}",
    "hydra.sweep.subdir=.",
)


def main(script: str) -> None:
    """Runs the recipe whose ``run.py`` this is, with the command line's overrides.

    Args:
        script: ``__file__`` of a ``recipes/<name>/run.py`` with a ``config.yaml`` beside it.
    """
    folder = Path(script).resolve().parent
    console = Console(stderr=True)
    finished: list[Path] = []

    def task(config: DictConfig) -> None:
        try:
            finished.append(run_recipe(config, folder.parents[1] / "data_prep"))
        except SpaudioError as error:
            # SystemExit passes through Hydra, which would print a traceback of its own.
            console.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
            raise SystemExit(1) from error

    arguments = sys.argv[1:]
    try:
        _check_overrides(folder, [a for a in arguments if not a.startswith("-")])
    except ConfigError as error:
        console.print(f"error: {error}", style="red", soft_wrap=True, markup=False)
        raise SystemExit(1) from error
    given = {argument.partition("=")[0] for argument in arguments}
    ours = [override for override in HYDRA if override.partition("=")[0] not in given]
    sys.argv = [sys.argv[0], *arguments, *ours]
    decorate = hydra.main(version_base="1.3", config_path=str(folder), config_name="config")
    try:
        decorate(task)()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if len(finished) > 1:
        table, markdown = compare(group_runs(finished))
        show(table)
        path = finished[-1].parent / f"compare-{finished[-1].name}.md"
        path.write_text(markdown, encoding="utf-8")
        for run in finished:
            Console().print(f"report: {run / 'report.md'}", soft_wrap=True)
        Console().print(f"table:  {path}", soft_wrap=True)


def _check_overrides(folder: Path, arguments: list[str]) -> None:
    """Raises ConfigError where an override names a key that no configuration of the recipe has.

    Hydra refuses such a key too, but advises to add it with ``+``, which would then be ignored.
    """
    overrides = [
        override
        for override in OverridesParser.create().parse_overrides(arguments)
        if not override.key_or_group.startswith("hydra")
    ]
    keys = [override.key_or_group for override in overrides]
    if "resume" in keys and len(keys) > 1:
        other = next(key for key in keys if key != "resume")
        raise ConfigError(
            f"resume takes every setting from the run; {other} cannot be changed. Start a new run"
        )
    groups = {path.name for path in Path(spaudio.conf.__file__).parent.iterdir() if path.is_dir()}
    # A choice such as filter=bank decides which keys there are; of a sweep, the first one counts.
    choices = [
        f"{override.key_or_group}={_first(override)}"
        for override in overrides
        if override.key_or_group in groups
    ]
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose("config", overrides=[HYDRA[0], *choices])
    settings: Any = OmegaConf.to_container(config)
    settings["tokens"] = own_settings(settings["tokens"])
    known = sorted(_keys(settings) | groups)
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown setting {key!r}; {hint}")


def _first(override: Override) -> Any:
    """Returns an override's value, or the first one of a sweep."""
    return (
        next(iter(override.sweep_string_iterator()))
        if override.is_sweep_override()
        else (override.value())
    )


def _keys(settings: Any, prefix: str = "") -> set[str]:
    """Returns the dotted names of all settings."""
    if not isinstance(settings, dict):
        return set()
    found: set[str] = set()
    for key, value in settings.items():
        found |= {f"{prefix}{key}"} | _keys(value, f"{prefix}{key}.")
    return found
