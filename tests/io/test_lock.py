import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from spaudio.errors import SpaudioError
from spaudio.io.lock import claimed, locked


def hold(folder: Path, ready: Path) -> None:
    """Holds a lock, beside a forked process that outlives it, until it is killed."""
    with claimed(folder):
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
        ready.touch()
        time.sleep(60)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
def test_a_lock_ends_with_its_process_and_not_with_those_forked_from_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, ready))
    process.start()
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(SpaudioError, match="another process is training in"), claimed(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with claimed(tmp_path), locked(tmp_path / "other" / "lock"):
        pass
