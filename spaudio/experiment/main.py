"""The entry of a recipe's ``run.py``: Hydra reads the overrides, a run follows.

python recipes/<name>/run.py key=value ...            one run
python recipes/<name>/run.py -m filter=none,bank seed=0,1,2   a sweep, compared at the end
python recipes/<name>/run.py folds=all jobs=2         every fold, one report over all
python recipes/<name>/run.py resume=RUN               goes on with a run, or with folds
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

import spaudio.conf
from spaudio.errors import ConfigError, SpaudioError
from spaudio.experiment.compare import compare_runs
from spaudio.experiment.compose import SEARCH_PATH, compose
from spaudio.experiment.folds import is_fold_run, run_folds
from spaudio.experiment.model import is_text
from spaudio.experiment.processes import end_with_parent, is_first_process, processes
from spaudio.experiment.run import run_recipe
from spaudio.experiment.settings import check_value, quoted, unknown, values
from spaudio.experiment.text import run_text
from spaudio.tokens.front_end import own_settings

# A run's folder is ours alone (`run_folder.py`), so Hydra writes nothing beside it, except the
# list of a sweep's overrides.
HYDRA = (
    SEARCH_PATH,
    "hydra/job_logging=stdout",
    "hydra.run.dir=.",
    "hydra.output_subdir=null",
    "hydra.sweep.subdir=.",
)
FINISHED = "finished.txt"  # in a sweep's folder: number and run folder of each job that ended well


@dataclass(frozen=True)
class Task:
    """What Hydra calls with each composed configuration, here or in a launcher's process.

    Args:
        script: The recipe's ``run.py``.
        sweep: Folder of the sweep that the job is of; None for a single run.
    """

    script: Path
    sweep: Path | None

    def __call__(self, config: DictConfig) -> None:
        """Runs what the configuration asks for; an error is one line and exit code 1."""
        scripts = self.script.parents[2] / "data_prep"
        try:
            if is_fold_run(config):
                if processes() > 1:
                    raise ConfigError(
                        "folds=all starts runs of its own, beside each other with jobs=N; under "
                        "torchrun name one, as the recipe's fold_by.key says"
                    )
                run = run_folds(config, self.script)
            else:
                run = (run_text if is_text(config) else run_recipe)(config, scripts)
        except (SpaudioError, OmegaConfBaseException, OSError) as error:
            _say(error)
            # SystemExit passes through Hydra, which would print a traceback of its own.
            raise SystemExit(1) from error
        if self.sweep is not None:
            with (self.sweep / FINISHED).open("a", encoding="utf-8") as file:
                file.write(f"{HydraConfig.get().job.num} {run.resolve()}\n")


def main(script: str) -> None:
    """Runs the recipe whose ``run.py`` this is, with the command line's overrides.

    Args:
        script: ``__file__`` of a ``recipes/<name>/run.py`` with a ``config.yaml`` beside it.
    """
    end_with_parent()
    path = Path(script).resolve()
    arguments = sys.argv[1:]
    multirun = bool({"-m", "--multirun"} & set(arguments))
    try:
        if processes() > 1 and multirun:
            raise ConfigError("a sweep (-m) is not for torchrun; start one run of each setting")
        runs = _check_overrides(path.parent, [a for a in arguments if not a.startswith("-")])
        if any(argument.startswith("hydra.sweep.dir=") for argument in arguments):
            raise ConfigError("hydra.sweep.dir is chosen by the recipe, below runs=; leave it out")
    except (ConfigError, OmegaConfBaseException) as error:
        _say(error)
        raise SystemExit(1) from error
    sweep = runs / "sweeps" / f"{datetime.now():%Y%m%d-%H%M%S-%f}" if multirun else None
    ours = [*HYDRA, f"hydra.sweep.dir={quoted(sweep)}"] if sweep else HYDRA
    given = {argument.partition("=")[0] for argument in arguments}
    ours = [override for override in ours if override.partition("=")[0] not in given]
    sys.argv = [sys.argv[0], *arguments, *ours]
    decorate = hydra.main(version_base="1.3", config_path=str(path.parent), config_name="config")
    try:
        decorate(Task(path, sweep))()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if sweep is not None:
        _compare(sweep)


def _compare(sweep: Path) -> None:
    """Compares the runs of a sweep, in the order of its jobs."""
    if not (sweep / FINISHED).is_file():
        return  # a launcher that only submits its jobs
    lines = (sweep / FINISHED).read_text(encoding="utf-8").splitlines()
    jobs = sorted((int(number), Path(run)) for number, _, run in (x.partition(" ") for x in lines))
    finished = [run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
                for _, run in jobs]  # fmt: skip
    if len(finished) > 1:
        path = finished[-1].parent / f"compare-{finished[-1].name}.md"
        compare_runs(finished, output=path)
        for run in finished:
            Console().print(f"report: {run / 'report.md'}", soft_wrap=True)
        Console().print(f"table:  {path}", soft_wrap=True)


def _say(error: Exception) -> None:
    who = "" if is_first_process() else f"process {os.environ['RANK']}: "
    Console(stderr=True).print(f"{who}error: {error}", style="red", soft_wrap=True, markup=False)


def _check_overrides(folder: Path, arguments: list[str]) -> Path:
    """Raises ConfigError where an override names a key or choice that the recipe has not.

    The same goes for a value of another kind than the default. Hydra refuses unknown keys too, but
    advises to add them with ``+``, which would then be ignored.

    Returns:
        Folder of the recipe's runs.
    """
    parsed = [_parse(argument) for argument in arguments]
    overrides = [o for o in parsed if not o.key_or_group.startswith("hydra")]
    keys = [override.key_or_group for override in overrides]
    # How many folds run at a time changes no result.
    if "resume" in keys and (others := [key for key in keys if key not in ("resume", "jobs")]):
        other = others[0]
        raise ConfigError(
            f"resume takes every setting from the run; {other} cannot be changed. Start a new run"
        )
    conf = Path(spaudio.conf.__file__).parent
    groups = {path.name for path in conf.iterdir() if path.is_dir()}
    for override in overrides:
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: a setting cannot be removed; give a value")
        if (group := override.key_or_group) in groups:
            given = list(values(override))
            if not given:
                raise ConfigError(f"{override.input_line}: name the choices, {group}=a,b,c")
            known = sorted(f.stem for home in (conf, folder) for f in (home / group).glob("*.yaml"))
            for choice in given:
                if choice not in known:
                    raise unknown(group, str(choice), known)
    # A choice such as filter=bank decides which keys there are; of a sweep, the first one counts.
    choices = [
        f"{override.key_or_group}={next(values(override))}"
        for override in overrides
        if override.key_or_group in groups
    ]
    settings: Any = OmegaConf.to_container(compose(folder, choices))
    if "tokens" in settings:
        settings["tokens"] = own_settings(settings["tokens"])
    defaults = _flat(settings)
    for override in overrides:
        if (key := override.key_or_group) in groups:
            continue
        if key not in defaults:
            raise unknown("setting", key, sorted({*defaults, *groups}))
        for value in values(override):
            check_value(key, value, defaults[key])
            if key in ("runs", "recipe"):
                defaults[key] = value
    places = OmegaConf.create({key: defaults[key] for key in ("runs", "recipe")})
    return Path(str(places.runs), str(places.recipe))


def _parse(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        raise ConfigError(
            f"cannot read {argument!r}; expected key=value, quoted where the value holds a space "
            f"or one of ,:[]{{}}() as in 'key=\"value\"' ({str(error).splitlines()[0]})"
        ) from error


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Returns all settings by their dotted names."""
    if not isinstance(settings, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{prefix}{key}": value} | _flat(value, f"{prefix}{key}.")
    return found
