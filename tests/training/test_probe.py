"""The linear probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from sklearn.linear_model import LogisticRegression

from spaudio.model.pooling import statistics
from spaudio.model.pretrained.head import Head
from spaudio.tokens.batch import Batch
from spaudio.training import probe
from spaudio.training.multilabel import MultiLabel
from spaudio.training.objective import Classification

PENALTIES = probe.PENALTIES
VALID = 50  # clips; so few that weaker penalties are not clearly better


def batch(states: int, clips: int = 90, seed: int = 0) -> Batch:
    """Statistics of clips in which the last state alone tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=clips)
    found = rng.standard_normal((clips, states, 8)).astype(np.float32) * 3 + 1
    found[:, -1, :3] += 2.5 * np.eye(3, dtype=np.float32)[labels]
    padding = torch.zeros(clips, states, dtype=torch.bool)
    return Batch(torch.from_numpy(found), padding, torch.from_numpy(labels), torch.arange(clips))


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_one_state_is_logistic_regression(
    monkeypatch: pytest.MonkeyPatch, weights: tuple[float, ...] | None
) -> None:
    train, valid = batch(1), batch(1, seed=1)
    head = Head(1, 4, 3, "mean_std")
    monkeypatch.setattr(probe, "PENALTIES", (0.01,))
    given = None if weights is None else torch.tensor(weights)
    probe.solve_head(head, train, valid, Classification(), Accelerator(cpu=True), given)
    x = train.tokens[:, 0].numpy()
    mean, std = x.mean(axis=0), x.std(axis=0)
    theirs = LogisticRegression(C=1 / (2 * 0.01 * len(x)), max_iter=1000, tol=1e-8)
    of_clips = None if given is None else given[train.labels].numpy()
    theirs.fit((x - mean) / std, train.labels.numpy(), of_clips)
    expected = theirs.predict_proba((valid.tokens[:, 0].numpy() - mean) / std)
    with torch.no_grad():
        found = head(valid.tokens).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_several_labels_are_a_logistic_regression_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def several(one: Batch) -> Batch:
        """A clip has the class of its label, and the one after it if one of its values is high."""
        own, high = torch.eye(3)[one.labels], one.tokens[:, 0, 4:5] > 1
        return one._replace(labels=own.maximum(own.roll(1, 1) * high))

    train, valid = several(batch(1)), several(batch(1, seed=1))
    head = Head(1, 4, 3, "mean_std")
    monkeypatch.setattr(probe, "PENALTIES", (0.01,))
    [record], _ = probe.solve_head(head, train, valid, MultiLabel(), Accelerator(cpu=True))
    with torch.no_grad():  # of the log a mean over classes, like the loss in validation
        loss = F.binary_cross_entropy_with_logits(head(train.tokens), train.labels)
    assert record["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    x = train.tokens[:, 0].numpy()
    mean, std = x.mean(axis=0), x.std(axis=0)
    with torch.no_grad():
        found = head(valid.tokens).sigmoid().numpy()
    for number in range(3):  # the loss is the mean over clips of the sum over classes
        theirs = LogisticRegression(C=1 / (2 * 0.01 * len(x)), max_iter=1000, tol=1e-8)
        theirs.fit((x - mean) / std, train.labels[:, number].numpy())
        expected = theirs.predict_proba((valid.tokens[:, 0].numpy() - mean) / std)[:, 1]
        np.testing.assert_allclose(found[:, number], expected, atol=2e-3)


def test_refitting_takes_the_chosen_penalty_to_all_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid, both = batch(1), batch(1, seed=1), batch(1, 180, seed=2)
    heads = Head(1, 4, 3, "mean_std"), Head(1, 4, 3, "mean_std")
    accelerator = Accelerator(cpu=True)
    _, chosen = probe.solve_head(heads[0], train, valid, Classification(), accelerator)
    probe.refit_head(heads[0], both, probe.PENALTIES[chosen])
    monkeypatch.setattr(probe, "PENALTIES", (probe.PENALTIES[chosen],))
    probe.solve_head(heads[1], both, valid, Classification(), accelerator)
    with torch.no_grad():
        found, expected = (head(valid.tokens).softmax(dim=1) for head in heads)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_refitting_weights_the_classes() -> None:
    train, valid = batch(1), batch(1, seed=1)
    found = []
    for weights in (None, torch.ones(3), torch.tensor([20.0, 1, 1])):
        head = Head(1, 4, 3, "mean_std")
        probe.solve_head(head, train, valid, Classification(), Accelerator(cpu=True))
        probe.refit_head(head, train, 1.0, weights)
        found.append(head(train.tokens).softmax(dim=1).mean(dim=0))
    torch.testing.assert_close(found[0], found[1])
    assert found[2][0] > found[0][0] + 0.05


def test_the_weights_find_the_state_that_tells() -> None:
    head = Head(4, 4, 3, "mean_std", "sum")
    train, valid = batch(4, 200), batch(4, 200, seed=1)
    probe.solve_head(head, train, valid, Classification(), Accelerator(cpu=True))
    assert head.mix is not None
    assert int(head.mix.argmax()) == 3


@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
def test_the_strongest_penalty_is_kept_that_is_not_clearly_worse(
    monkeypatch: pytest.MonkeyPatch, weights: tuple[float, ...] | None
) -> None:
    train, valid, accelerator = batch(1, 200), batch(1, VALID, seed=1), Accelerator(cpu=True)
    given = None if weights is None else torch.tensor(weights)
    of_clips = 1 if given is None else given[valid.labels].numpy()
    head = Head(1, 4, 3, "mean_std")
    _, chosen = probe.solve_head(head, train, valid, Classification(), accelerator, given)
    losses = []
    for penalty in PENALTIES:
        monkeypatch.setattr(probe, "PENALTIES", (penalty,))
        one = Head(1, 4, 3, "mean_std")
        probe.solve_head(one, train, valid, Classification(), accelerator, given)
        with torch.no_grad():
            logits = one(valid.tokens).double()
        # Every temperature of a fine grid instead of a minimisation.
        grid = [(logits * 2**t).log_softmax(dim=1)[torch.arange(VALID), valid.labels]
                for t in np.linspace(-4, 4, 801)]  # fmt: skip
        best_one = max(grid, key=lambda each: each.mean().item())
        losses.append(float((-best_one.numpy() * of_clips).mean()))
    best = int(np.argmin(losses))
    near = [loss <= losses[best] + 1 / VALID for loss in losses]
    assert chosen == near.index(True)
    assert 0 < chosen < best  # neither the strongest nor the best
    # The head is that of the chosen penalty.
    monkeypatch.setattr(probe, "PENALTIES", (PENALTIES[chosen],))
    one = Head(1, 4, 3, "mean_std")
    probe.solve_head(one, train, valid, Classification(), accelerator, given)
    with torch.no_grad():
        torch.testing.assert_close(head(valid.tokens), one(valid.tokens), atol=0.05, rtol=0.05)


def test_a_split_without_an_error_keeps_the_strongest_penalty() -> None:
    train, valid = batch(1, 200), batch(1, VALID, seed=1)
    for part in (train, valid):
        part.tokens[:, -1, :3] += 30 * torch.eye(3)[part.labels]
    head = Head(1, 4, 3, "mean_std")
    records, chosen = probe.solve_head(head, train, valid, Classification(), Accelerator(cpu=True))
    assert records[0]["valid_accuracy"] == 1
    assert records[0]["valid_loss"] > 2 * records[1]["valid_loss"]
    assert chosen == 0


def test_the_rounding_of_the_cache_is_not_amplified() -> None:
    head, noise = Head(1, 4, 3), torch.randn(90, 1, 8)
    head.standardise(5 + 1e-3 * noise)  # a step of float16 at 5 is 4e-3
    assert head.standardised(5 + 1e-3 * noise).abs().max() < 0.5
    head.standardise(5 + noise)
    assert head.standardised(5 + noise).std(correction=0).item() == pytest.approx(1, abs=0.02)


def test_states_that_attention_pools_are_standardised_token_by_token() -> None:
    tokens = 2 * torch.randn(40, 7, 4) + torch.randn(40, 1, 4) + 3  # clips differ in their mean
    head = Head(1, 4, 3, "attention")
    head.standardise(statistics(tokens).unsqueeze(1))
    x = tokens.flatten(0, 1)
    torch.testing.assert_close(head.mean[0], x.mean(dim=0))
    torch.testing.assert_close(head.std[0], x.std(dim=0, correction=0), rtol=1e-4, atol=1e-4)
