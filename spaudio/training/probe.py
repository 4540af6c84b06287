"""A linear probe, trained to its optimum: logistic regression on hidden states."""

import time
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from spaudio.model.pretrained.adapted import AdaptedClassifier
from spaudio.model.pretrained.head import Head
from spaudio.tokens.batch import Batch
from spaudio.training.objective import Objective, weighted_losses
from spaudio.training.temperature import fit_temperature_of_logits

#: Penalties on the squared weights per class, strongest first: 1 / (2 C N) for scikit-learn's C.
PENALTIES = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
ITERATIONS = 60


def collect(model: AdaptedClassifier, batches: Iterable[Batch], device: torch.device) -> Batch:
    """Computes the statistics of all clips; ``tokens`` of the result is (clips, states, width)."""
    model.to(device).eval()
    found = [
        (model.statistics(b.tokens.to(device), b.padding_mask.to(device)), b.labels, b.clips)
        for b in batches
    ]
    tokens, labels, clips = (torch.cat(parts) for parts in zip(*found, strict=True))
    padding = torch.zeros(tokens.shape[:2], dtype=torch.bool, device=device)
    return Batch(tokens, padding, labels.to(device), clips)


def solve_head(
    head: Head,
    train: Batch,
    valid: Batch,
    objective: Objective,
    accelerator: Accelerator,
    weights: Tensor | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Fits the linear layer and weights of states for each penalty, and chooses one fit.

    Each fit minimises the mean cross-entropy on the training split plus the penalty with L-BFGS,
    starting from the solution of the next stronger penalty. The chosen penalty is the strongest one
    whose cross-entropy on the N clips of the validation split is at most 1/N nats above the lowest.
    Without this margin the weakest penalty would win wherever all fits are correct, only because it
    is the most confident; it overfits if the split shares speakers with the training split. Each
    fit is first calibrated with a temperature, because a strong penalty lowers confidence but not
    accuracy. The head's standardisation is fitted before all fits.

    Args:
        head: The head; modified in place.
        train: Statistics of the training split.
        valid: Statistics of the validation split.
        objective: Measures the fits for their records.
        accelerator: Passed to the objective.
        weights: (classes,), class weights of the cross-entropy, in both splits.

    Returns:
        One record per fit, as in the training log, and the index of the chosen fit.
    """
    start, cpu_start = time.perf_counter(), time.process_time()
    records: list[dict[str, Any]] = []
    losses: list[float] = []
    fits: list[dict[str, Tensor]] = []
    features = _standardised(head, train)
    for number, penalty in enumerate(PENALTIES, 1):
        loss = _minimise(head, features, train.labels, weights, penalty)
        measured = objective.measure(head, [valid], accelerator)
        records.append(
            {
                "epoch": number,
                "step": number,
                "penalty": penalty,
                "lr": 0.0,
                # As `objective`, a mean over classes where a clip may have several.
                "train_loss": loss / (train.labels.shape[1] if train.labels.dim() == 2 else 1),
                **{f"valid_{name}": value for name, value in measured.metrics.items()},
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - cpu_start,
                "wait_seconds": 0.0,
            }
        )
        with torch.no_grad():
            logits = head(valid.tokens)
            logits = logits / fit_temperature_of_logits(logits.cpu(), valid.labels.cpu())
            losses.append(_clip_losses(logits, valid.labels, weights).mean().item())
        fits.append({name: value.clone() for name, value in head.state_dict().items()})
    most = min(losses) + 1 / len(valid.labels)
    chosen = next(i for i, loss in enumerate(losses) if loss <= most)
    head.load_state_dict(fits[chosen])
    return records, chosen


def refit_head(head: Head, batch: Batch, penalty: float, weights: Tensor | None = None) -> None:
    """Fits a head that :func:`solve_head` has fitted to other clips, with a given penalty.

    Args:
        head: The head; modified in place.
        batch: Statistics of the clips.
        penalty: Penalty on the squared weights per class.
        weights: (classes,), class weights of the cross-entropy.
    """
    _minimise(head, _standardised(head, batch), batch.labels, weights, penalty)


def _standardised(head: Head, batch: Batch) -> Tensor:
    """Fits the standardisation; returns standardised statistics (clips, states, width)."""
    head.standardise(batch.tokens)
    return head.standardised(batch.tokens)


def _minimise(
    head: Head, features: Tensor, labels: Tensor, weights: Tensor | None, penalty: float
) -> float:
    """Continues from the head's parameters; returns the cross-entropy without the penalty."""
    optimizer: Any = torch.optim.LBFGS(
        [p for p in (head.mix, head.linear.weight, head.linear.bias) if p is not None],
        max_iter=ITERATIONS, history_size=20, tolerance_grad=1e-5, tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def cross_entropy() -> Tensor:
        return _clip_losses(head.linear(head.combined(features)), labels, weights).mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy()
        loss = loss + penalty * head.linear.weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    head.zero_grad()
    with torch.no_grad():
        return cross_entropy().item()


def _clip_losses(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Returns the weighted cross-entropy of each clip, (clips,), in nats."""
    if labels.dim() == 2:  # several labels per clip, each a decision of its own
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1)
    return weighted_losses(logits, labels, weights)
