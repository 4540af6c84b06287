"""Trains and uses audio classifiers.

spaudio train DIR             trains on a folder of sounds, like recipes/folder
spaudio new NAME DIR          writes an editable recipe for a folder of sounds
spaudio datasets              lists recipes: licence, size, and whether the data are on disk
spaudio compare RUN...        compares runs: mean ± std over seeds, and paired differences
spaudio filters RUN           draws kernels and their responses, before and after training
spaudio predict MODEL FILE... classifies audio files and folders
spaudio evaluate MODEL...     scores models on labelled clips, alone and together
spaudio detect MODEL FILE...  finds events in long recordings, as a table, labels or selections
spaudio explain MODEL FILE    shows which seconds and bands of a sound decided its class
spaudio listen MODEL          classifies live sound from a microphone
spaudio export MODEL          exports the model with its front-end, as ONNX or pt2
spaudio study FILE            executes the runs of a study; finished runs are skipped
spaudio generate RUN          generates text with a language model, character by character
"""

import argparse
from collections.abc import Sequence

from spaudio.cli import compare_runs, detect_events, start_runs, use_model
from spaudio.cli.subcommand import Subcommand
from spaudio.io.command_line import errors_in_one_line, set_up_terminal
from spaudio.version import __version__

_COMMANDS: dict[str, Subcommand] = {
    "train": start_runs.TRAIN,
    "new": start_runs.NEW,
    "datasets": start_runs.DATASETS,
    "compare": compare_runs.COMPARE,
    "filters": compare_runs.FILTERS,
    "predict": use_model.PREDICT,
    "evaluate": use_model.EVALUATE,
    "detect": detect_events.DETECT,
    "explain": use_model.EXPLAIN,
    "listen": use_model.LISTEN,
    "export": use_model.EXPORT,
    "study": compare_runs.STUDY,
    "generate": use_model.GENERATE,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a sub-command; a user error prints one line and exits with code 1."""
    set_up_terminal()
    parser = argparse.ArgumentParser(prog="spaudio", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (function, text, options) in _COMMANDS.items():
        command = commands.add_parser(name, help=text)
        command.set_defaults(run_command=function)
        for option, settings in options.items():
            command.add_argument(option, **settings)
    chosen, rest = parser.parse_known_args(arguments)
    if rest and chosen.command == "study" and not any(word.startswith("-") for word in rest):
        chosen.overrides += rest  # argparse ends a list at an option
    elif rest and chosen.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    chosen.rest = rest
    with errors_in_one_line(extra="recipes"):
        chosen.run_command(chosen)
