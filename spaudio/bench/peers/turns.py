"""Lets two processes train in turn, each for some steps at a time."""

import json
import sys
import time
from collections.abc import Sequence
from subprocess import PIPE, Popen


class Turns:
    """One side: waits for its turn, trains ``steps`` steps, and reports what they took.

    Args:
        steps: Number of steps per turn.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
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
            told = {"examples": self._examples, "seconds": wall, "cpu_seconds": cpu}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
        if not sys.stdin.readline():
            return False
        self._left, self._examples = self.steps, 0
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return True


def run_sides(commands: Sequence[Sequence[str]], rounds: int) -> list[list[dict[str, float]]]:
    """Starts the sides and gives each a turn per round, after one turn of warm-up.

    Args:
        commands: The command of each side, whose program uses :class:`Turns`.
        rounds: Number of turns of each side.

    Returns:
        For each side, what it reports of each turn: ``examples``, ``seconds``, ``cpu_seconds``.

    Raises:
        RuntimeError: If a side ends early.
    """
    sides = [Popen(command, stdin=PIPE, stdout=PIPE, text=True) for command in commands]
    told: list[list[dict[str, float]]] = [[] for _ in sides]
    try:
        for turn in range(rounds + 1):
            for side, command, said in zip(sides, commands, told, strict=True):
                assert side.stdin is not None
                assert side.stdout is not None
                side.stdin.write("go\n")
                side.stdin.flush()
                # Libraries write to standard output too.
                line = next((line for line in side.stdout if line.startswith('{"examples"')), None)
                if line is None:
                    raise RuntimeError(f"{' '.join(command)} has ended; see its error above")
                if turn:
                    said.append(json.loads(line))
    finally:
        for side in sides:
            side.kill()
    return told
