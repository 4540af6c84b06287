"""Coverage-guided fuzzing of what reads input, with Atheris (Linux), which ``make fuzz`` installs.

    python -m tests.fuzz                       every target, 20,000 inputs each
    python -m tests.fuzz audio -runs=1000000   one of them, with libFuzzer's options
    python -m tests.fuzz audio crash-0123      run a saved input again

Exits with code 0 if nothing was found; otherwise libFuzzer saves the input as ``crash-...``.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = {"audio": 20_000, "manifest": 20_000, "archive": 20_000, "settings": 2_000,
        "run": 2_000, "cache": 20_000, "names": 20_000}  # fmt: skip
#: Memory leaks, and inputs that need over ten seconds or a gigabyte, are findings too.
LIMITS = ("-timeout=10", "-rss_limit_mb=1500", "-max_len=20000", "-print_final_stats=1", "-seed=1")


def fuzz(target: str, arguments: list[str]) -> None:
    """Runs one target in this process, then exits."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: fuzzing needs atheris: use `make fuzz`, or pip install atheris (Linux)")
    with atheris.instrument_imports(include=["spaudio", "tarfile", "zipfile", "json"]):
        from tests.fuzz.targets import TARGETS, seeds

        if target in ("settings", "run"):
            import spaudio.experiment.compose  # noqa: F401
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
    """Runs the named target, or all, each in its own process."""
    if arguments and arguments[0] in RUNS:
        fuzz(arguments[0], arguments[1:])
    for target in RUNS:
        print(f"== {target}", flush=True)
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", target, *arguments])
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:])
