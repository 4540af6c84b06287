"""Processes that end with the one that started them, even if it is killed."""

import os
import signal
import threading
import time
from collections.abc import Mapping

_PARENT = "SPAUDIO_PARENT"  # environment variable: id of the process to end with
# Seconds until SIGINT is sent again to a process that goes on. Python raises KeyboardInterrupt
# wherever it is then, and that may be code that discards exceptions, such as a finalizer.
REPEAT = 10.0


def with_parent(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment for a process that must end with this process."""
    return {**environment, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Stops this process, like Ctrl-C, once the process that started it has ended.

    Acts only in the environment of :func:`with_parent`.
    """
    parent = os.environ.pop(_PARENT, None)
    if parent is None:
        return
    # Processes that a shell starts in the background, and their children, ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        time.sleep(1)
        while os.getppid() == int(parent):
            time.sleep(1)
        while True:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(REPEAT)

    threading.Thread(target=watch, daemon=True).start()
