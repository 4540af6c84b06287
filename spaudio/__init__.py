"""spaudio: signal processing inside a transformer, for audio.

Importing this package requires only torch. Three names need the extra ``recipes`` and import
everything else on first use:

- ``spaudio.load(RUN)``: the model of a run, for files, arrays and streams;
  see :func:`spaudio.inference.audio_model.load`.
- ``spaudio.Ensemble([MODEL, MODEL])``: several loaded models, whose probabilities are combined;
  see :class:`spaudio.inference.ensemble.Ensemble`.
- ``spaudio.train(source=DIR, ...)``: trains on a folder of sounds;
  see :func:`spaudio.inference.call.train`.

Subpackages, in the order in which data flows: ``io``, ``audio``, ``text``, ``tokens``, ``filters``,
``model``, ``training``, ``report``, ``experiment``, ``inference``, ``export``, ``bench``. Each
imports only from those before it; ``filters`` imports nothing else from spaudio.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from spaudio.errors import how_to_install
from spaudio.version import __version__

if TYPE_CHECKING:
    from spaudio import filters as filters
    from spaudio.inference.audio_model import load
    from spaudio.inference.call import train
    from spaudio.inference.ensemble import Ensemble

__all__ = ["__version__"]
if importlib.util.find_spec("hydra"):  # else `help` and `import *` would stop at them
    __all__ += ["Ensemble", "load", "train"]

_MODULES = {
    "Ensemble": "spaudio.inference.ensemble",
    "load": "spaudio.inference.audio_model",
    "train": "spaudio.inference.call",
}


if not TYPE_CHECKING:  # to a type checker, it would give any name

    def __getattr__(name: str) -> Any:
        """Imports ``Ensemble``, ``load``, ``train`` and ``filters`` on first use."""
        if name == "filters":
            return importlib.import_module("spaudio.filters")
        if name not in _MODULES:
            raise AttributeError(f"module 'spaudio' has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"spaudio.{name} needs more packages ({error}): {how_to_install('recipes')}"
            ) from error


def __dir__() -> list[str]:
    """Lists them even before first use."""
    return sorted({*globals(), *__all__, "filters"})
