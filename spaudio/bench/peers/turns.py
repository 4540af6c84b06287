"""Lets two processes train in turn, each for some steps at a time."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from subprocess import PIPE, Popen, TimeoutExpired
from typing import Any

from spaudio.errors import SpaudioError

_GO, _EVALUATE = "go", "evaluate"
_MARK = "spaudio-turn "  # libraries write to standard output too


class Turns:
    """One side: waits for its turn, trains ``steps`` steps, and reports what they took.

    Args:
        steps: Number of steps per turn.

    Attributes:
        evaluate: Returns the accuracy on the test split. It is called between turns, on request.
        prepared: CPU seconds of computing features before the first step.
    """

    evaluate: Callable[[], float]

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.prepared = 0.0
        self._left = 0
        self._examples = 0
        self._wall = self._cpu = 0.0

    def step(self, examples: int = 0) -> bool:
        """Counts the step that has ended; returns whether to train another one.

        The first call is made before the first step.

        Args:
            examples: Number of examples in the step.
        """
        self._examples += examples
        self._left -= 1
        if self._left > 0:
            return True
        if examples:
            wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            _tell(examples=self._examples, seconds=wall, cpu_seconds=cpu, prepared=self.prepared)
        while (order := sys.stdin.readline().strip()) == _EVALUATE:
            _tell(accuracy=self.evaluate())
        if not order:
            return False
        self._left, self._examples = self.steps, 0
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return True


def _tell(**told: float) -> None:
    sys.stdout.write(f"{_MARK}{json.dumps(told)}\n")
    sys.stdout.flush()


class _Side:
    """The process of one side, whose program uses :class:`Turns`.

    Raises:
        SpaudioError: If it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        try:
            self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True)
        except OSError as error:
            raise SpaudioError(
                f"{command[0]} cannot be started ({error.strerror}); make the environment as in "
                "spaudio/bench/peers/README.md, and name its interpreter with --python"
            ) from error

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *_: object) -> None:
        """Lets the side end by itself, so that it removes its files; else ends it."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, order: str) -> dict[str, Any]:
        """Gives an order and returns what the side reports.

        Raises:
            SpaudioError: If the side has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended, so its output has, too
        line = next((line for line in self._process.stdout if line.startswith(_MARK)), None)
        if line is None:
            raise SpaudioError(f"{' '.join(self.command)} has ended; see its error above")
        told: dict[str, Any] = json.loads(line.removeprefix(_MARK))
        return told


def run_sides(commands: Sequence[Sequence[str]], rounds: int) -> list[list[dict[str, float]]]:
    """Starts the sides and gives each a turn per round, after one turn of warm-up.

    Args:
        commands: The command of each side, whose program uses :class:`Turns`.
        rounds: Number of turns of each side.

    Returns:
        For each side, what it reports of each turn: ``examples``, ``seconds``, ``cpu_seconds``.

    Raises:
        SpaudioError: If a side ends early.
    """
    with ExitStack() as running:
        sides = [running.enter_context(_Side(command)) for command in commands]
        told = [[side.ask(_GO) for side in sides] for _ in range(rounds + 1)]
    return [list(said) for said in zip(*told[1:], strict=True)]


def run_until(
    commands: Sequence[Sequence[str]], accuracy: float, limit: float, turns: int
) -> list[list[tuple[float, float]]]:
    """Lets the sides train in turn until each reaches an accuracy.

    Args:
        commands: The command of each side, whose program uses :class:`Turns` with ``evaluate``.
        accuracy: On the test split.
        limit: CPU seconds of training after which a side is stopped.
        turns: Turns between two evaluations, whose time is not counted.

    Returns:
        For each side, CPU seconds of training, with those of computing features before it, and
        accuracy at each evaluation.

    Raises:
        SpaudioError: If a side ends early.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in commands]
    with ExitStack() as running:
        sides = [running.enter_context(_Side(command)) for command in commands]
        going = set(range(len(sides)))
        while going:
            for number in sorted(going):
                side, points = sides[number], found[number]
                told = [side.ask(_GO) for _ in range(turns)]
                seconds = points[-1][0] if points else told[0]["prepared"]
                seconds += sum(turn["cpu_seconds"] for turn in told)
                points.append((seconds, side.ask(_EVALUATE)["accuracy"]))
                if points[-1][1] >= accuracy or seconds >= limit:
                    going.remove(number)
    return found
