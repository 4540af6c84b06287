"""Temperature scaling: one number that makes a model's probabilities match its accuracy.

Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599. It does not
change rankings, so accuracy and mAP stay the same.
"""

import math

import scipy  # submodules load on first use
import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST, HIGHEST = 0.05, 20.0
SPREAD = 0.5  # standard deviation of the prior of the temperature's logarithm
FEW = 20  # clips: with this many, the prior counts half


def class_probabilities(logits: Tensor, multi_label: bool, temperature: float) -> Tensor:
    """Turns logits (batch, classes) into probabilities."""
    logits = logits / temperature
    return logits.sigmoid() if multi_label else logits.softmax(dim=1)


def tempered(probabilities: Tensor, temperature: float, multi_label: bool) -> Tensor:
    """Applies a temperature to probabilities, as if the logits were divided by it.

    The probabilities of a clip may be a mean over its segments, which has no logits of its own.

    Args:
        probabilities: (clips, classes).
        temperature: Above 1 makes them less confident.
        multi_label: Each class has a probability of its own.

    Returns:
        (clips, classes), with the dtype of ``probabilities``.
    """
    if temperature == 1:
        return probabilities
    found = class_probabilities(logits_of(probabilities, multi_label), multi_label, temperature)
    return found.to(probabilities.dtype)


def fit_temperature(probabilities: Tensor, labels: Tensor) -> float:
    """Finds the temperature with the lowest cross-entropy.

    One extra clip is assumed, whose label is equally likely to be any class. Otherwise a split
    without errors would make the model certain of everything (after Platt, "Probabilistic Outputs
    for Support Vector Machines", 1999, section 2.2). With many clips this makes no difference.

    Few clips show little: four without an error may be luck, or the model may make none. So with N
    clips, the extra one counts N / (N + `FEW`), and a prior of the temperature counts the rest. In
    this prior, the logarithm of the temperature is normal, with mean 0 and standard deviation
    `SPREAD`.

    Args:
        probabilities: (clips, classes), of the validation split.
        labels: (clips,), class indices, or for several labels per clip (clips, classes), 0 or 1.

    Returns:
        The temperature, in ``[LOWEST, HIGHEST]``.
    """
    logits = logits_of(probabilities, labels.dim() == 2)
    return fit_temperature_of_logits(logits, labels, prior_share(len(labels)))


def fit_temperature_of_logits(logits: Tensor, labels: Tensor, prior: float = 0) -> float:
    """Finds the temperature for logits (clips, classes); see :func:`fit_temperature`.

    Args:
        logits: (clips, classes).
        labels: As in :func:`fit_temperature`.
        prior: How much the prior counts, from 0 to 1; the extra clip counts the rest. With 0, no
            temperature is preferred: logits that are twice as large get twice the temperature, and
            so the same probabilities.
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        return penalised_loss(scaled, labels, log_temperature, prior).item()

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x)


def prior_share(clips: int) -> float:
    """Returns how much the prior counts, from 0 to 1; the extra clip counts the rest."""
    return FEW / (clips + FEW)


def penalised_loss(
    logits: Tensor, labels: Tensor, logarithm: float | Tensor, prior: float
) -> Tensor:
    """Returns the mean cross-entropy, with an extra clip of any class and the prior.

    Args:
        logits: (clips, classes).
        labels: As in :func:`fit_temperature`.
        logarithm: Of the temperature, or of the sum of weights.
        prior: How much the prior counts, see :func:`prior_share`.
    """
    extra = 1 - prior
    other = extra / (len(labels) + extra)
    if labels.dim() == 1:
        loss = F.cross_entropy(logits, labels, label_smoothing=other)
    else:
        targets = labels * (1 - other) + other / 2
        loss = F.binary_cross_entropy_with_logits(logits, targets.double())
    return loss + prior * ((logarithm / SPREAD) ** 2 / 2) / (len(labels) + 1 - prior)


def logits_of(probabilities: Tensor, multi_label: bool) -> Tensor:
    """Returns logits whose softmax or sigmoid gives the probabilities, in double precision.

    Args:
        probabilities: (..., classes).
        multi_label: Each class has a probability of its own.
    """
    chances = probabilities.double()
    if multi_label:
        return chances.logit(eps=1e-12)
    return chances.clamp_min(torch.finfo(torch.float32).tiny).log()
