"""The training log: JSON lines, and TensorBoard if it is installed."""

import json
import warnings
from pathlib import Path
from typing import Any

from spaudio.io.atomic import write_atomic


class TrainingLog:
    """Appends one record per validation to ``<name>.jsonl``.

    Args:
        folder: The run's folder.
        keep: Records up to this epoch are kept when a run resumes. Later ones are dropped, as the
            checkpoint does not include their epochs.
        name: Name of the log.
    """

    def __init__(self, folder: Path, keep: int = 0, name: str = "log") -> None:
        self.path = folder / f"{name}.jsonl"
        kept = [r for r in read_log(folder, name) if r["epoch"] <= keep]
        # Atomic: a run that is killed here must not lose its log.
        write_atomic(self.path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        self._board = _tensorboard(folder / "tensorboard" / name)

    def add(self, record: dict[str, Any]) -> None:
        """Adds a record; it must have ``epoch``."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for key, value in record.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(key, value, record["epoch"])
            self._board.flush()


def read_log(folder: Path, name: str = "log") -> list[dict[str, Any]]:
    """Reads a run's records.

    A last line that a crash cut short is left out. Other damaged lines are left out with a warning.
    """
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        return []
    records = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("epoch"), int):
            records.append(record)
        elif number < len(lines):
            warnings.warn(f"{path}, line {number} is damaged and left out", stacklevel=2)
    return records


def _tensorboard(folder: Path) -> Any:
    """Returns a writer, or None if TensorBoard is not installed (extra ``tensorboard``)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
