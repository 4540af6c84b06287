"""What a training step of each setting costs, as ``python -m spaudio.bench step`` has measured it.

Runs of a study take place one after another, on machines that others share: their own seconds tell
the machine's mood as much as the filter's cost. The benchmark takes all settings in turn in one
process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from spaudio.errors import DataError


@dataclass(frozen=True)
class StepCosts:
    """Seconds a step, by setting.

    Args:
        file: Where they were read.
        seconds: By the setting's name without spaces, such as ``filter=bank,filter.gains=per_dim``.
    """

    file: Path
    seconds: dict[str, float]

    @classmethod
    def read(cls, file: Path) -> StepCosts:
        """Reads the JSON that the benchmark has written.

        Raises:
            DataError: If it cannot be read or is not the benchmark's.
        """
        try:
            rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
            seconds = {_plain(f"filter={row['filter']}"): float(row["seconds"]) for row in rows}
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}); check the path") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} is not what `python -m spaudio.bench step RECIPE --output FILE` writes"
            ) from error
        return cls(file, seconds)

    def of(self, setting: str) -> float:
        """Returns what a step costs, in seconds.

        Args:
            setting: As the comparison names it, such as ``filter=bank, filter.gains=per_dim``.

        Raises:
            DataError: If it was not timed.
        """
        try:
            return self.seconds[_plain(setting)]
        except KeyError:
            option = _plain(setting).removeprefix("filter=")
            raise DataError(
                f"{self.file} has no step of {setting}; time it too: "
                f'python -m spaudio.bench step RECIPE --filter "{option}"'
            ) from None


def _plain(name: str) -> str:
    """Names as both sides write them differ in spaces alone."""
    return name.replace(" ", "")
