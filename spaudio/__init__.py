"""spaudio: signal processing inside a transformer, for audio.

Importing this package needs torch alone. Two functions need the extra ``recipes`` and import the
rest when they are used:

- ``spaudio.load(RUN)``: the model of a run, for files, arrays and streams;
  see :func:`spaudio.experiment.audio_model.load`.
- ``spaudio.train(source=DIR, ...)``: trains on a folder of sounds;
  see :func:`spaudio.experiment.call.train`.

What each room is for, in the order in which data flows: ``filters`` (needs nothing of ours),
``audio``, ``tokens``, ``model``, ``training``, ``report``, ``experiment``. Each imports only what
stands before it.
"""

from typing import TYPE_CHECKING, Any

from spaudio.version import __version__

if TYPE_CHECKING:
    from spaudio.experiment.audio_model import load
    from spaudio.experiment.call import train

__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """Imports ``load`` and ``train`` when they are used."""
    if name not in ("load", "train"):
        raise AttributeError(f"module 'spaudio' has no attribute {name!r}")
    try:
        if name == "load":
            from spaudio.experiment.audio_model import load

            return load
        from spaudio.experiment.call import train

        return train
    except ModuleNotFoundError as error:
        raise ImportError(
            f"spaudio.{name} needs more ({error}): pip install 'spaudio[recipes]'"
        ) from error


def __dir__() -> list[str]:
    """Lists ``load`` and ``train`` before they are used too."""
    return sorted({*globals(), *__all__})
