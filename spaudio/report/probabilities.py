"""Probabilities of all classes for labelled clips, as a CSV file and combined over models."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from spaudio.errors import ConfigError, DataError, some
from spaudio.io.atomic import write_atomic
from spaudio.io.csv_files import csv_text, for_csv, from_csv
from spaudio.training.temperature import class_probabilities, logits_of

_COLUMNS = ("clip", "true")  # before those of the classes


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

    def write(self, path: Path) -> None:
        """Writes them as CSV: clip, true label, and a column for each class."""
        lines = [[*_COLUMNS, *map(for_csv, self.classes)]]
        for clip, label, row in zip(self.clips, self.labels, self.values.tolist(), strict=True):
            lines.append([for_csv(clip), for_csv(label), *(f"{share:.6g}" for share in row)])
        write_atomic(path, csv_text(lines).encode())

    @classmethod
    def read(cls, path: Path) -> "ClipProbabilities":
        """Reads what :meth:`write` wrote.

        Raises:
            DataError: If the file is missing, or damaged.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")  # spreadsheets add a mark
            header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
            names, classes = tuple(header[:2]), header[2:]
            if names != _COLUMNS or not classes or not lines:
                raise ValueError("columns clip, true and one per class are expected, and a clip")
            values = torch.tensor([[float(cell) for cell in line[2:]] for line in lines])
            if values.shape != (len(lines), len(classes)) or not values.isfinite().all():
                raise ValueError("a clip lacks a probability")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except (ValueError, csv.Error) as error:
            raise DataError(f"{path} is damaged ({error}); run the recipe again") from error
        clips, labels = ([from_csv(line[i]) for line in lines] for i in (0, 1))
        return cls(clips, labels, [from_csv(name) for name in classes], values)


def combine_models(models: Sequence[ClipProbabilities], *, multi_label: bool) -> ClipProbabilities:
    """Combines the probabilities that several models give to the same clips.

    Args:
        models: At least one; classes in any order.
        multi_label: Each class has a probability of its own.

    Returns:
        The combined probabilities (:func:`combine`), with the classes in the order of the first
        model.

    Raises:
        ConfigError: If classes differ.
        DataError: If clips or their labels differ.
    """
    first, *others = models
    for other in others:
        check_classes(first.classes, other.classes)
        if list(other.clips) != list(first.clips):
            different = sorted({*first.clips} ^ {*other.clips}) or ["their order"]
            raise DataError(
                f"the models were tested on different clips (such as {some(different)}); models of "
                "one split can be combined: train them with the same data, seed and fold"
            )
        if list(other.labels) != list(first.labels):
            raise DataError(
                "the labels of the test clips have changed between the runs of the models; run the "
                "earlier one again"
            )
    values = [in_order(one.values, one.classes, first.classes) for one in models]
    return replace(first, values=combine(torch.stack(values), multi_label=multi_label))


def combine(probabilities: Tensor, *, multi_label: bool) -> Tensor:
    """Combines the probabilities of several models: averages their logits.

    With one label per clip, this is the normalised geometric mean of the probabilities.

    Args:
        probabilities: (models, clips, classes).
        multi_label: Each class has a probability of its own.

    Returns:
        (clips, classes), float32.
    """
    mean = logits_of(probabilities, multi_label).mean(dim=0)
    return class_probabilities(mean, multi_label, 1.0).float()


def join_clips(parts: Sequence[ClipProbabilities]) -> ClipProbabilities:
    """Joins the clips of several splits of the same classes."""
    first = parts[0]
    return ClipProbabilities(
        [clip for one in parts for clip in one.clips],
        [label for one in parts for label in one.labels],
        first.classes,
        torch.cat([in_order(one.values, one.classes, first.classes) for one in parts]),
    )


def in_order(values: Tensor, classes: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Returns probabilities (clips, classes) with the classes in another order."""
    place = {name: i for i, name in enumerate(classes)}
    return values[:, [place[name] for name in wanted]]


def check_classes(first: Sequence[str], other: Sequence[str]) -> None:
    """Checks that two models have the same classes, in any order.

    Raises:
        ConfigError: If they do not; names some that only one has.
    """
    if different := sorted({*first} ^ {*other}):
        raise ConfigError(
            f"the models have different classes (only one has {some(different)}); combine models "
            "of the same classes"
        )
