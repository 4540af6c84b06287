"""What a sub-command is, and the options that several of them have."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Its function, help text and argparse options.
Subcommand = tuple[Callable[[argparse.Namespace], None], str, dict[str, Any]]

RUN: dict[str, Any] = {"type": Path, "metavar": "RUN", "help": "folder of a run"}
MODEL: dict[str, Any] = {
    "run": {"type": Path, "metavar": "MODEL", "help": "folder of a run or a saved model, or a "
            "Hugging Face Hub id, OWNER/NAME"},
    "--base": {"metavar": "DIR|ID", "help": "pretrained encoder, if it has moved since "
               "training"},
}  # fmt: skip
WITH: dict[str, Any] = {
    "type": Path, "action": "append", "default": [], "dest": "others", "metavar": "MODEL",
    "help": "another model of the same classes; they decide together, by a weighted sum of their "
    "logits; may be repeated",
}  # fmt: skip
PATHS: dict[str, Any] = {
    "nargs": "+", "type": Path, "metavar": "FILE|DIR", "help": "audio files, or folders of them",
}  # fmt: skip
UNSURE: dict[str, Any] = {
    "type": float, "metavar": "P", "help": "report 'unsure' if the most probable class has a "
    "probability below P",
}  # fmt: skip
SKIP_BAD: dict[str, Any] = {
    "action": "store_true", "help": "skip unusable files instead of failing",
}  # fmt: skip
FORCE: dict[str, Any] = {"action": "store_true", "help": "overwrite existing files"}
