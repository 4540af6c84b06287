"""Trains in turn with another library and prints what it took; see README.md.

python -m spaudio.bench.peers huggingface --python ENV/bin/python
"""

import argparse
import sys
from collections.abc import Sequence
from statistics import median

from spaudio.bench.harness import at_least_one
from spaudio.bench.peers.turns import run_sides, run_until
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.report.tables import markdown_table, plus_minus

# Module and arguments of each side other than ours.
PEERS = {
    "huggingface": ["huggingface"],
    "speechbrain": ["speechbrain_loop"],
    "asteroid-free": ["asteroid", "free"],
    "asteroid-sinc": ["asteroid", "sinc"],
}
TURNS = 3  # between two evaluations: 30 steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one comparison. A user error prints one line and exits with code 1.

    Args:
        arguments: Without the program's name; None takes ``sys.argv``.
    """
    set_up_terminal()
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench.peers")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--python", required=True, help="interpreter of the peer's environment")
    parser.add_argument("--rounds", type=at_least_one, default=7, help="turns of each (default: 7)")
    parser.add_argument(
        "--until", type=_accuracies, metavar="ACCURACY,...", help="instead of examples per second, "
        "print the CPU seconds of training until these accuracies on the test split are reached",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=at_least_one, default=600, metavar="SECONDS",
        help="with --until: CPU seconds after which a side is stopped (default: 600)",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=at_least_one, default=3, help="with --until: number of seeds (default: 3)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of our recipe")
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.peer.startswith("asteroid") and (chosen.overrides or chosen.until):
        parser.error(
            f"{chosen.peer} compares the front-ends alone, without a recipe; leave "
            f"{'--until' if chosen.until else chosen.overrides[0]} out"
        )
    with errors_in_one_line():
        _compare(chosen)


def _compare(chosen: argparse.Namespace) -> None:
    """Runs a comparison and prints its table."""
    if chosen.until:
        rows = _until(chosen)
        title = f"one thread each; CPU seconds of training, {chosen.seeds} seeds"
    else:
        rows = _speeds(chosen)
        title = f"one thread each, medians of {chosen.rounds} turns"
    print(f"{title}\n\n{markdown_table(rows, 1)}")


def _accuracies(text: str) -> list[float]:
    """Reads accuracies from the command line, in ascending order."""
    try:
        found = sorted(float(part) for part in text.split(","))
    except ValueError:
        found = []
    if not found or not all(0 < accuracy <= 1 for accuracy in found):
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers above 0, at most 1")
    return found


def _commands(chosen: argparse.Namespace, seed: int = 0) -> list[list[str]]:
    """Returns the command of our side and that of the peer."""
    module, *options = PEERS[chosen.peer]
    ours = [sys.executable, "-m", "spaudio.bench.peers.ours", chosen.peer.partition("-")[0]]
    ours += [*chosen.overrides, *([f"seed={seed}"] if seed else [])]
    theirs = [chosen.python, "-m", f"spaudio.bench.peers.{module}", *options, str(seed)]
    return [ours, theirs]


def _speeds(chosen: argparse.Namespace) -> list[dict[str, str]]:
    """Measures examples per second; returns a row for each side."""
    told = run_sides(_commands(chosen), chosen.rounds)
    rows = []
    for name, said in zip(("spaudio", chosen.peer), told, strict=True):
        row = {"": name}
        for label, unit in (("second", "seconds"), ("CPU second", "cpu_seconds")):
            row[f"examples per {label}"] = f"{median(t['examples'] / t[unit] for t in said):.0f}"
            speeds = [
                (mine["examples"] / mine[unit]) / (other["examples"] / other[unit])
                for mine, other in zip(said, told[1], strict=True)
            ]
            row[f"relative, per {label}"] = f"{median(speeds):.2f}"
        rows.append(row)
    return rows


def _until(chosen: argparse.Namespace) -> list[dict[str, str]]:
    """Measures the seconds until accuracies are reached; returns a row for each side."""
    runs = [
        run_until(_commands(chosen, seed), chosen.until[-1], chosen.limit, TURNS)
        for seed in range(chosen.seeds)
    ]
    rows = []
    for number, name in enumerate(("spaudio", chosen.peer)):
        row = {"": name}
        for accuracy in chosen.until:
            first = [
                next((s for s, found in run[number] if found >= accuracy), None) for run in runs
            ]
            reached = [seconds for seconds in first if seconds is not None]
            row[f"to {accuracy:g}"] = (
                plus_minus(reached, digits=0)
                if len(reached) == len(runs)
                else f"{len(reached)} of {len(runs)} seeds"
            )
        best = [max(found for _, found in run[number]) for run in runs]
        rows.append({**row, "highest accuracy": plus_minus(best, digits=3)})
    return rows


if __name__ == "__main__":
    main()
