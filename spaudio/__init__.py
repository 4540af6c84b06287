"""spaudio: signal processing inside a transformer, for audio.

Importing this package needs torch alone. What each room is for, in the order in which data flows:
``filters`` (needs nothing of ours), ``audio``, ``tokens``, ``model``, ``train``, ``report``,
``recipe``. Each imports only what stands before it.
"""

from spaudio.version import __version__

__all__ = ["__version__"]
