"""Coverage-guided fuzzing of the package's doors, by Atheris (Linux); ``make fuzz`` brings it.

    python -m tests.fuzz                       every target, 20,000 inputs each
    python -m tests.fuzz audio -runs=1000000   one of them, with libFuzzer's options
    python -m tests.fuzz audio crash-0123      once more what was found

Ends with code 0 where all held; else libFuzzer names the input and keeps it as ``crash-...``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = {"audio": 20_000, "manifest": 20_000, "archive": 20_000, "settings": 2_000}
#: A leak of memory, an input of more than ten seconds, or one of a gigabyte is a finding too.
LIMITS = ("-timeout=10", "-rss_limit_mb=1500", "-max_len=20000", "-print_final_stats=1", "-seed=1")


def fuzz(target: str, arguments: list[str]) -> None:
    """Runs one target in this process, which ends with it."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: fuzzing needs atheris: use `make fuzz`, or pip install atheris (Linux)")
    with atheris.instrument_imports(include=["spaudio", "tarfile", "zipfile", "json"]):
        from tests.fuzz.targets import TARGETS, seeds

        if target == "settings":
            import spaudio.experiment.main  # noqa: F401
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    if not any(Path(argument).is_file() for argument in arguments):
        corpus = scratch / "corpus"
        corpus.mkdir()
        for number, content in enumerate(seeds(target, scratch)):
            (corpus / str(number)).write_bytes(content)
        arguments = [f"-runs={RUNS[target]}", *LIMITS, *arguments, str(corpus)]
    hold = TARGETS[target]
    atheris.Setup([sys.argv[0], *arguments], lambda content: hold(content, scratch))
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """Runs the target that is named, or all, each in a process of its own."""
    if arguments and arguments[0] in RUNS:
        fuzz(arguments[0], arguments[1:])
    for target in RUNS:
        print(f"== {target}", flush=True)
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", target, *arguments])
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
