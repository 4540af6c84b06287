"""spaudio: signal processing inside a transformer, for audio.

Importing this package needs torch alone. Two functions need the extra ``recipes`` and import the
rest when they are used:

- ``spaudio.load(RUN)``: the model of a run, for files, arrays and streams;
  see :func:`spaudio.experiment.loaded.load`.
- ``spaudio.train(source=DIR, ...)``: trains on a folder of sounds;
  see :func:`spaudio.experiment.call.train`.

What each room is for, in the order in which data flows: ``filters`` (needs nothing of ours),
``audio``, ``tokens``, ``model``, ``train``, ``report``, ``experiment``. Each imports only what
stands before it.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

import spaudio.train as _train_room
from spaudio.version import __version__

if TYPE_CHECKING:
    from spaudio.experiment.loaded import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Imports ``load`` when it is used."""
    if name != "load":
        raise AttributeError(f"module 'spaudio' has no attribute {name!r}")
    try:
        from spaudio.experiment.loaded import load
    except ModuleNotFoundError as error:
        raise _incomplete("load", error) from error
    return load


class _Callable(ModuleType):
    """The room ``spaudio.train``, which is a function too."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        """Trains; see :func:`spaudio.experiment.call.train`."""
        try:
            from spaudio.experiment.call import train
        except ModuleNotFoundError as error:
            raise _incomplete("train", error) from error
        return train(*arguments, **settings)


def _incomplete(name: str, error: ModuleNotFoundError) -> ImportError:
    return ImportError(f"spaudio.{name} needs more ({error}): pip install 'spaudio[recipes]'")


_train_room.__class__ = _Callable
