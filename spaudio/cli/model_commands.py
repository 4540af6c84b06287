"""What the commands that use a trained model share: opening it, checks, output and messages."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spaudio.errors import ConfigError
from spaudio.io.escape import printable

if TYPE_CHECKING:
    from spaudio.experiment.inputs import Inputs
    from spaudio.inference.audio_model import AudioModel
    from spaudio.inference.ensemble import Ensemble


def open_models(chosen: argparse.Namespace, window: float | None = None) -> list["AudioModel"]:
    """Opens the run or saved model that a command names, and those of ``--with``."""
    from spaudio.inference.audio_model import load
    from spaudio.inference.predict import bases_for
    from spaudio.inference.saved import fetch

    runs = [fetch(source) for source in (chosen.run, *getattr(chosen, "others", ()))]
    bases = bases_for(runs, chosen.base)
    return [load(run, window=window, base=base) for run, base in zip(runs, bases, strict=True)]


def combine(models: Sequence["AudioModel"]) -> "Ensemble":
    """Lets models decide together, and prints their weights."""
    from spaudio.inference.ensemble import Ensemble

    both = Ensemble(models)
    shown = ", ".join(f"{weight:.2f}" for weight in both.weights)
    sys.stderr.write(f"together with weights {shown}; {both.source}\n")
    return both


def check_seconds(chosen: argparse.Namespace) -> None:
    """Refuses ``--window`` and ``--hop`` unless they are positive and finite."""
    for name in ("window", "hop"):
        seconds = getattr(chosen, name, None)
        if seconds is not None and not 0 < seconds < math.inf:
            raise ConfigError(f"--{name} {seconds:g}; expected a number of seconds above 0")


def write(output: Path | None, text: str) -> None:
    """Writes to a file, or to the terminal if there is none."""
    from spaudio.io.atomic import write_atomic

    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomic(output, text.encode())


def tell_bad(bad: Sequence[tuple[Path, str]], *, skip: bool, some: bool) -> None:
    """Reports unusable files; exits with code 1 unless they may be skipped."""
    how = "skipped" if skip and some else "error"
    for path, reason in bad:
        sys.stderr.write(f"{how}: {printable(path)}: {printable(reason)}\n")
    if bad and not (skip and some):
        sys.exit(1)


def tell_no_rest(inputs: "Inputs", remedy: str) -> None:
    """Warns that every sound gets a class, unless one is for other sounds, or several may apply."""
    from spaudio.audio.manifest import is_nothing

    if not inputs.multi_label and not any(map(is_nothing, inputs.classes)):
        sys.stderr.write(
            "the run has no class for other sounds, so every sound is assigned to one of its "
            f"classes; train with background=RECORDINGS, or {remedy}\n"
        )
