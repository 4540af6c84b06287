"""spaudio: signal processing inside a transformer, for audio.

Importing this package requires only torch. Two functions need the extra ``recipes`` and import
everything else on first use:

- ``spaudio.load(RUN)``: the model of a run, for files, arrays and streams;
  see :func:`spaudio.inference.audio_model.load`.
- ``spaudio.train(source=DIR, ...)``: trains on a folder of sounds;
  see :func:`spaudio.inference.call.train`.

Subpackages, in the order in which data flows: ``io``, ``audio``, ``text``, ``tokens``, ``filters``,
``model``, ``training``, ``report``, ``experiment``, ``inference``, ``export``, ``bench``. Each
imports only from those before it; ``filters`` imports nothing else from spaudio.
"""

from typing import TYPE_CHECKING, Any

from spaudio.errors import how_to_install
from spaudio.version import __version__

if TYPE_CHECKING:
    from spaudio.inference.audio_model import load
    from spaudio.inference.call import train

__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """Imports ``load`` and ``train`` on first use."""
    if name not in ("load", "train"):
        raise AttributeError(f"module 'spaudio' has no attribute {name!r}")
    try:
        if name == "load":
            from spaudio.inference.audio_model import load

            return load
        from spaudio.inference.call import train

        return train
    except ModuleNotFoundError as error:
        raise ImportError(
            f"spaudio.{name} needs more packages ({error}): {how_to_install('recipes')}"
        ) from error


def __dir__() -> list[str]:
    """Lists ``load`` and ``train`` even before first use."""
    return sorted({*globals(), *__all__})
