"""Trains in turn with another library and prints examples per second; see README.md.

python -m spaudio.bench.peers huggingface --python ENV/bin/python
"""

import argparse
import sys
from collections.abc import Sequence
from statistics import median

from spaudio.bench.harness import at_least_one
from spaudio.bench.peers.turns import run_sides
from spaudio.report.tables import markdown_table

# Module and arguments of each side other than ours.
PEERS = {
    "huggingface": ["huggingface"],
    "speechbrain": ["speechbrain_loop"],
    "asteroid-free": ["asteroid", "free"],
    "asteroid-sinc": ["asteroid", "sinc"],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one comparison.

    Args:
        arguments: Without the program's name; None takes ``sys.argv``.
    """
    parser = argparse.ArgumentParser(prog="python -m spaudio.bench.peers")
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--python", required=True, help="interpreter of the peer's environment")
    parser.add_argument("--rounds", type=at_least_one, default=7, help="turns of each (default: 7)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of our recipe")
    chosen = parser.parse_intermixed_args(arguments)
    if chosen.overrides and chosen.peer.startswith("asteroid"):
        parser.error(
            f"{chosen.peer} compares the front-ends alone, without a recipe; leave "
            f"{chosen.overrides[0]} out"
        )
    module, *options = PEERS[chosen.peer]
    ours = [sys.executable, "-m", "spaudio.bench.peers.ours", chosen.peer.partition("-")[0]]
    ours += chosen.overrides
    theirs = [chosen.python, "-m", f"spaudio.bench.peers.{module}", *options]
    told = run_sides([ours, theirs], chosen.rounds)
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
    print(f"one thread each, medians of {chosen.rounds} turns\n\n{markdown_table(rows, 1)}")


if __name__ == "__main__":
    main()
