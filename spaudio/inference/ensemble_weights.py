"""Several models of the same classes deciding together: a weighted sum of their logits.

The weights are fitted on validation clips. Source: Wolpert, "Stacked Generalization", 1992; here
with one weight per model. Their sum acts as a temperature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy  # submodules load on first use
import torch
from torch import Tensor

from spaudio.errors import ConfigError, DataError, some
from spaudio.report.probabilities import ClipProbabilities
from spaudio.training.temperature import (
    class_probabilities,
    logits_of,
    penalised_loss,
    prior_share,
)

_MOST = 10.0  # as the weight of a model

Splits = Mapping[str, ClipProbabilities]


def combine(probabilities: Tensor, weights: Sequence[float], *, multi_label: bool) -> Tensor:
    """Combines the probabilities of several models.

    Args:
        probabilities: (models, clips, classes).
        weights: Weights of the models' logits. With one label per clip, equal weights whose sum is
            1 give the normalised geometric mean of the probabilities.
        multi_label: Each class has a probability of its own.

    Returns:
        (clips, classes), float32.
    """
    logits = logits_of(probabilities, multi_label)
    total = torch.einsum("m,mnc->nc", torch.tensor(weights, dtype=logits.dtype), logits)
    return class_probabilities(total, multi_label, 1.0).float()


def combine_models(
    models: Sequence[ClipProbabilities], weights: Sequence[float], *, multi_label: bool
) -> ClipProbabilities:
    """Combines the probabilities that several models give to the same clips.

    Args:
        models: At least one; classes in any order.
        weights: See :func:`combine`.
        multi_label: Each class has a probability of its own.

    Returns:
        Those of all together, with the classes in the order of the first model.

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
                f"the models were tested on different clips (such as {some(different)}); train "
                "them with the same data, seed and fold"
            )
        if list(other.labels) != list(first.labels):
            raise DataError(
                "the labels of the test clips have changed between the runs of the models; run the "
                "earlier one again"
            )
    values = torch.stack([one.in_order(first.classes) for one in models])
    return replace(first, values=combine(values, weights, multi_label=multi_label))


def choose_weights(models: Sequence[Splits], *, multi_label: bool) -> tuple[list[float], str]:
    """Fits the weights of models on their validation clips, if that is possible.

    Args:
        models: The probabilities of each model, by split.
        multi_label: Each class has a probability of its own.

    Returns:
        One weight per model, and where they come from, as a sentence.

    Raises:
        ConfigError: If classes differ.
    """
    if len(models) == 1:
        return [1.0], "there is one model"
    valid = [one["valid"] for one in models if "valid" in one]
    if len(valid) < len(models):
        why = "a model has no probabilities of validation clips that it was not trained on"
    elif any((one.clips, one.labels) != (valid[0].clips, valid[0].labels) for one in valid):
        why = "the models were validated on different clips or labels"
    else:
        count = f"{len(valid[0].clips):,} validation clips"
        return fit_weights(valid, multi_label=multi_label), f"weights were fitted on {count}"
    return [1 / len(models)] * len(models), f"all models have the same weight: {why}"


def fit_weights(models: Sequence[ClipProbabilities], *, multi_label: bool) -> list[float]:
    """Finds the weights, from 0 to 10, with the lowest cross-entropy on the same clips.

    One extra clip is assumed, and a prior for few clips, as for the temperature
    (`spaudio.training.temperature`): here of the logarithm of the sum of the weights. A sum of 1
    leaves the probabilities of calibrated models as certain as they were.

    Raises:
        ConfigError: If classes differ.
    """
    classes, targets = models[0].classes, models[0].targets(multi_label=multi_label)
    for one in models:
        check_classes(classes, one.classes)
    values = torch.stack([one.in_order(classes) for one in models])
    logits = logits_of(values, multi_label)
    prior = prior_share(len(targets))

    def loss_and_slope(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        given = torch.tensor(weights, requires_grad=True)
        combined = torch.einsum("m,mnc->nc", given, logits)
        loss = penalised_loss(combined, targets, (given.sum() + 1e-3).log(), prior)
        loss.backward()  # type: ignore[no-untyped-call]
        assert given.grad is not None
        return loss.item(), given.grad.numpy()

    start = np.full(len(models), 1 / len(models))
    bounds = [(0.0, _MOST)] * len(models)
    found = scipy.optimize.minimize(loss_and_slope, start, jac=True, bounds=bounds)
    return [float(weight) for weight in found.x]


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
