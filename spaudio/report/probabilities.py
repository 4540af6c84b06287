"""Probabilities of all classes for labelled clips, and their CSV file."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spaudio.audio.manifest import SPLITS
from spaudio.errors import DataError
from spaudio.io.atomic import write_atomic
from spaudio.io.csv_files import csv_text, for_csv, from_csv
from spaudio.tokens.batch import multi_hot

_COLUMNS = ("split", "clip", "true")  # before those of the classes


@dataclass(frozen=True)
class ClipProbabilities:
    """The probabilities that a model gives to labelled clips.

    Args:
        clips: Paths.
        labels: Their labels; several labels of a clip are joined (see `Clip`).
        classes: Class names, in the order of the probabilities.
        values: (clips, classes).
    """

    clips: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]
    values: Tensor

    def targets(self, *, multi_label: bool) -> Tensor:
        """Returns the labels as numbers.

        Args:
            multi_label: Whether a clip may have several classes.

        Returns:
            (clips,), class indices; for several labels per clip (clips, classes), 0 or 1.
        """
        index = {name: i for i, name in enumerate(self.classes)}
        if multi_label:
            return torch.from_numpy(np.stack([multi_hot(label, index) for label in self.labels]))
        return torch.tensor([index[label] for label in self.labels])

    def in_order(self, classes: Sequence[str]) -> Tensor:
        """Returns the probabilities with the classes in another order."""
        place = {name: i for i, name in enumerate(self.classes)}
        return self.values[:, [place[name] for name in classes]]


def write_probabilities(path: Path, splits: Mapping[str, ClipProbabilities]) -> None:
    """Writes probabilities as CSV: split, clip, label, and a column for each class.

    Args:
        path: The file.
        splits: By the name of the split; of one model, so with the same classes.
    """
    classes = next(iter(splits.values())).classes
    lines = [[*_COLUMNS, *map(for_csv, classes)]]
    for split, found in splits.items():
        for clip, label, row in zip(found.clips, found.labels, found.values.tolist(), strict=True):
            shares = (f"{share:.6g}" for share in row)
            lines.append([split, for_csv(clip), for_csv(label), *shares])
    write_atomic(path, csv_text(lines).encode())


def read_probabilities(path: Path) -> dict[str, ClipProbabilities]:
    """Reads what :func:`write_probabilities` wrote, by split.

    Raises:
        DataError: If the file cannot be read, or is damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # spreadsheets add a mark
        header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        classes, count = [from_csv(name) for name in header[3:]], len(header) - 3
        if tuple(header[:3]) != _COLUMNS or not classes or not lines:
            raise ValueError("expected the columns split, clip, true and one per class, and a clip")
        values = torch.tensor([[float(cell) for cell in line[3:]] for line in lines])
        if values.shape != (len(lines), count) or not values.isfinite().all():
            raise ValueError("a clip lacks a probability")
        if unknown := {line[0] for line in lines} - {*SPLITS}:
            raise ValueError(f"{unknown.pop()!r} is not a split")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}); run the recipe again") from error
    found = {}
    for split in SPLITS:
        if rows := [i for i, line in enumerate(lines) if line[0] == split]:
            clips, labels = ([from_csv(lines[i][column]) for i in rows] for column in (1, 2))
            found[split] = ClipProbabilities(clips, labels, classes, values[rows])
    return found


def join_clips(parts: Sequence[ClipProbabilities]) -> ClipProbabilities:
    """Joins the clips of several splits of the same classes."""
    classes = parts[0].classes
    return ClipProbabilities(
        [clip for one in parts for clip in one.clips],
        [label for one in parts for label in one.labels],
        classes,
        torch.cat([one.in_order(classes) for one in parts]),
    )
