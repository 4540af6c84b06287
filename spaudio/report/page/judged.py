"""Predictions of a run for each clip of its test split, stored as ``clips.jsonl``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from spaudio.io.atomic import write_atomic

CLIPS = "clips.jsonl"
TOP = 5  # classes stored per clip
SUSPECTS = 100  # clips in the list of labels to check


@dataclass(frozen=True)
class Judged:
    """A clip of the test split, and the model's prediction for it.

    Args:
        path: Relative to the dataset's audio root.
        group: Speaker, recording or the like; the path itself if there is none.
        seconds: Its duration.
        labels: Class indices, the least probable one first.
        top: The most probable classes and their probabilities, after temperature scaling.
        own: Probability of its label; of several labels, the lowest.
        confidence: The largest probability before temperature scaling.
        near_label: The most similar training clip with its first label; None if not searched for.
        near_predicted: The most similar training clip of the most probable class.
        fold: Name of the fold that tested it, with ``folds=all``.
    """

    path: str
    group: str
    seconds: float
    labels: tuple[int, ...]
    top: tuple[tuple[int, float], ...]
    own: float
    confidence: float
    near_label: str | None = None
    near_predicted: str | None = None
    fold: str | None = None

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return self.top[0][0]

    @property
    def is_right(self) -> bool:
        """Whether the most probable class is a label of the clip."""
        return self.predicted in self.labels


def errors_first(clips: Sequence[Judged]) -> list[Judged]:
    """Sorts clips: errors, most confident first, then the others, least probable label first."""
    wrong = sorted((c for c in clips if not c.is_right), key=lambda c: -c.top[0][1])
    return wrong + sorted((c for c in clips if c.is_right), key=lambda c: c.own)


def labels_to_check(clips: Sequence[Judged], *, multi_label: bool) -> list[Judged]:
    """Returns the clips with the least probable labels, lowest first; none with several labels.

    This is the ranking by self-confidence of Northcutt et al., "Confident Learning", arXiv
    1911.00068. The probabilities must come from a model that was not trained on these clips.
    """
    return [] if multi_label else sorted(clips, key=lambda clip: clip.own)[:SUSPECTS]


def write_judged(run: Path, clips: Sequence[Judged]) -> None:
    """Writes one JSON object per clip and line."""
    lines = (json.dumps(asdict(clip)) + "\n" for clip in clips)
    write_atomic(run / CLIPS, "".join(lines).encode())


def read_judged(run: Path, fold: str) -> list[Judged]:
    """Reads the clips of a fold's run."""
    found = []
    for line in (run / CLIPS).read_text(encoding="utf-8").splitlines():
        content = json.loads(line)
        content["labels"] = tuple(content["labels"])
        content["top"] = tuple((index, chance) for index, chance in content["top"])
        found.append(replace(Judged(**content), fold=fold))
    return found
