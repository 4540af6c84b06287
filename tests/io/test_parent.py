"""A process ends with the one that started it."""

import subprocess
import sys
import time
from pathlib import Path


def test_a_process_ends_with_what_started_it(tmp_path: Path) -> None:
    """A parent in the background starts a process and is gone at once; it is interrupted."""
    run = (
        "import time; from pathlib import Path; from spaudio.io.parent import *\n"
        "end_with_parent()\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: Path('interrupted').touch()"
    )
    parent = (
        "import os, signal, subprocess, sys; from spaudio.io.parent import *\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"subprocess.Popen([sys.executable, '-c', {run!r}], env=with_parent(os.environ))\n"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, check=True, timeout=60)
    deadline = time.monotonic() + 60
    while not (tmp_path / "interrupted").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
